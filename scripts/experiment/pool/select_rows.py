"""Candidate rows -> the pool: no two rows share much, packages take turns; and the short rows cut out of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from pool.rows import SharedText, cut_rows, grams

Row = dict[str, Any]

POOL_ROWS = 1_080
HELD_OUT_ROWS = 128
FAULT_SHARE = 0.2
"""Fault rows for each row of the pool: a sixth of pool B."""

SHORT_TOKENS = 2_048
SHORT_POOL_ROWS = 400
SHORT_HELD_OUT_ROWS = 60


def long_rows(candidates: list[Row]) -> tuple[list[Row], float]:
    """Held-out, pool and fault rows that share little with one another, and the largest share that two of them have.

    In each split packages (for faults: kinds, then packages) take turns, so that a beginning of it is balanced too.
    """
    index = SharedText()
    splits: dict[str, list[Row]] = defaultdict(list)
    for row in candidates:
        splits[row["split"]].append(row)
    chosen = admit_rows(turns(splits["held_out"], "package"), index, most=HELD_OUT_ROWS)
    pool = admit_rows(turns(splits["pool"], "package"), index, most=POOL_ROWS)
    by_package = turns(splits["fault"], "package")
    faults = admit_rows(turns(by_package, "fault_kind"), index, most=round(FAULT_SHARE * len(pool)))
    return chosen + pool + faults, index.largest


def turns(rows: Iterable[Row], key: str) -> list[Row]:
    """The first row of every value of a column, then the second of each that has one, and so on."""
    queues: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        queues[row[key]].append(row)
    longest = max(map(len, queues.values()), default=0)
    return [queue[k] for k in range(longest) for queue in queues.values() if k < len(queue)]


def admit_rows(rows: list[Row], index: SharedText, *, most: int) -> list[Row]:
    found: list[Row] = []
    for row in rows:
        if len(found) == most:
            break
        if index.admit(grams(row["text"])):
            found.append(row)
    return found


def short_rows(rows: list[Row], tokenizer: Any) -> list[Row]:
    """Rows of 2,048 tokens out of the middle of long ones, one a document, packages in turn, under the same rule."""
    most = {
        "pool": SHORT_POOL_ROWS,
        "fault": round(FAULT_SHARE * SHORT_POOL_ROWS),
        "held_out": SHORT_HELD_OUT_ROWS,
    }
    found: list[Row] = []
    index = SharedText()
    documents: set[tuple[str, str, str]] = set()
    for row in rows:
        document = (row["package"], row["fault_kind"], row["document"])
        if document in documents or not most[row["split"]]:
            continue
        text = row["text"]
        start = text.find("\n", len(text) // 2) + 1
        for cut in cut_rows(text[start:], tokenizer, tokens=SHORT_TOKENS, most=1):
            if not index.admit(grams(cut.text)):
                continue
            documents.add(document)
            most[row["split"]] -= 1
            found.append(row | {"id": f"{row['id']}/2k", "text": cut.text, "input_ids": cut.ids})
    return found
