"""A model -> its marks in LongBench, RULER and short tasks, by lm-eval, in one table. Tables 4 and 10 of the paper."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ladm.devices import resolve_devices, resolve_dtype
from ladm.errors import LadmError, one_line
from ladm.models import model_folder
from ladm.options import TasksSettings
from ladm.progress import Echo
from ladm.storage import require_place, write_whole

SUITES: dict[str, dict[str, int | None]] = {
    "short": {"arc_easy": 25, "arc_challenge": 25, "hellaswag": 10, "mmlu": 5, "truthfulqa_mc2": 0},
    "longbench": {"longbench": None},
    "ruler": {"ruler": None},
}
"""Tasks of lm-eval and how many examples each is shown; None: what the task itself says."""
RULER_LENGTHS = (4096, 8192, 16384, 32768)


def tasks(settings: TasksSettings, *, echo: Echo) -> dict[str, Any]:
    """Have lm-eval run every task, and write `settings.output` where one is wanted; returns what is written.

    Raises LadmError where lm-eval is not installed, knows no such task, or fails.
    """
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        raise LadmError(f"ladm evaluate tasks needs lm-eval ({error}); pip install 'ladm[eval]'") from None
    folder = model_folder(settings.model)
    device = resolve_devices(settings.device)[0]
    lengths = ruler_lengths(settings, folder)
    metadata = {"pretrained": str(folder), "max_seq_lengths": lengths}
    manager = TaskManager(include_path=settings.include_path, metadata=metadata)
    wanted = shots_of(settings.tasks)
    unknown = [name for name in wanted if not manager.match_tasks([name])]
    if unknown:
        raise LadmError(f"lm-eval knows no task {unknown[0]}; suites of ladm are {', '.join(SUITES)}")
    if "ruler" in wanted and not lengths:
        raise LadmError(f"RULER begins at {RULER_LENGTHS[0]:,} tokens, and {settings.model} is asked for fewer")
    require_place(settings.output)
    marks: list[dict[str, Any]] = []
    for name, shots in wanted.items():
        echo(f"task      {name}" + ("" if shots is None else f", {shots} examples"))
        try:
            found = lm_eval.simple_evaluate(
                model="hf",
                model_args=model_arguments(settings, folder, device),
                tasks=[name],
                num_fewshot=shots,
                batch_size=settings.batch_size,
                device=device,
                limit=settings.limit,
                task_manager=manager,
                log_samples=False,
            )
        except Exception as error:
            # lm-eval, its tasks and what they download raise kinds of their own.
            raise LadmError(f"lm-eval failed in {name}: {one_line(error)}") from None
        marks += marks_of(found, shots)
        record = {"model": settings.model, "tasks": list(settings.tasks), "limit": settings.limit, "marks": marks}
        if settings.output is not None:
            write_whole(Path(settings.output), [json.dumps(record, indent=1).encode() + b"\n"])
    return record


def ruler_lengths(settings: TasksSettings, folder: Path) -> list[int]:
    """Those of RULER's lengths that the model, or --length, allows."""
    config = json.loads((folder / "config.json").read_text())
    most = settings.length or config.get("max_position_embeddings") or RULER_LENGTHS[-1]
    return [length for length in RULER_LENGTHS if length <= most]


def shots_of(names: tuple[str, ...]) -> dict[str, int | None]:
    """Suites opened into their tasks; any other name is one of lm-eval's."""
    wanted: dict[str, int | None] = {}
    for name in names:
        wanted |= SUITES.get(name, {name: None})
    return wanted


def model_arguments(settings: TasksSettings, folder: Path, device: str) -> dict[str, Any]:
    """For lm-eval's `hf` model."""
    dtype = str(resolve_dtype(settings.dtype, device)).removeprefix("torch.")
    arguments: dict[str, Any] = {"pretrained": str(folder), "dtype": dtype, "trust_remote_code": False}
    return arguments if settings.length is None else arguments | {"max_length": settings.length}


def marks_of(found: dict[str, Any], shots: int | None) -> Iterator[dict[str, Any]]:
    """Every metric of every task and group in lm-eval's answer."""
    for task, metrics in found["results"].items():
        for name, value in metrics.items():
            metric, _, kind = name.partition(",")
            if kind and isinstance(value, (int, float)) and not metric.endswith("_stderr"):
                error = metrics.get(f"{metric}_stderr,{kind}")
                yield {
                    "task": task, "metric": metric, "filter": kind, "value": value,
                    "error": error if isinstance(error, (int, float)) else None, "examples": shots,
                }  # fmt: skip
