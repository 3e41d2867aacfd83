"""What a document costs through `ladm score`, beside the same documents in a bare loop in the same process.

    python scripts/bench/program.py --model runs/toy/model --tokens 2048 --documents 6 --output FILE
    python scripts/bench/program.py --shape tinyllama --device cuda --dtype bfloat16 --documents 16 --output FILE

The whole program is run on twice as many documents and on half of them; the difference is what a document costs once
the model is loaded: reading, checking, scoring, encoding, writing, fsync, progress. The loop scores as many documents
with a model that is loaded already, as (b) of score.py. Rounds are interleaved; the ratio is that of the medians.
`--workers 1` runs the program's forward passes in a watched process, as it does on a GPU.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, disable_progress_bars

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from contenders import SHAPES, Contenders, document, grid_of, random_model
from machine import facts, synchronised, told

from ladm.modeling.devices import resolve_backend, resolve_dtype
from ladm.scoring.score import score
from ladm.settings.score import ScoreSettings


class Quiet:
    """Shows no progress."""

    def start(self, *, total: int, done: int) -> None: ...
    def advance(self, *, rows: int, tokens: int) -> None: ...
    def close(self) -> None: ...


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", help="folder of a Llama")
    model.add_argument("--shape", choices=SHAPES, help="random weights of a known shape")
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--documents", type=int, default=6, help="how many a round measures")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, help="file for the JSON object")
    return parser.parse_args()


def write_rows(folder: Path, ids: np.ndarray) -> None:
    Dataset.from_dict({"input_ids": list(ids), "index": list(range(len(ids)))}).save_to_disk(str(folder))


def main() -> None:
    asked = parse()
    dtype = resolve_dtype(asked.dtype, asked.device)
    disable_progress_bars()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        folder = asked.model or random_model(asked.shape, str(root / "model"), dtype, asked.tokens)
        count = 2 * asked.documents
        ids = document(folder, asked.tokens * count, random=asked.model is None).reshape(count, asked.tokens)
        for name, rows in (("few", asked.documents), ("many", count)):
            write_rows(root / name, ids[:rows].to(torch.int32).numpy())
        backend = resolve_backend("auto", asked.device)
        contenders = Contenders(folder, dtype=dtype, device=asked.device, backend=backend, attention=None)
        span = asked.tokens // 256
        grid = grid_of(asked.tokens, span_tokens=span, d_afs=4, d_cds=4)
        sync = synchronised(asked.device)

        def loop() -> float:
            began = time.perf_counter()
            for row in ids[asked.documents :].to(asked.device):
                contenders.get("b", row.unsqueeze(0), grid, layers=None).run()
                sync()
            return time.perf_counter() - began

        def program(name: str) -> float:
            shutil.rmtree(root / "run", ignore_errors=True)
            settings = ScoreSettings(
                rows=str(root / name), model=folder, output=str(root / "run"), span_tokens=span, dtype=asked.dtype,
                device=asked.device, batch_size=1, workers=asked.workers,
            )  # fmt: skip
            began = time.perf_counter()
            summary, _ = score(settings, echo=lambda _: None, progress=Quiet())
            assert summary.failed == 0
            return time.perf_counter() - began

        seconds: dict[str, list[float]] = {"loop": [], "few": [], "many": []}
        for repeat in range(asked.repeats + 1):
            for name, kept in seconds.items():
                taken = loop() if name == "loop" else program(name)
                if repeat:
                    kept.append(taken)
    report(asked, seconds, str(dtype).removeprefix("torch."))


def report(asked: argparse.Namespace, seconds: dict[str, list[float]], dtype: str) -> None:
    median = {name: statistics.median(values) for name, values in seconds.items()}
    of_each = {
        "loop": median["loop"] / asked.documents,
        "program": (median["many"] - median["few"]) / asked.documents,
    }
    result: dict[str, Any] = {
        **facts(asked.device),
        "tokens": asked.tokens, "documents": asked.documents, "dtype": dtype,
        "seconds_a_document": of_each, "ratio": of_each["program"] / of_each["loop"],
        "start_and_end_s": 2 * median["few"] - median["many"], "all_s": seconds,
    }  # fmt: skip
    print(f"a document: {of_each['program']:.3f} s through the program, {of_each['loop']:.3f} s in a loop")
    told(result, asked.output)


if __name__ == "__main__":
    main()
