"""The command `ladm score`, and the summary that it shares with `ladm rescore`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ladm.cli.options import settings_command
from ladm.cli.terminal import configure_libraries, next_step, note, print_result, scoring_bar, words_without
from ladm.errors import LadmError, count_of
from ladm.settings.fields import flag
from ladm.settings.guards import POOL
from ladm.settings.score import ScoreSettings
from ladm.settings.signals import COLUMNS_OF, TEXT

if TYPE_CHECKING:
    from ladm.runs.folder import Run
    from ladm.scoring.dry_run import DryRun
    from ladm.scoring.result import AddedSignal


OF_THE_MODEL = ("attention", "backend", "batch_size", "device", "dtype", "fused")
"""Settings that change how the model runs, and nothing else."""


def _load(kind: type, config: str | None, flags: dict[str, Any]) -> ScoreSettings:  # noqa: ARG001
    # Imported here, because YAML and the profiles' numpy are not needed to show help.
    from ladm.settings.config_file import score_settings

    return score_settings(config, flags)


@settings_command(
    ScoreSettings,
    short_help="Rows and a model to scores",
    examples=(
        "ladm score rows --model org/model -o run",
        "ladm score rows --config configs/paper.yaml -o run --limit 100",
        "ladm score rows --profile profile.yaml --model org/model -o run --device cuda:0,1",
    ),
    loader=_load,
)
def score(settings: ScoreSettings) -> None:
    """Score ROWS, a data set of token ids: a folder written by ladm prepare or save_to_disk, or a Hub id.

    Writes RUN/sorted_by_score.jsonl, best first, RUN/scores.parquet and RUN/errors.jsonl.
    """
    configure_libraries()
    _note_flags_without_effect(settings)
    if settings.dry_run:
        from ladm.scoring.dry_run import dry_run

        print_estimate(dry_run(settings, echo=note))
        # As typed, because another span or device would make the estimate one of something else.
        next_step("ladm", "score", *words_without("--dry-run"), *([] if settings.output else ["-o", "run"]))
        return
    from ladm.scoring.score import score as run_score

    start = time.monotonic()
    result = run_score(settings, echo=note, progress=scoring_bar())
    head = "already finished" if result.already_finished else f"finished in {time.monotonic() - start:.1f} s"
    print_summary(head, result.summary, result.run, added=result.added)
    # All columns at once would be a table of every pair; the first of each signal is enough to begin with.
    columns = [signal.columns[0] for signal in result.added if signal.columns]
    if columns:
        next_step("ladm", "compare", settings.output, "--columns", ",".join(["score", *columns]))
    propose_selection(result.run)


def _note_flags_without_effect(settings: ScoreSettings) -> None:
    """Name the flags that were typed and only the model would use, where none runs. Scripts give them all the same."""
    from ladm.scoring.signal_choice import choose_signals

    source = click.get_current_context().get_parameter_source
    names = [name for name in OF_THE_MODEL if source(name) == ParameterSource.COMMANDLINE]
    # The devices of a cluster are those of its actors.
    if not names or settings.engine != "local":
        return
    # Signals that are refused are refused by the work itself.
    with contextlib.suppress(LadmError):
        if not choose_signals(settings).runs_model:
            note(f"note      without effect, because no model runs: {', '.join(map(flag, names))}")


def print_estimate(found: DryRun) -> None:
    """What scoring would take."""
    from ladm.scoring.dry_run import describe

    print_result(describe(found), lambda: asdict(found) | {"hours": found.hours})


def print_summary(head: str, summary: Any, run: Run, *, added: Sequence[AddedSignal] = ()) -> None:
    """Print how many rows have a score, the best and worst, and the columns of added signals.

    Raises LadmError where no document has a score.
    """
    from ladm.runs.columns.by_name import SCORE, score_name
    from ladm.runs.results import require_scored

    output, name = str(run.folder), score_name(run)
    what = SCORE if name == SCORE else f"{SCORE} ({name})"
    print_result(_lines(head, summary, output, added, what=what), lambda: _content(summary, output, added))
    require_scored(summary, output)


def _lines(head: str, summary: Any, output: str, added: Sequence[AddedSignal], *, what: str) -> Iterator[str]:
    yield f"{head}: {count_of(summary.scored, 'row')} scored, {summary.failed:,} without a score"
    for kind, count in sorted(summary.errors.items()):
        yield f"  {kind}: {count:,}"
    if summary.scores is not None:
        best, middle, worst = summary.scores
        yield f"{what}: best {best:.6g}, median {middle:.6g}, worst {worst:.6g}"
        yield f"results: {output}/sorted_by_score.jsonl"
    for signal in added:
        without = f", {signal.failed:,} without" if signal.failed else ""
        rows = f"{count_of(signal.rows, 'row')}{without}"
        yield f"{signal.name}: {', '.join(signal.columns)} of {rows}, in {signal.folder}"


def _content(summary: Any, output: str, added: Sequence[AddedSignal]) -> dict[str, Any]:
    best, middle, worst = summary.scores or (None, None, None)
    return {
        "run": output, "scored": summary.scored, "errors": dict(summary.errors), "best": best, "middle": middle,
        "worst": worst, "added": [asdict(signal) for signal in added],
    }  # fmt: skip


def propose_selection(run: Run) -> None:
    """Print the command that selects from a run, with guards where it needs some and has their columns."""
    from ladm.runs.columns.by_name import score_name
    from ladm.selection.ranking_warnings import is_robust, text_ranking

    flags: list[str] = []
    if is_robust(run) and TEXT in run.identity.signals:
        flags = ["--within", POOL]
    elif score_name(run) == COLUMNS_OF[TEXT][0]:
        flags = text_ranking()
    next_step("ladm", "select", run.folder, "--tokens", "N", *flags, "-o", "subset")
