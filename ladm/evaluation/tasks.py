"""A model -> its marks in LongBench, RULER and short tasks, by lm-eval, in one table. Tables 4 and 10 of the paper."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ladm.errors import DEVICE_REMEDY, LadmError, install_hint, one_line, raise_if_out_of_memory
from ladm.modeling.devices import resolve_devices, resolve_dtype
from ladm.modeling.facts import read_config
from ladm.modeling.model_files import model_folder
from ladm.progress import Echo
from ladm.settings.evaluation import TasksSettings
from ladm.storage.files import require_place, write_whole

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
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        raise LadmError(f"ladm evaluate tasks needs lm-eval ({error}); {install_hint('eval')}") from None
    folder = model_folder(settings.model)
    device = resolve_devices(settings.device)[0]
    wanted = shots_of(settings.tasks)
    known = TaskManager(include_path=settings.include_path)
    unknown = [name for name in wanted if not known.match_tasks([name])]
    if unknown:
        raise LadmError(f"lm-eval has no task {unknown[0]}; the suites of ladm are {', '.join(SUITES)}")
    lengths = ruler_lengths(settings, folder)
    if any(map(is_of_ruler, wanted)):
        require_no_code(settings.model, folder)
        if not lengths:
            raise LadmError(
                f"the shortest RULER tasks have {RULER_LENGTHS[0]:,} tokens, but --length or {settings.model} allows "
                "fewer"
            )
    require_place(settings.output, mark='"marks"')
    marks: list[dict[str, Any]] = []
    # lm-eval applies --limit to the questions of all lengths together; one length at a time, it applies to each.
    steps = [
        (name, shots, length) for name, shots in wanted.items() for length in (lengths if is_of_ruler(name) else [None])
    ]
    for name, shots, length in steps:
        details = "".join(
            f", {count} {what}" for count, what in ((shots, "examples"), (length, "tokens")) if count is not None
        )
        echo(f"task      {name}{details}")
        metadata = {"pretrained": str(folder), "max_seq_lengths": [length]}
        manager = known if length is None else TaskManager(include_path=settings.include_path, metadata=metadata)
        kept = f"; {len(marks)} earlier results are in {settings.output}" if settings.output and marks else ""
        found = _evaluate(settings, name, shots, folder=folder, device=device, manager=manager, kept=kept)
        new = list(marks_of(found, shots, length))
        marks += new if name != "ruler" else with_mean(new)
        record = {
            "model": settings.model, "tasks": list(settings.tasks), "limit": settings.limit, "marks": marks,
            "finished": (name, length) == (steps[-1][0], steps[-1][2]),
        }  # fmt: skip
        if settings.output is not None:
            write_whole(Path(settings.output), [json.dumps(record, indent=1).encode() + b"\n"])
    return record


def _evaluate(
    settings: TasksSettings, name: str, shots: int | None, *, folder: Path, device: str, manager: Any, kept: str
) -> dict[str, Any]:
    """lm-eval's result for one task. Raises LadmError for whatever fails there, with `kept` at the end."""
    import lm_eval

    try:
        found: dict[str, Any] = lm_eval.simple_evaluate(
            model="hf",
            model_args=model_arguments(settings, folder, device),
            tasks=[name],
            num_fewshot=shots,
            batch_size=_batch_size(settings, device),
            device=device,
            limit=settings.limit,
            task_manager=manager,
            log_samples=False,
        )
        return found
    except Exception as error:
        remedy = f"give a smaller --batch-size, or {DEVICE_REMEDY}"
        raise_if_out_of_memory(error, action=f"run {name} of lm-eval", device_remedy=remedy)
        # lm-eval, its tasks and what they download raise errors of many kinds.
        raise LadmError(f"lm-eval failed in {name}: {one_line(error)}{kept}") from None


def _batch_size(settings: TasksSettings, device: str) -> int | str:
    """lm-eval's batch size; on a CPU its `auto` tries larger and larger batches until the system kills it."""
    return 1 if settings.batch_size == "auto" and device == "cpu" else settings.batch_size


def with_mean(marks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """RULER's tasks and their mean; lm-eval has a mean at 4,096 tokens only."""
    each = [mark for mark in marks if mark["task"] != "ruler"]
    if not each:
        return marks
    mean = sum(mark["value"] for mark in each) / len(each)
    return [*each, each[0] | {"task": "ruler", "filter": "none", "value": mean, "error": None}]


def is_of_ruler(task: str) -> bool:
    """Is it RULER, or one of its tasks, whose texts are made to a length?"""
    return task.startswith(("ruler", "niah_"))


def require_no_code(model: str, folder: Path) -> None:
    """Raise LadmError for a model whose files name code: lm-eval's RULER would run that of the tokenizer.

    And for a file that is no JSON.
    """
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        try:
            names_code = path.exists() and "auto_map" in json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, TypeError, RecursionError) as error:
            raise LadmError(f"{model}: {name} is damaged: {one_line(error)}; download the model again") from None
        if names_code:
            raise LadmError(
                f"{model}: {name} names code (auto_map), which lm-eval's RULER would run; remove that entry first"
            )


def ruler_lengths(settings: TasksSettings, folder: Path) -> list[int]:
    """Those of RULER's lengths that the model, or --length, allows."""
    config = read_config(settings.model or str(folder), folder).get_text_config()
    most = settings.length or getattr(config, "max_position_embeddings", None) or RULER_LENGTHS[-1]
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


def marks_of(found: dict[str, Any], shots: int | None, length: int | None) -> Iterator[dict[str, Any]]:
    """Every metric of every task in lm-eval's answer; of RULER, whose metrics are lengths, that of this one."""
    for task, metrics in found["results"].items():
        for name, value in metrics.items():
            metric, _, kind = name.partition(",")
            of_length = length is None or metric == str(length)
            if kind and of_length and isinstance(value, (int, float)) and not metric.endswith("_stderr"):
                error = metrics.get(f"{metric}_stderr,{kind}")
                yield {
                    "task": task, "metric": metric, "filter": kind, "value": value,
                    # NaN of a single question; JSON has no word for it.
                    "error": error if isinstance(error, (int, float)) and math.isfinite(error) else None,
                    "examples": shots,
                }  # fmt: skip
