"""The commands that judge a model as a calculator: calibrate, check."""

from __future__ import annotations

from ladm.cli.display import calibration_report, check_report
from ladm.cli.options import settings_command
from ladm.cli.terminal import next_step, note, preparing_bar, print_result, quieten_libraries, scoring_bar
from ladm.settings.calibration import CalibrateSettings, CheckSettings


@settings_command(
    CalibrateSettings,
    short_help="Find the layers worth scoring with",
    examples=(
        "ladm calibrate --model org/model --rows rows -o profile.yaml",
        "ladm calibrate --model org/model --rows rows --objective cost --max-cost 0.5 -o profile.yaml",
    ),
)
def calibrate(settings: CalibrateSettings) -> None:
    """Find the layers of a model that separate coherent documents from pasted ones, and write them to a profile.

    The documents of --rows are compared with the same tokens pasted together from 2, 4, 8 and 16 of them. Layers are
    chosen on one half of the documents and judged on the other. The same command resumes a stopped calibration. A
    --config file of ladm score serves here too.
    """
    quieten_libraries()
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
    """Is a model fit to be a calculator? Its attention to intact documents against the same ones pasted together.

    Prints figure 2 of the paper for it, the AUC of the mean, the median and the best profile, and a verdict.
    """
    quieten_libraries()
    from ladm.calibration.check import check as run_check

    result, picture = run_check(settings, echo=note, progress=scoring_bar(), preparing=preparing_bar())
    lines = [*check_report(result), f"picture: {picture}"]
    print_result(lines, lambda: result.to_json() | {"picture": picture})
    next_step("ladm", "calibrate", "--model", settings.model, "--rows", settings.rows or "ROWS", "-o", "profile.yaml")
