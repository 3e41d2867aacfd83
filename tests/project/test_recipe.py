"""Every step of docs/recipes.md at toy size, by its commands: rows, calculator, profile, scores, subset, marks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

Command = Callable[..., Result]
pytestmark = pytest.mark.slow

TRAINING = "batch_tokens: 2048\nlearning_rate: 1.0e-3\nwarmup_steps: 2\n"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Documents of the toy tokenizer's words, each with favourite words of its own."""
    draw = np.random.default_rng(0)
    path = tmp_path / "corpus.jsonl"
    with path.open("w") as file:
        for k in range(64):
            favourites = draw.integers(0, 400, 40)
            words = [f"w{favourites[int(draw.integers(40))]}" for _ in range(700)]
            file.write(json.dumps({"text": " ".join(words), "meta": {"pile_set_name": f"domain {k % 3}"}}) + "\n")
    return path


def test_the_whole_recipe(ladm: Command, talking: Path, corpus: Path, tmp_path: Path) -> None:
    t = tmp_path
    (t / "train.yaml").write_text(TRAINING)

    def run(*arguments: Any) -> str:
        result = ladm(*arguments)
        assert result.exit_code == 0, f"{arguments}: {result.output}"
        return result.stdout

    run("prepare", corpus, "--tokenizer", talking, "--length", "512", "--output", t / "rows")
    run("train", "--config", t / "train.yaml", "--model", talking, "--rows", t / "rows", "--output", t / "calculator",
        "--tokens", "100k", "--rope-base", "500000")  # fmt: skip
    own = ("--model", t / "calculator")
    assert "verdict: " in run("check", *own, "--rows", t / "rows", "--span-tokens", "16", "--output", t / "check")
    run("calibrate", *own, "--rows", t / "rows", "--span-tokens", "16", "--output", t / "profile.yaml")
    run("score", t / "rows", *own, "--profile", t / "profile.yaml", "--output", t / "run")
    run("score", t / "rows", *own, "--config", "configs/paper.yaml", "--span-tokens", "16", "--output", t / "printed")
    run("select", t / "run", "--rows", t / "rows", "--tokens", "10k", "--output", t / "subset")
    run("prepare", t / "subset", "--tokenizer", talking, "--length", "480", "--output", t / "subset-again")
    run("train", "--config", t / "train.yaml", *own, "--rows", t / "subset-again", "--length", "480",
        "--output", t / "target", "--tokens", "20k")  # fmt: skip
    target = ("--model", t / "target")
    out = run("evaluate", "perplexity", *target, "--rows", t / "rows", "--windows", "128,512")
    assert float(out.splitlines()[2].split()[1]) < 512
    run("evaluate", "needle", *target, "--rows", t / "rows", "--lengths", "256,512", "--output", t / "needle.json")
