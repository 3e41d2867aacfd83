"""What a document costs through `ladm score`, and how long until the first one, from the row times of one run.

    python scripts/bench/program.py --model runs/toy/model --tokens 2048 --documents 12 --output FILE
    python scripts/bench/program.py --shape tinyllama --device cuda:0 --dtype bfloat16 --documents 96 --output FILE

Processes one after the other, each with nothing loaded at its start: bare Python (import torch and transformers,
load the model, one forward pass), the whole program, a bare loop over the same documents with a loaded model, as
(b) of score.py, and bare Python again, of which the faster counts. The program prints when each row became durable.
Reported: seconds from the command to the first row, over those of bare Python; and seconds a document in the steady
state, over those of the loop.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

WARM_DOCUMENTS = 8
"""Rows that are left out of the steady state: the first compile kernels and fill the pipeline."""


class RowTimes:
    """A progress bar that prints when rows became durable, on the clock of the machine."""

    def start(self, *, total: int, done: int, launches: int = 1) -> None: ...

    def advance(self, *, rows: int, tokens: int) -> None:  # noqa: ARG002 - the interface of a progress bar
        print(f"rows {rows} {time.time():.6f}", flush=True)

    def close(self) -> None: ...


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", help="folder of a Llama")
    model.add_argument("--shape", help="random weights of a known shape, as of score.py")
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--documents", type=int, default=24)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--record", default="layers")
    parser.add_argument("--batch-size", default="auto")
    parser.add_argument("--output", type=Path, help="file for the JSON object")
    parser.add_argument("--child", choices=["bare", "program", "loop"], help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def bare(options: argparse.Namespace) -> None:
    """Import torch and transformers, load the stock model, one forward pass."""
    import numpy as np
    import torch
    from transformers import AutoModel

    dtype = getattr(torch, options.dtype)
    model = AutoModel.from_pretrained(options.model, dtype=dtype, attn_implementation="sdpa").to(options.device).eval()
    ids = torch.from_numpy(np.load(options.work / "ids.npy")[:1]).to(options.device)
    with torch.inference_mode():
        model(input_ids=ids, use_cache=False).last_hidden_state.float().sum().item()
    print(f"rows 1 {time.time():.6f}", flush=True)


def program(options: argparse.Namespace) -> None:
    """All of `ladm score`."""
    from ladm.scoring.score import score
    from ladm.settings.score import ScoreSettings

    settings = ScoreSettings(
        rows=str(options.work / "rows"), model=options.model, output=str(options.work / "run"), dtype=options.dtype,
        span_tokens=max(1, options.tokens // 256), device=options.device, workers=options.workers,
        record=options.record,
        batch_size="auto" if options.batch_size == "auto" else int(options.batch_size),
    )  # fmt: skip
    result = score(settings, echo=lambda line: print(line, file=sys.stderr), progress=RowTimes())
    assert result.summary.failed == 0


def loop(options: argparse.Namespace) -> None:
    """The same documents with a model that is loaded already, one after the other."""
    import numpy as np
    import torch
    from contenders import grid_of
    from machine import synchronised

    from ladm.modeling.devices import resolve_backend
    from ladm.modeling.facts import model_facts
    from ladm.modeling.fused import resolve_fused
    from ladm.modeling.observer import load_observer
    from ladm.signals.layer_cds import layer_cds

    facts, dtype = model_facts(options.model), getattr(torch, options.dtype)
    fused = resolve_fused("auto", device=options.device, dtype=dtype, model_type=facts.model_type)
    every = tuple(range(facts.num_layers))
    observer = load_observer(facts, layers=every, dtype=dtype, device=torch.device(options.device), fused=fused)
    grid = grid_of(options.tokens, span_tokens=max(1, options.tokens // 256), d_afs=4, d_cds=4)
    backend = resolve_backend("auto", options.device)
    sync = synchronised(options.device)
    for row in torch.from_numpy(np.load(options.work / "ids.npy")):
        ids = row.unsqueeze(0).to(options.device)
        layer_cds(observer, ids, grid, ablation="none", backend=backend, record=options.record)
        sync()
        print(f"rows 1 {time.time():.6f}", flush=True)


CHILDREN = {"bare": bare, "program": program, "loop": loop}


def run_child(name: str, options: argparse.Namespace, work: Path) -> list[tuple[float, int]]:
    """Seconds after the start of a fresh process at which rows were done, and how many."""
    flags = {"tokens": options.tokens, "dtype": options.dtype, "device": options.device, "model": options.model}
    flags |= {"record": options.record, "batch_size": options.batch_size, "child": name, "work": work}
    if options.workers is not None:
        flags["workers"] = options.workers
    words = [str(word) for key, value in flags.items() for word in (f"--{key.replace('_', '-')}", value)]
    began = time.time()
    done = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        from ladm.errors import LadmError

        raise LadmError(f"the process {name} ended with {done.returncode}; its error is above")
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("rows ")]
    return [(float(when) - began, int(rows)) for _, rows, when in lines]


def steady(times: list[tuple[float, int]]) -> float:
    """Seconds a document between the first rows, which are left out, and the last."""
    seen, warm = 0, times[0]
    for when, rows in times:
        if seen >= min(WARM_DOCUMENTS, sum(rows for _, rows in times) // 3):
            break
        seen += rows
        warm = (when, rows)
    left = sum(rows for _, rows in times) - seen
    return (times[-1][0] - warm[0]) / left if left else float("nan")


def main() -> None:
    options = parse()
    if options.child:
        CHILDREN[options.child](options)
        return
    # Not at the top: a child has nothing loaded at its start.
    from error_lines import errors_in_a_line

    with errors_in_a_line(), tempfile.TemporaryDirectory() as temporary:
        found = measure(options, Path(temporary))
    ratio = found["seconds_a_document"]["program"] / found["seconds_a_document"]["loop"]
    first = found["seconds_to_the_first_row"]
    print(
        f"a document: {found['seconds_a_document']['program']:.4f} s through the program, {ratio:.3f} x a loop; first "
        f"row after {first['program']:.1f} s, {first['program'] / first['bare']:.2f} x bare Python"
    )
    line = json.dumps(found | {"ratio": ratio, "first_row_ratio": first["program"] / first["bare"]})
    if options.output:
        options.output.write_text(line + "\n")
    print(line)


def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Make model and rows, then run each child."""
    import numpy as np
    from contenders import document, random_model
    from datasets import Dataset, disable_progress_bars
    from machine import facts

    from ladm.modeling.devices import resolve_dtype
    from ladm.modeling.facts import model_facts

    disable_progress_bars()
    about = facts(options.device)
    dtype = resolve_dtype(options.dtype, options.device)
    options.dtype = str(dtype).removeprefix("torch.")
    random = options.model is None
    if not random:
        # For its errors: other loaders know a folder that is no model by tracebacks of their own.
        model_facts(options.model)
    else:
        options.model = random_model(options.shape, str(work / "model"), dtype, options.tokens, device=options.device)
    ids = (
        document(options.model, options.tokens * options.documents, random=random)
        .reshape(options.documents, -1)
        .numpy()
    )
    np.save(work / "ids.npy", ids)
    rows = {"input_ids": list(ids.astype(np.int32)), "index": list(range(options.documents))}
    Dataset.from_dict(rows).save_to_disk(str(work / "rows"))
    times = {name: run_child(name, options, work) for name in CHILDREN}
    # Once more, and the faster counts: the first process of all reads the libraries and the model from the disk.
    times["bare"] = min(times["bare"], run_child("bare", options, work))
    gaps = [round(1e3 * (b[0] - a[0]), 2) for a, b in zip(times["program"], times["program"][1:], strict=False)]
    return {
        **about,
        "tokens": options.tokens, "documents": options.documents, "dtype": options.dtype, "record": options.record,
        "seconds_a_document": {name: steady(times[name]) for name in ("program", "loop")},
        "seconds_to_the_first_row": {name: times[name][0][0] for name in CHILDREN},
        "ms_between_reports": {"median": statistics.median(gaps), "all": gaps[:200]} if gaps else None,
    }  # fmt: skip


if __name__ == "__main__":
    main()
