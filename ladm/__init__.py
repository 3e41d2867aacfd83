"""Pick the long documents worth training a long-context model on, by how much they depend on distant parts.

`prepare`, `score`, `select`, `run`, `check` and `calibrate` do what the commands of these names do; `estimate`,
`estimate_run`, `estimate_check` and `estimate_calibration` return what they would take; `open_run` reads what `score`
wrote, and its result has methods for the commands that take a run; `verify` looks for damage in what any of them wrote;
`Scorer` scores token ids in memory. See docs/python.md.
"""

# No module of the standard library is imported here: `python -m ladm` runs this file while the working folder is still
# first on the path, and would run a `typing.py` in it.
from ladm.version import __version__

TYPE_CHECKING = False  # Type checkers take it for true.
if TYPE_CHECKING:
    from ladm.api.calibration import calibrate, check
    from ladm.api.estimates import estimate, estimate_calibration, estimate_check, estimate_run
    from ladm.api.memory import RowScore, Scorer
    from ladm.api.pipeline import open_run, prepare, run, score, select, verify
    from ladm.api.results import Calibration, FinishedJob, ModelCheck
    from ladm.api.scored_run import ScoredRun
    from ladm.api.subset import Subset
    from ladm.comparison.result import Comparison
    from ladm.comparison.top import TopDocument
    from ladm.corpus.preparation.prepared_rows import PreparedRows
    from ladm.errors import LadmError, LadmWarning
    from ladm.pipeline.forecast_result import Forecast
    from ladm.runs.status import Status
    from ladm.runs.verify import Problem
    from ladm.scoring.dry_run import DryRun

# Imported at their first use: torch, transformers and datasets take seconds, and `import ladm` has to be free.
_HOMES = {
    "Calibration": "ladm.api.results",
    "Comparison": "ladm.comparison.result",
    "DryRun": "ladm.scoring.dry_run",
    "FinishedJob": "ladm.api.results",
    "Forecast": "ladm.pipeline.forecast_result",
    "LadmError": "ladm.errors",
    "LadmWarning": "ladm.errors",
    "ModelCheck": "ladm.api.results",
    "PreparedRows": "ladm.corpus.preparation.prepared_rows",
    "Problem": "ladm.runs.verify",
    "RowScore": "ladm.api.memory",
    "ScoredRun": "ladm.api.scored_run",
    "Scorer": "ladm.api.memory",
    "Status": "ladm.runs.status",
    "Subset": "ladm.api.subset",
    "TopDocument": "ladm.comparison.top",
    "calibrate": "ladm.api.calibration",
    "check": "ladm.api.calibration",
    "estimate": "ladm.api.estimates",
    "estimate_calibration": "ladm.api.estimates",
    "estimate_check": "ladm.api.estimates",
    "estimate_run": "ladm.api.estimates",
    "open_run": "ladm.api.pipeline",
    "prepare": "ladm.api.pipeline",
    "run": "ladm.api.pipeline",
    "score": "ladm.api.pipeline",
    "select": "ladm.api.pipeline",
    "verify": "ladm.api.pipeline",
}

__all__ = [
    "Calibration",
    "Comparison",
    "DryRun",
    "FinishedJob",
    "Forecast",
    "LadmError",
    "LadmWarning",
    "ModelCheck",
    "PreparedRows",
    "Problem",
    "RowScore",
    "ScoredRun",
    "Scorer",
    "Status",
    "Subset",
    "TopDocument",
    "__version__",
    "calibrate",
    "check",
    "estimate",
    "estimate_calibration",
    "estimate_check",
    "estimate_run",
    "open_run",
    "prepare",
    "run",
    "score",
    "select",
    "verify",
]


# Hidden from type checkers, to which a module with `__getattr__` has every name, misspelt ones too.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        import importlib

        if name not in _HOMES:
            raise AttributeError(f"module 'ladm' has no attribute {name!r}")
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
