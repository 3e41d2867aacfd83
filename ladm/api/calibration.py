"""`ladm.check` and `ladm.calibrate`: is a model fit to be a calculator, and with which score? Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ladm.api.keywords import AnyPath, parse_keywords, spell_config, spell_path
from ladm.api.quiet import echo_to, quiet_libraries
from ladm.api.results import Calibration, ModelCheck
from ladm.api.scored_run import ScoredRun

if TYPE_CHECKING:
    from typing import Unpack

    from ladm.api.flags import CalibrateFlags, CheckFlags


def check(
    model: AnyPath,
    rows: AnyPath | None = None,
    *,
    output: AnyPath | None = None,
    config: AnyPath | None = None,
    progress: bool = False,
    **settings: Unpack[CheckFlags],
) -> ModelCheck:
    """Is a model fit to be a calculator? Compares its scores of intact documents and of bad rows, as `ladm check` does.

    `rows`: coherent long documents; None: the documents that come with ladm. `output`: a folder, by default
    `check-MODEL` in the working folder; the same call resumes. `settings`: the flags of the command; `config`: its YAML
    file. Processes are spawned as by `score`. Few documents or packages are LadmWarnings.
    Raises LadmError for rows, a model or settings that cannot be used, and for too few documents.
    """
    from ladm.settings.calibration import CheckSettings
    from ladm.settings.config_file import load_settings

    given = parse_keywords(CheckSettings, "ladm.check", settings, without=("dry_run",))
    places = {"rows": rows, "output": output}
    given |= {name: spell_path(place, name) for name, place in places.items() if place is not None}
    given["model"] = spell_path(model, "model")
    wanted = load_settings(CheckSettings, spell_config(config), given)
    with quiet_libraries():
        from ladm.calibration.check import check as run_check
        from ladm.calibration.work_folder import RUN
        from ladm.progress import NoProgress
        from ladm.progress_bars import PreparingBar, ScoringBar

        result, picture = run_check(
            wanted, echo=echo_to(progress=progress), new_progress=ScoringBar if progress else NoProgress,
            preparing=PreparingBar(is_shown=progress),
        )  # fmt: skip
    return ModelCheck(folder=picture.parent, picture=picture, run=ScoredRun(picture.parent / RUN), result=result)


def calibrate(
    model: AnyPath,
    rows: AnyPath,
    output: AnyPath,
    *,
    config: AnyPath | None = None,
    progress: bool = False,
    **settings: Unpack[CalibrateFlags],
) -> Calibration:
    """Find the score of a model that separates documents from bad rows best, and write a profile, as `ladm calibrate`.

    `rows`: coherent long documents, 32 or more; `output`: the file of the profile. The same call resumes, and leaves
    its own profile as it is. `settings`: the flags of the command; `config`: its YAML file. Processes are spawned as by
    `score`. Few documents or packages are LadmWarnings.
    Raises LadmError for rows, a model or settings that cannot be used, for too few documents, and where `output` is
    another profile.
    """
    from ladm.settings.calibration import CalibrateSettings
    from ladm.settings.config_file import load_settings

    given = parse_keywords(CalibrateSettings, "ladm.calibrate", settings, without=("dry_run",))
    given |= {
        "model": spell_path(model, "model"),
        "rows": spell_path(rows, "rows"),
        "output": spell_path(output, "output"),
    }
    wanted = load_settings(CalibrateSettings, spell_config(config), given)
    with quiet_libraries():
        from ladm.calibration.calibrate import calibrate as run_calibrate
        from ladm.calibration.calibrate import work_folder
        from ladm.calibration.work_folder import RUN
        from ladm.progress import NoProgress
        from ladm.progress_bars import ScoringBar

        bar = ScoringBar() if progress else NoProgress()
        result = run_calibrate(wanted, echo=echo_to(progress=progress), progress=bar)
        run = ScoredRun(work_folder(wanted) / RUN)
    return Calibration(profile=Path(wanted.output), run=run, result=result)
