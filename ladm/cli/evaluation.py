"""The commands that evaluate a trained model: evaluate perplexity, needle, tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from ladm.cli.options import CommandGroup, settings_command, write_epilog
from ladm.cli.terminal import configure_libraries, note, preparing_bar, print_result, scoring_bar
from ladm.errors import count_of
from ladm.settings.evaluation import NeedleSettings, PerplexitySettings, TasksSettings


class _Evaluations(CommandGroup):
    """Shows an example at the end of its help, as every command does."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        write_epilog(formatter, ("ladm evaluate perplexity --model model --rows proof-pile",))


@click.group(cls=_Evaluations, short_help="Perplexity, needles in a haystack, tasks")
def evaluate() -> None:
    """Measure how well a model uses a long context: perplexity by window, needles in a haystack, tasks."""


@settings_command(
    PerplexitySettings,
    short_help="Perplexity by window, loss by position",
    examples=(
        "ladm evaluate perplexity --model model --rows proof-pile",
        "ladm evaluate perplexity --model model --rows rows --windows 2048,8192 -o perplexity.json",
    ),
)
def perplexity(settings: PerplexitySettings) -> None:
    """Measure the perplexity of the first N tokens of long rows, for several N, and the loss by position."""
    configure_libraries()
    from ladm.evaluation.perplexity import perplexity as run

    found = run(settings, echo=note, progress=scoring_bar("measuring"), preparing=preparing_bar())
    print_result(_windows(found), lambda: found)


def _windows(found: dict[str, Any]) -> Iterator[str]:
    measured = count_of(found["documents"], "document")
    if "windows_of_documents" in found:
        measured = f"{found['windows_of_documents']:,} windows of {measured}"
    yield f"{'window':>8} {'perplexity':>11}  95 % interval; {measured}"
    for window, value in found["windows"].items():
        # One document has no spread to make an interval of.
        interval = "-" if value["low"] is None else f"{value['low']:.4f} to {value['high']:.4f}"
        yield f"{int(window):>8,} {value['perplexity']:>11.4f}  {interval}"
    yield f"\n{'positions':>17} {'loss':>8}"
    for part in found["loss_by_position"]:
        yield f"{part['from']:>8,}-{part['to']:<8,} {part['loss']:>8.4f}"
    if "ladder" in found:
        yield from _ladder(found["ladder"])


def _ladder(ladder: dict[str, Any]) -> Iterator[str]:
    yield f"\n{'context':>8} {'loss':>8} {'gain':>8}  95 % interval; the same last {ladder['tokens']:,} tokens"
    for step in ladder["steps"]:
        interval = "-" if step["gain_low"] is None else f"{step['gain_low']:.4f} to {step['gain_high']:.4f}"
        yield f"{step['context']:>8,} {step['loss']:>8.4f} {step['gain']:>8.4f}  {interval}"


@settings_command(
    NeedleSettings,
    short_help="Needles in a haystack",
    examples=(
        "ladm evaluate needle --model model --rows proof-pile -o needle.json",
        "ladm evaluate needle --model model --rows rows --lengths 4096,8192 --depths 3 -o needle.json",
    ),
)
def needle(settings: NeedleSettings) -> None:
    """Can the model repeat a number hidden at some depth of a long text? Exact match, and a heat map."""
    configure_libraries()
    from ladm.evaluation.needle import needle as run

    found = run(settings, echo=note, progress=scoring_bar("asking"), preparing=preparing_bar())
    lines = ["  depth " + "".join(f"{length:>9,}" for length in found["lengths"])]
    for k, depth in enumerate(found["depths"]):
        lines.append(f"{depth:>7.0%} " + "".join(f"{row[k]:>9.2f}" for row in found["exact_match"]))
    print_result([*lines, f"mean {found['mean']:.3f}; {settings.output}"], lambda: found)


@settings_command(
    TasksSettings,
    short_help="LongBench, RULER and short tasks",
    examples=(
        "ladm evaluate tasks --model model",
        "ladm evaluate tasks --model model --task ruler --length 32768 --limit 50 -o ruler.json",
    ),
)
def tasks(settings: TasksSettings) -> None:
    """Run LongBench, RULER, and short tasks that should not get worse, with lm-eval; print one table."""
    configure_libraries()
    from ladm.evaluation.tasks import tasks as run

    found = run(settings, echo=note)
    print_result(_marks(found), lambda: found)


for command in (perplexity, needle, tasks):
    evaluate.add_command(command)


def _marks(found: dict[str, Any]) -> Iterator[str]:
    width = max([4, *(len(mark["task"]) for mark in found["marks"])])
    yield f"{'task':<{width}} {'metric':<16} {'value':>8} {'error':>8}"
    for mark in found["marks"]:
        error = "" if mark["error"] is None else f"{mark['error']:.4f}"
        yield f"{mark['task']:<{width}} {mark['metric']:<16} {mark['value']:>8.4f} {error:>8}"
