"""`ladm evaluate` on a real language model, SmolLM2-135M: what it says is so, and what it can do is found."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from support.paths import ROOT

pytestmark = pytest.mark.slow
Command = Callable[..., Result]


@pytest.fixture(scope="module")
def smollm2() -> Path:
    """The toy's model; the same script fetches it where it is not there yet."""
    folder = ROOT / "runs" / "toy" / "model"
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, str(ROOT / "scripts" / "toy" / "fetch_model.py"), str(folder)], check=True)
    return folder


@pytest.fixture
def rows(ladm: Command, smollm2: Path, tmp_path: Path) -> Path:
    output = tmp_path / "rows"
    result = ladm(
        "prepare", ROOT / "ladm" / "data" / "documents.jsonl.gz", "--tokenizer", smollm2, "--length", "1024", "--limit",
        "6", "--output", output,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return output


def plain_loss(model: Any, ids_T: torch.Tensor, *, dtype: torch.dtype) -> float:
    """The mean loss, with sums over the vocabulary in `dtype`."""
    logits = model(ids_T.unsqueeze(0)).logits[0, :-1].to(dtype)
    return float(torch.nn.functional.cross_entropy(logits, ids_T[1:], reduction="none").double().mean())


def test_perplexity_is_that_of_transformers(ladm: Command, smollm2: Path, rows: Path, tmp_path: Path) -> None:
    from datasets import load_from_disk
    from transformers import AutoModelForCausalLM

    result = ladm(
        "evaluate", "perplexity", "--model", smollm2, "--rows", rows, "--windows", "256,1024", "--documents", "2",
        "--dtype", "float32", "--output", tmp_path / "p.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "p.json").read_text())["windows"]
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32, attn_implementation="eager")
    documents: Any = load_from_disk(str(rows))["train"][:2]["input_ids"]
    for window in (256, 1024):
        cut = [torch.tensor(document[:window]) for document in documents]
        with torch.inference_mode():
            exact, plain = (
                sum(plain_loss(model, ids, dtype=dtype) for ids in cut) / 2 for dtype in (torch.float64, torch.float32)
            )
        # A float32 sum over 49,152 words is off by 2e-5 on some CPUs.
        budget = 2 * abs(plain - exact) + 1e-6
        assert math.log(found[str(window)]["perplexity"]) == pytest.approx(exact, rel=0, abs=budget)
        assert found[str(window)]["perplexity"] < 40


def test_it_finds_needles(ladm: Command, smollm2: Path, rows: Path, tmp_path: Path) -> None:
    """In contexts that it was made for; a random guess of seven digits would never."""
    result = ladm(
        "evaluate", "needle", "--model", smollm2, "--rows", rows, "--lengths", "512,1024", "--depths", "3", "--repeats",
        "2", "--dtype", "float32", "--output", tmp_path / "n.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "n.json").read_text())
    assert found["mean"] >= 0.75
    assert (tmp_path / "n.png").stat().st_size > 1000
