"""The commands that evaluate a trained model: evaluate perplexity, needle, tasks. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from ladm.cli.display import PreparingBar, ScoringBar
from ladm.cli.flags import EXIT_CODES, Whole, given, note, options_of, quieten_libraries
from ladm.settings.commands import NeedleSettings, PerplexitySettings, TasksSettings

_DTYPES = click.Choice(["auto", "float32", "bfloat16", "float16"])
_perplexity_option = options_of(PerplexitySettings())
_needle_option = options_of(NeedleSettings())
_tasks_option = options_of(TasksSettings())


@click.group(epilog=EXIT_CODES, short_help="Perplexity, needles in a haystack, tasks")
def evaluate() -> None:
    """How well a model uses a long context: perplexity by window, needles in a haystack, tasks."""


@evaluate.command(epilog=EXIT_CODES, short_help="Perplexity by window, loss by position")
@_perplexity_option("model", str, "Model folder or Hub id.", required=True)
@_perplexity_option("rows", str, "Long rows that it was not trained on, or proof-pile.", required=True)
@_perplexity_option("windows", Whole(), "Tokens of context, such as 2048,4096.  [default: 2048 to 32768, doubling]")
@_perplexity_option("documents", int, "At most so many rows.", metavar="N")
@_perplexity_option("output", str, "JSON file for the numbers.", metavar="FILE")
@_perplexity_option("device", str, "auto, cpu, cuda.")
@_perplexity_option("dtype", _DTYPES, "Precision of the model.")
def perplexity(**flags: Any) -> None:
    """Perplexity of the first tokens of long rows, by how many of them; and the loss by position."""
    settings = PerplexitySettings(**given(flags))
    quieten_libraries()
    from ladm.evaluation.perplexity import perplexity as run

    found = run(settings, echo=note, progress=ScoringBar("measuring"), preparing=PreparingBar())
    click.echo(f"{'window':>8} {'perplexity':>11}  95 % interval; {found['documents']} documents")
    for window, value in found["windows"].items():
        interval = "-" if value["low"] is None else f"{value['low']:.4f} to {value['high']:.4f}"
        click.echo(f"{int(window):>8,} {value['perplexity']:>11.4f}  {interval}")
    click.echo(f"\n{'positions':>17} {'loss':>8}")
    for part in found["loss_by_position"]:
        click.echo(f"{part['from']:>8,}-{part['to']:<8,} {part['loss']:>8.4f}")


@evaluate.command(epilog=EXIT_CODES, short_help="Needles in a haystack")
@_needle_option("model", str, "Model folder or Hub id, with its tokenizer.", required=True)
@_needle_option("rows", str, "Rows of the same tokenizer to hide needles in, or proof-pile.", required=True)
@_needle_option("output", str, "File for the numbers; the heat map goes beside it.", required=True, metavar="FILE.json")
@_needle_option("lengths", Whole(), "Tokens of context, such as 4096,8192.  [default: 4096 to 32768, doubling]")
@_needle_option("depths", int, "How many depths between the start and the end.", metavar="N")
@_needle_option("repeats", int, "Needles at each depth of each length.", metavar="N")
@_needle_option("seed", int, "Seed of every draw.  [default: 0]")
@_needle_option("device", str, "auto, cpu, cuda.")
@_needle_option("dtype", _DTYPES, "Precision of the model.")
def needle(**flags: Any) -> None:
    """Can the model repeat a number hidden at some depth of a long text? Exact match, and a heat map."""
    settings = NeedleSettings(**given(flags))
    quieten_libraries()
    from ladm.evaluation.needle import needle as run

    found = run(settings, echo=note, progress=ScoringBar("asking"), preparing=PreparingBar())
    click.echo("  depth " + "".join(f"{length:>9,}" for length in found["lengths"]))
    for k, depth in enumerate(found["depths"]):
        click.echo(f"{depth:>7.0%} " + "".join(f"{row[k]:>9.2f}" for row in found["exact_match"]))
    click.echo(f"mean {found['mean']:.3f}; {settings.output}")


@evaluate.command(epilog=EXIT_CODES, short_help="LongBench, RULER and short tasks")
@_tasks_option("model", str, "Model folder or Hub id, with its tokenizer.", required=True)
@_tasks_option(
    "tasks", str, "short, longbench, ruler, or a task of lm-eval; may be repeated.  [default: short]", flag="--task",
    multiple=True, metavar="TASK",
)  # fmt: skip
@_tasks_option("output", str, "JSON file for the marks.", metavar="FILE")
@_tasks_option("length", int, "Tokens of context at the most.  [default: the model's]")
@_tasks_option("limit", int, "Only the first N questions of a task.", metavar="N")
@_tasks_option("include_path", str, "Folder of more tasks, as lm-eval reads them.", metavar="FOLDER")
@_tasks_option("batch_size", int, "Questions at once.  [default: lm-eval's choice]")
@_tasks_option("device", str, "auto, cpu, cuda.")
@_tasks_option("dtype", _DTYPES, "Precision of the model.")
def tasks(**flags: Any) -> None:
    """LongBench, RULER, and the short tasks that should not suffer, run by lm-eval and gathered in one table."""
    settings = TasksSettings(**given(flags))
    quieten_libraries()
    from ladm.evaluation.tasks import tasks as run

    for line in _marks(run(settings, echo=note)):
        click.echo(line)


def _marks(found: dict[str, Any]) -> Iterator[str]:
    width = max([4, *(len(mark["task"]) for mark in found["marks"])])
    yield f"{'task':<{width}} {'metric':<16} {'value':>8} {'error':>8}"
    for mark in found["marks"]:
        error = "" if mark["error"] is None else f"{mark['error']:.4f}"
        yield f"{mark['task']:<{width}} {mark['metric']:<16} {mark['value']:>8.4f} {error:>8}"
