"""The commands that judge a model as a calculator: calibrate, check."""

from __future__ import annotations

from ladm.cli.calibration_display import calibration_report, check_report
from ladm.cli.options import settings_command
from ladm.cli.scoring import print_estimate
from ladm.cli.terminal import (
    configure_libraries,
    next_step,
    note,
    preparing_bar,
    print_result,
    scoring_bar,
    words_without,
)
from ladm.settings.calibration import CalibrateSettings, CheckSettings
from ladm.settings.common import DOMAIN_KEY


@settings_command(
    CalibrateSettings,
    short_help="Find the score that separates documents best",
    examples=(
        "ladm calibrate --model org/model --rows rows -o profile.yaml",
        "ladm calibrate --model org/model --rows rows --lists lists --package-key meta.site -o profile.yaml",
        "ladm calibrate --model org/model --rows rows --search layers --objective cost -o profile.yaml",
    ),
)
def calibrate(settings: CalibrateSettings) -> None:
    """Find the score of a model that separates coherent documents from every kind of bad row, and write a profile.

    Compares the documents of --rows with bad rows made from them (pasted from 2, 4, 8 or 16 documents or from 4 of one
    package, shuffled, repeated, made into lists) and with real --lists; the worst kind counts. The score is chosen on
    half of the packages and judged on the other half. The same command resumes a stopped calibration. A --config file
    of ladm score works here too.
    """
    configure_libraries()
    if settings.dry_run:
        from ladm.calibration.calibrate import estimate

        print_estimate(estimate(settings, echo=note))
        output = [] if settings.output else ["-o", "profile.yaml"]
        next_step("ladm", "calibrate", *words_without("--dry-run"), *output)
        return
    from ladm.calibration.calibrate import calibrate as run_calibrate

    result = run_calibrate(settings, echo=note, progress=scoring_bar())
    lines = [*calibration_report(result), f"profile: {settings.output}"]
    print_result(lines, lambda: {"profile": settings.output, **result.summary()})
    next_step("ladm", "score", "ROWS", "--model", settings.model, "--profile", settings.output, "-o", "run")


@settings_command(
    CheckSettings,
    short_help="Is a model fit to be a calculator?",
    examples=("ladm check --model org/model", "ladm check --model org/model --rows rows -o check"),
)
def check(settings: CheckSettings) -> None:
    """Is a model fit to be a calculator? Compares its scores of intact documents and of bad rows made from them.

    Prints figure 2 of the paper, the attention sinks of each layer, whether two spans rank the documents alike, the AUC
    of each score and of two counts that need no model by kind of bad row, and a verdict.
    """
    configure_libraries()
    if settings.dry_run:
        from ladm.calibration.check import estimate

        print_estimate(estimate(settings, echo=note, preparing=preparing_bar()))
        next_step("ladm", "check", *words_without("--dry-run"))
        return
    from ladm.calibration.check import check as run_check

    result, picture = run_check(settings, echo=note, new_progress=scoring_bar, preparing=preparing_bar())
    lines = [*check_report(result), f"picture: {picture}"]
    print_result(lines, lambda: result.to_json() | {"picture": picture})
    rows = settings.rows or "ROWS"
    # Without the key of its packages a calibration would hold out domains.
    keys = {"--lists": settings.lists, "--domain-key": settings.domain_key, "--package-key": settings.package_key}
    given = [word for flag, value in keys.items() if value not in (None, DOMAIN_KEY) for word in (flag, value)]
    next_step("ladm", "calibrate", "--model", settings.model, "--rows", rows, *given, "-o", "profile.yaml")
