"""`ladm.estimate` and its like: what `score`, `run`, `check` and `calibrate` would take, and nothing is written.

The same arguments as those of the call that they are about, without those about its output. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ladm.api.ids import split_id_lists
from ladm.api.keywords import AnyPath, parse_keywords, spell_config, spell_path
from ladm.api.pipeline import settings_of_job, warn_about_a_bare_share
from ladm.api.quiet import echo_to, quiet_libraries

if TYPE_CHECKING:
    from typing import Unpack

    from ladm.api.flags import CheckFlags, EstimateCalibrationFlags, EstimateFlags, RunFlags
    from ladm.pipeline.forecast_result import Forecast
    from ladm.scoring.dry_run import DryRun


def estimate(
    rows: AnyPath,
    *,
    model: AnyPath,
    config: AnyPath | None = None,
    progress: bool = False,
    **settings: Unpack[EstimateFlags],
) -> DryRun:
    """What `score` would take for the rows: hours, memory, size of the results, from three rows; writes nothing.

    `settings` are those of `score` but `overwrite` and `retry_errors`. The model is loaded in this process, on one
    device. Raises LadmError for whatever `score` would refuse before it starts, and where no row can be scored.
    """
    from ladm.settings.config_file import score_settings
    from ladm.settings.score import ScoreSettings

    given = parse_keywords(ScoreSettings, "ladm.estimate", settings, without=("dry_run", "overwrite", "retry_errors"))
    given |= {"rows": spell_path(rows, "rows"), "model": spell_path(model, "model"), "dry_run": True}
    wanted = score_settings(spell_config(config), given)
    with quiet_libraries():
        from ladm.scoring.dry_run import dry_run

        return dry_run(wanted, echo=echo_to(progress=progress))


def estimate_run(
    sources: AnyPath | Sequence[AnyPath],
    *,
    model: AnyPath,
    output: AnyPath | None = None,
    tokens: int | str | None = None,
    config: AnyPath | None = None,
    progress: bool = False,
    **settings: Unpack[RunFlags],
) -> Forecast:
    """What `run` would take: documents, rows, tokens, hours and sizes, and whether they fill the budget.

    Some of the documents are read, rows are made of them in a temporary folder, and three are timed. The arguments are
    those of `run`; `output`: where a job was started, whose settings then hold. The model is loaded in this process, on
    one device. Raises LadmError for whatever `run` would refuse before it writes anything.
    """
    places = {"model": spell_path(model, "model")}
    places |= {} if output is None else {"output": spell_path(output, "output")}
    named, ids = split_id_lists(settings)
    given = {**named, "tokens": tokens}
    wanted = settings_of_job("ladm.estimate_run", sources, config, given, {**places, "dry_run": True})
    with quiet_libraries():
        from ladm.pipeline.forecast import forecast

        echo = echo_to(progress=progress)
        warn_about_a_bare_share(settings, wanted, echo)
        return forecast(wanted, echo=echo, ids_in_memory=ids)


def estimate_check(
    model: AnyPath,
    rows: AnyPath | None = None,
    *,
    config: AnyPath | None = None,
    progress: bool = False,
    **settings: Unpack[CheckFlags],
) -> DryRun:
    """What the scoring of `check` would take, from three of its rows; the bad rows are made in a temporary folder.

    `settings` are those of `check` but `output`. The model is loaded in this process, on one device. Raises LadmError
    for rows, a model or settings that `check` would refuse.
    """
    from ladm.settings.calibration import CheckSettings
    from ladm.settings.config_file import load_settings

    given = parse_keywords(CheckSettings, "ladm.estimate_check", settings, without=("output", "dry_run"))
    given |= {"model": spell_path(model, "model"), "dry_run": True}
    given |= {} if rows is None else {"rows": spell_path(rows, "rows")}
    wanted = load_settings(CheckSettings, spell_config(config), given)
    with quiet_libraries():
        from ladm.calibration.check import estimate as run_estimate
        from ladm.progress_bars import PreparingBar

        return run_estimate(wanted, echo=echo_to(progress=progress), preparing=PreparingBar(is_shown=progress))


def estimate_calibration(
    model: AnyPath,
    rows: AnyPath,
    *,
    config: AnyPath | None = None,
    progress: bool = False,
    **settings: Unpack[EstimateCalibrationFlags],
) -> DryRun:
    """What the scoring of `calibrate` would take, from three of its rows; the bad ones are made in a temporary folder.

    `settings` are those of `calibrate` but `output` and `work`. The model is loaded in this process, on one device.
    Raises LadmError for rows, a model or settings that `calibrate` would refuse.
    """
    from ladm.settings.calibration import CalibrateSettings
    from ladm.settings.config_file import load_settings

    refused = ("output", "work", "dry_run")
    given = parse_keywords(CalibrateSettings, "ladm.estimate_calibration", settings, without=refused)
    given |= {"model": spell_path(model, "model"), "rows": spell_path(rows, "rows"), "dry_run": True}
    wanted = load_settings(CalibrateSettings, spell_config(config), given)
    with quiet_libraries():
        from ladm.calibration.calibrate import estimate as run_estimate

        return run_estimate(wanted, echo=echo_to(progress=progress))
