"""Packs of rows and a judge -> classes.npz beside each pack: the class of every token of its held-out rows.

    python scripts/experiment/judge.py runs/experiment/influence/pack.npz runs/experiment/pretraining/pack.npz \
        --judge runs/bench/gemma --tokenizer runs/toy/model [--device cuda --dtype bfloat16] [--minutes M]

The judge is neither the model whose scores are tested nor the one that is trained. Classes of a held-out token in the
far half of its row, with a short context of 1,024 tokens (half the row if that is less):

    D  depends on distant context: the judge's loss with the short context minus that with all is above 1, and the
       loss with all is below 2; and it is not copyable
    C  copyable: the two tokens before it occurred earlier in the row, more than the short context back, with this
       successor
    S  the rest

The judge has a tokenizer of its own: a token gets the losses of the judge's token that its first byte lies in.
Started again, it continues; `--rows N` judges the first N held-out rows only.
"""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from ladm.storage.files import write_whole

Array = np.ndarray[Any, Any]

CONTEXT_TOKENS = 1024
SCORED_SHARE = 4
"""A short input of the judge scores its last quarter: at 1,024 tokens of context, those see 768 to 1,024."""
DEPENDENT_GAIN, DEPENDENT_LOSS = 1.0, 2.0
CLASSES = {"none": 0, "D": 1, "C": 2, "S": 3}
HEAD_TOKENS = 2048
"""Logits of Gemma's 262,144 words are made for this many tokens at a time: 2 GB in float32."""
WINDOWS_AT_ONCE = 8
SAVE_SECONDS = 10


def short_context(T: int) -> int:
    return min(CONTEXT_TOKENS, T // 2)


def copyable(ids: Array, *, back: int) -> Array:
    """Did the trigram that ends at each token occur earlier, at least `back` tokens before?"""
    first: dict[tuple[int, int, int], int] = {}
    found = np.zeros(len(ids), dtype=bool)
    for t in range(2, len(ids)):
        trigram = (int(ids[t - 2]), int(ids[t - 1]), int(ids[t]))
        seen = first.setdefault(trigram, t)
        found[t] = t - seen >= back
    return found


class TokenBytes:
    """The bytes that each token of a byte-level BPE tokenizer stands for."""

    def __init__(self, tokenizer: Any) -> None:
        from tokenizers.pre_tokenizers import ByteLevel

        # Such a tokenizer writes the byte b as a printable character: itself where it is one, else from 256 on.
        plain = {ord(letter) for letter in ByteLevel.alphabet() if ord(letter) < 256}
        byte_of = {chr(byte): byte for byte in plain}
        byte_of |= {chr(256 + k): byte for k, byte in enumerate(b for b in range(256) if b not in plain)}
        self._special = set(tokenizer.all_special_tokens)
        self._byte_of = byte_of
        self._tokenizer = tokenizer

    def __call__(self, ids: Array) -> list[bytes]:
        pieces = self._tokenizer.convert_ids_to_tokens(ids.tolist())
        return [
            piece.encode() if piece in self._special else bytes(self._byte_of[letter] for letter in piece)
            for piece in pieces
        ]


class Judge:
    """A causal language model that says how much a token's loss falls with distant context."""

    def __init__(self, folder: Path, *, dtype: torch.dtype, device: str) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()

    @torch.inference_mode()
    def _losses(self, ids_BT: Tensor, *, last: int) -> Tensor:
        """Loss of the last `last` tokens of every input, (B, last); only their logits are made."""
        hidden_BTE = self._model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
        hidden_NE = hidden_BTE[:, -last - 1 : -1].flatten(0, 1)
        targets_N = ids_BT[:, -last:].flatten()
        losses = [
            torch.nn.functional.cross_entropy(
                self._model.get_output_embeddings()(hidden_NE[start : start + HEAD_TOKENS]).float(),
                targets_N[start : start + HEAD_TOKENS],
                reduction="none",
            )
            for start in range(0, len(targets_N), HEAD_TOKENS)
        ]
        return torch.cat(losses).view(len(ids_BT), last)

    def dependent(self, content: bytes, starts: Array, *, context: int) -> Array:
        """For the byte at which each token of ours starts: does the judge need distant context there?"""
        # A row is cut by tokens, so its last character may be torn.
        text = content.decode("utf-8", errors="replace")
        encoded = self._tokenizer(text, return_offsets_mapping=True, add_special_tokens=True)
        ids = torch.tensor(encoded["input_ids"], device=self._model.device)
        T = len(ids)
        step = max(1, context // SCORED_SHARE)
        count = min(-(-(T // 2) // step), (T - context) // step)
        # Counted from the row's end, so that every window has its full length and they can share a batch.
        stops = range(T - (count - 1) * step, T + 1, step)
        windows = torch.stack([ids[stop - context : stop] for stop in stops])
        short = torch.cat([self._losses(part, last=step).flatten() for part in windows.split(WINDOWS_AT_ONCE)])
        whole = self._losses(ids[None], last=count * step)[0]
        needs = np.zeros(T, dtype=bool)
        needs[T - count * step :] = ((short - whole > DEPENDENT_GAIN) & (whole < DEPENDENT_LOSS)).cpu().numpy()
        byte_at = np.cumsum([0, *(len(letter.encode()) for letter in text)])
        ends = byte_at[[end for _, end in encoded["offset_mapping"]]]
        # The judge's token whose end is the first one behind the byte is the one that the byte lies in.
        owner = np.searchsorted(ends, starts, side="right").clip(max=T - 1)
        return np.asarray(needs[owner])


def classes_of(ids: Array, judge: Judge, token_bytes: TokenBytes) -> Array:
    """The class of each token of a held-out row: (T,) uint8; 0 in the near half."""
    T = len(ids)
    pieces = token_bytes(ids)
    starts = np.cumsum([0, *map(len, pieces)])[:-1]
    dependent = judge.dependent(b"".join(pieces), starts, context=short_context(T))
    copies = copyable(ids, back=short_context(T))
    found = np.full(T, CLASSES["S"], dtype=np.uint8)
    found[dependent & ~copies] = CLASSES["D"]
    found[copies] = CLASSES["C"]
    found[: T // 2] = CLASSES["none"]
    return found


def read_classes(path: Path, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Classes (rows, T), 0 where a row has none yet, and which rows have theirs."""
    if not path.exists():
        return np.zeros(shape, np.uint8), np.zeros(shape[0], bool)
    with np.load(path) as content:
        classes, judged = content["classes"], content["judged"]
    if classes.shape != shape:
        sys.exit(f"{path} is of {classes.shape} held-out tokens, and the pack has {shape}; remove it")
    return classes, judged


def save_classes(path: Path, classes: Array, judged: Array) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, classes=classes, judged=judged)
    write_whole(path, [buffer.getvalue()])


@click.command(help=__doc__.splitlines()[0])
@click.argument("packs", type=click.Path(path_type=Path, exists=True), nargs=-1, required=True)
@click.option("--judge", "judge_folder", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--tokenizer", "tokenizer_folder", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--device", default="cpu", help="Of the judge.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", help="Of the judge.")
@click.option("--minutes", type=float, help="Stop after so long; started again, it continues.")
@click.option("--rows", type=int, help="Judge the first N held-out rows of each pack.")
def main(
    packs: tuple[Path, ...],
    judge_folder: Path,
    tokenizer_folder: Path,
    device: str,
    dtype: str,
    minutes: float | None,
    rows: int | None,
) -> None:
    from transformers import AutoTokenizer

    until = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    token_bytes = TokenBytes(AutoTokenizer.from_pretrained(tokenizer_folder))
    judge = Judge(judge_folder, dtype=getattr(torch, dtype), device=device)
    late = False
    for pack in packs:
        with np.load(pack) as content:
            held_out = content["ids"][content["held_out"]].astype(np.int64)
        path = pack.with_name("classes.npz")
        classes, judged = read_classes(path, held_out.shape)
        saved = started = time.monotonic()
        for k in np.flatnonzero(~judged[:rows]):
            if late := time.monotonic() > until:
                break
            classes[k], judged[k] = classes_of(held_out[k], judge, token_bytes), True
            if time.monotonic() - saved > SAVE_SECONDS:
                save_classes(path, classes, judged)
                saved = time.monotonic()
        save_classes(path, classes, judged)
        far = classes[judged, classes.shape[1] // 2 :]
        shares = {name: round(float((far == code).mean()), 4) for name, code in CLASSES.items()} if far.size else {}
        seconds = round(time.monotonic() - started, 1)
        print(json.dumps({"classes": str(path), "judged": int(judged.sum()), "seconds": seconds} | shares), flush=True)
    if late:
        sys.exit(3)


if __name__ == "__main__":
    main()
