"""The pool of the experiment: windows of long documents, some of them replaced by what has no long-range structure."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from outcomes import KINDS

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from earlier_contrast import DEGRADED_EVERY, contrast_set


def read_documents(path: str) -> list[dict[str, Any]]:
    content = Path(path).read_bytes()
    lines = (gzip.decompress(content) if path.endswith(".gz") else content).splitlines()
    found = [json.loads(line) for line in lines]
    return [document for document in found if document["meta"].get("kind", "document") == "document"]


def windows(documents: list[dict[str, Any]], tokenizer: Any, *, tokens: int, most: int) -> list[dict[str, Any]]:
    """Up to `most` windows of each document, each of `tokens` ids; `characters` is the whole document's length."""
    rows = []
    for number, document in enumerate(documents):
        ids = tokenizer(document["text"], add_special_tokens=False, verbose=False)["input_ids"]
        for k in range(min(most, len(ids) // tokens)):
            meta = {"document": number, "characters": len(document["text"]), "kind": "intact"}
            meta |= {"pile_set_name": document["meta"]["pile_set_name"]}
            rows.append({"ids": np.array(ids[k * tokens : (k + 1) * tokens]), "meta": meta})
    return rows


def plant(rows: list[dict[str, Any]], *, share: float, span_tokens: int, seed: int) -> list[dict[str, Any]]:
    """Replace a share of the rows by bad ones, equally many of each kind, spread over all documents.

    A shuffled, repeated or list row is made from the row that it replaces, and a pasted one begins with it,
    so that no kind is tied to a domain. The later pieces of a pasted row may be in the pool intact as well.
    """
    draw = np.random.default_rng(seed)
    replaced = draw.permutation(len(rows))[: round(share * len(rows))]
    kind_of = {int(position): KINDS[k % len(KINDS)] for k, position in enumerate(replaced)}
    # In this order every replaced row is one of those, a fourth of all, that are also degraded.
    order = [*kind_of, *(k for k in range(len(rows)) if k not in kind_of)]
    pool = list(rows)
    for start in range(DEGRADED_EVERY):
        turned = order[start:] + order[:start]
        made = contrast_set(
            [rows[k]["ids"] for k in turned], np.zeros(len(rows), int), span_tokens=span_tokens, seed=seed + start
        )
        for row in made:
            position = turned[row.document]
            if kind_of.get(position) == row.kind:
                pool[position] = {"ids": row.ids, "meta": rows[position]["meta"] | {"kind": row.kind}}
                del kind_of[position]
    assert not kind_of
    return pool


def save(rows: list[dict[str, Any]], folder: Path) -> None:
    from datasets import Dataset

    if folder.exists():
        return
    partial = folder.with_name(f"{folder.name}.partial")
    Dataset.from_dict(
        {
            "input_ids": [row["ids"] for row in rows],
            "index": list(range(len(rows))),
            "meta": [row["meta"] for row in rows],
        }
    ).save_to_disk(str(partial))
    partial.rename(folder)
