"""The numbers of report.py -> a page of tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def page(found: dict[str, Any]) -> str:
    lines = ["# What each score separates", "", f"Made by `{found['command']}`.", ""]
    lines += ["AUC of intact documents over each kind; half 1, whose packages calibration never saw.", ""]
    for model, of_model in found.items():
        if isinstance(of_model, dict):
            lines += [f"## {model}", "", *_model(of_model)]
    return "\n".join(lines) + "\n"


def _model(found: dict[str, Any]) -> Iterator[str]:
    for part, table in found["auc"].items():
        rows = table["rows"]
        scores = {name: row for name, row in table.items() if name != "rows"}
        layers = found["layers_after_sinks"][part]
        yield f"### {_title(part)}"
        yield ""
        yield f"Layers after the last sink layer: {layers[0]}-{layers[-1]}."
        yield ""
        kinds = [kind for kind in rows if kind != "intact"]
        heads = [f"{kind} ({rows[kind]})" for kind in kinds]
        yield from _table(["score", *heads, "worst kind"], ([name, *row.values()] for name, row in scores.items()))
        for half, pairs in found["pairs"][part].items():
            yield f"#### Differences in AUC on the same rows, {half}"
            yield ""
            columns = list(next(iter(pairs.values())))
            yield from _table(["scores", *columns], ([name, *row.values()] for name, row in pairs.items()))
    for part, row in found["spearman"].items():
        yield f"### Rank correlation of the intact documents between the two spans: {_title(part)}"
        yield ""
        yield from _table(["score", "Spearman"], ([name, value] for name, value in row.items()))
    for guards, table in found["guarded"].items():
        yield f"### Share taken by the best quarter, guards: {guards}"
        yield ""
        kinds = list(next(iter(table.values())))
        yield from _table(["score", *kinds], ([name, *row.values()] for name, row in table.items()))


def _title(part: str) -> str:
    length, _, more = part.partition("-")
    variant = {"paper": ", the paper's variant", "prolong": ", rows that ProLong has scored"}.get(more, "")
    span = more if more.isdigit() else str(int(length) // 256)
    return f"{int(length):,} tokens, spans of {span}{variant}"


def _table(heads: list[str], rows: Iterator[list[Any]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for name, *values in rows:
        yield f"| {name} | " + " | ".join(map(_number, values)) + " |"
    yield ""


def _number(value: list[float]) -> str:
    middle, low, high = (f"{each:.2f}" for each in value)
    # A dash between negative numbers would be read as a sign.
    return f"{middle} ({low} to {high})" if min(value) < 0 else f"{middle} ({low}-{high})"
