"""Pool rows and a judge -> a small pack: ids, text statistics, and the class of every held-out token.

    python scripts/experiment/influence/prepare.py runs/experiment/pool-2k.parquet --judge runs/bench/gemma \
        --tokenizer runs/toy/model --output runs/experiment/influence

The judge is neither the model whose scores are tested nor the one whose gradients are taken. Classes of a held-out
token in the far half of its row:

    D  depends on distant context: the judge's loss with 1K of context minus that with all is above 1, and the loss
       with all is below 2; and it is not copyable
    C  copyable: the two tokens before it occurred earlier in the row, more than half of it back, with this successor
    S  the rest

The judge has a tokenizer of its own: a token gets the losses of the judge's token that its first character lies in.
Resumable: a held-out row that has its classes is not judged again.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow.parquet as pq
import torch

from ladm.signals.text_statistics import UnigramTable, text_statistics

SCORED_SHARE = 4
"""A short input of the judge scores its last quarter: at 1,024 tokens of context, those see 768 to 1,024."""
DEPENDENT_GAIN, DEPENDENT_LOSS = 1.0, 2.0
CLASSES = {"none": 0, "D": 1, "C": 2, "S": 3}


def main_rows(table: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.to_pylist()
    lengths = {len(row["input_ids"]) for row in rows}
    if len(lengths) != 1:
        sys.exit(f"rows of {sorted(lengths)} tokens; this needs rows of one length")
    return rows


def copyable(ids: np.ndarray, *, back: int) -> np.ndarray:
    """Did the trigram that ends at each token occur earlier, at least `back` tokens before?"""
    first: dict[tuple[int, int, int], int] = {}
    found = np.zeros(len(ids), dtype=bool)
    for t in range(2, len(ids)):
        trigram = (int(ids[t - 2]), int(ids[t - 1]), int(ids[t]))
        seen = first.setdefault(trigram, t)
        found[t] = t - seen >= back
    return found


def class_file(output: Path, row: dict[str, Any]) -> Path:
    """Where the classes of a held-out row are kept; its id may hold anything, so a digest of it names the file."""
    return output / "classes" / f"{hashlib.sha256(row['id'].encode()).hexdigest()[:16]}.npy"


class Judge:
    """A causal language model that says how much a token's loss falls with distant context."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    @torch.inference_mode()
    def _losses(self, ids: torch.Tensor, first: int) -> torch.Tensor:
        """Loss of tokens `first` .. of one input; only their logits are made."""
        hidden = self._model.base_model(input_ids=ids[None], use_cache=False).last_hidden_state[0]
        logits = self._model.get_output_embeddings()(hidden[first - 1 : -1]).float()
        return torch.nn.functional.cross_entropy(logits, ids[first:], reduction="none")

    def dependent(self, text: str, starts: np.ndarray, *, context: int) -> np.ndarray:
        """For the character at which each token of ours starts: does the judge need distant context there?"""
        encoded = self._tokenizer(text, return_offsets_mapping=True, add_special_tokens=True)
        ids = torch.tensor(encoded["input_ids"])
        half = len(ids) // 2
        whole = self._losses(ids, half)
        short = []
        step = max(1, context // SCORED_SHARE)
        for first in range(half, len(ids), step):
            stop = min(first + step, len(ids))
            begin = max(0, stop - context)
            short.append(self._losses(ids[begin:stop], first - begin))
        needs = np.zeros(len(ids), dtype=bool)
        gain = torch.cat(short) - whole
        needs[half:] = ((gain > DEPENDENT_GAIN) & (whole < DEPENDENT_LOSS)).numpy()
        ends = np.array([end for _, end in encoded["offset_mapping"]])
        # The judge's token whose end is the first one behind the character is the one that the character lies in.
        owner = np.searchsorted(ends, starts, side="right").clip(max=len(ids) - 1)
        return needs[owner]


def classes_of(row: dict[str, Any], judge: Judge, tokenizer: Any) -> np.ndarray:
    """The class of each token of a held-out row: (T,) uint8; 0 in the near half."""
    ids = np.array(row["input_ids"], dtype=np.int64)
    T = len(ids)
    pieces = [tokenizer.decode([token]) for token in ids.tolist()]
    starts = np.cumsum([0, *map(len, pieces)])[:-1].clip(max=max(len(row["text"]) - 1, 0))
    dependent = judge.dependent(row["text"], starts, context=T // 2)
    copies = copyable(ids, back=T // 2)
    found = np.full(T, CLASSES["S"], dtype=np.uint8)
    found[dependent & ~copies] = CLASSES["D"]
    found[copies] = CLASSES["C"]
    found[: T // 2] = CLASSES["none"]
    return found


@click.command(help=__doc__.splitlines()[0])
@click.argument("pool", type=click.Path(path_type=Path, exists=True))
@click.option("--judge", "judge_folder", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--tokenizer", "tokenizer_folder", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--output", type=click.Path(path_type=Path), required=True)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", help="Of the judge.")
@click.option("--only-judged", is_flag=True, help="Judge no more; leave out the held-out rows without classes.")
def main(pool: Path, judge_folder: Path, tokenizer_folder: Path, output: Path, dtype: str, only_judged: bool) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    rows = main_rows(pq.read_table(pool))
    (output / "classes").mkdir(parents=True, exist_ok=True)
    ids_BT = np.array([row["input_ids"] for row in rows], dtype=np.uint16)
    held_out = np.array([row["split"] == "held_out" for row in rows])
    if only_judged:
        left_out = [k for k in np.flatnonzero(held_out) if not class_file(output, rows[k]).exists()]
        rows = [row for k, row in enumerate(rows) if k not in set(left_out)]
        ids_BT, held_out = np.delete(ids_BT, left_out, axis=0), np.delete(held_out, left_out)
    judge: Judge | None = None
    for k in np.flatnonzero(held_out):
        path = class_file(output, rows[k])
        if not path.exists():
            judge = judge or Judge(judge_folder, getattr(torch, dtype))
            partial = path.with_suffix(".partial.npy")
            np.save(partial, classes_of(rows[k], judge, tokenizer))
            partial.rename(path)
            print(f"judged {k}", file=sys.stderr, flush=True)
    classes = np.stack([np.load(class_file(output, rows[k])) for k in np.flatnonzero(held_out)])
    unigrams = UnigramTable.count(ids_BT[held_out].astype(np.int64), vocab_size=int(ids_BT.max()) + 1)
    about = [
        {name: row[name] for name in ("id", "package", "kind", "domain", "split", "fault_kind")}
        | text_statistics(np.array(row["input_ids"], dtype=np.int64), row["text"], unigrams=unigrams).columns()
        for row in rows
    ]
    np.savez_compressed(output / "pack.npz", ids=ids_BT, held_out=held_out, classes=classes)
    (output / "rows.json").write_text(json.dumps(about) + "\n")
    shares = {name: float((classes[:, classes.shape[1] // 2 :] == code).mean()) for name, code in CLASSES.items()}
    print(json.dumps({"rows": len(rows), "held_out": int(held_out.sum()), "classes": shares}))


if __name__ == "__main__":
    main()
