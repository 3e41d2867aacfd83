"""`ladm check`: figure 2, the verdict in words, and the picture."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from conftest import GOLDEN

from ladm.calibration.check_result import CheckResult
from ladm.calibration.estimates import Estimate
from ladm.modeling.facts import model_facts

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    """20 documents of 256 tokens, each with a vocabulary and a rhythm of its own."""
    from datasets import Dataset

    draw = np.random.default_rng(0)
    ids = [np.resize(draw.integers(0, 500, size=30 + k), 256).tolist() for k in range(20)]
    folder = tmp_path_factory.mktemp("check") / "rows"
    Dataset.from_dict({"input_ids": ids, "index": list(range(20))}).save_to_disk(str(folder))
    return str(folder)


def test_check_on_rows(ladm: Run, rows: str, tmp_path: Path) -> None:
    out = tmp_path / "check"
    command = ("check", "--model", GOLDEN, "--rows", rows, "--output", out, "--span-tokens", "8", "--dtype", "float32")
    result = ladm(*command)
    assert result.exit_code == 0, result.output
    assert (out / "check.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((out / "check.json").read_text())
    assert list(record["long_range"]) == ["intact", "2 pieces", "4 pieces", "8 pieces"]
    assert record["long_range"]["intact"] > 0
    assert record["verdict"][-1] in result.stdout or record["verdict"][-2] in result.stdout
    for score, (value, low, high) in record["auc"].items():
        assert low <= value <= high
        assert f"{score:<10} {value:.3f} ({low:.3f} to {high:.3f})" in result.stdout
    assert f"picture: {out}/check.png\n" in result.stdout
    again = ladm(*command)
    assert again.exit_code == 0
    assert json.loads((out / "check.json").read_text()) == record


@pytest.fixture
def perfect_check() -> CheckResult:
    """The released score separates perfectly; tests change one field or another."""
    perfect, chance = Estimate(1.0, 0.95, 1.0), Estimate(0.5, 0.4, 0.6)
    return CheckResult(
        facts=model_facts(str(GOLDEN)),
        length_tokens=4096,
        documents=20,
        long_range={"intact": 4.0, "2 pieces": 3.0, "4 pieces": 2.0, "8 pieces": 1.0},
        rows=None,
        layers=[],
        score_names={},
        scores={"profile": chance, "mean": perfect, "median": chance},
    )


def test_the_verdict_recommends_a_score(perfect_check: CheckResult) -> None:
    fit = "verdict: fit to be a calculator; "
    assert list(perfect_check.verdict())[1:] == [
        "figure 2: long-range attention falls each time the pieces are halved, as expected",
        fit + "score as released",
    ]
    perfect, fair, chance = Estimate(1.0, 0.95, 1.0), Estimate(0.8, 0.7, 0.9), Estimate(0.5, 0.4, 0.6)
    other = dataclasses.replace(
        perfect_check,
        scores={"profile": fair, "mean": chance, "median": perfect},
        long_range={"intact": 4.0, "2 pieces": 2.0, "4 pieces": 3.0, "8 pieces": 1.0},
    )
    assert list(other.verdict())[1:] == [
        "figure 2: intact documents have the most long-range attention, but the pieces are out of order",
        fit + "score with --reduce median",
        "warning: the released score, the mean over layers, is significantly worse",
    ]
    weak = dataclasses.replace(
        perfect_check,
        scores={"profile": fair, "mean": Estimate(0.6, 0.5, 0.75), "median": chance},
        long_range={"intact": 1.0, "2 pieces": 2.0},
    )
    assert list(weak.verdict())[1:] == [
        "figure 2: pasted documents have as much long-range attention as intact ones, so structure is not seen",
        "verdict: weak: it separates intact from pasted documents, but not reliably; calibrate it on more documents "
        "(ladm calibrate) and score with the profile",
    ]
    unfit = dataclasses.replace(perfect_check, scores=dict.fromkeys(("profile", "mean", "median"), chance))
    assert list(unfit.verdict())[-1] == (
        "verdict: undecided: 20 documents are too few to decide; give more with --rows"
    )
    narrow = dict.fromkeys(("profile", "mean", "median"), Estimate(0.5, 0.45, 0.55))
    unfit = dataclasses.replace(perfect_check, scores=narrow)
    assert list(unfit.verdict())[-1] == "verdict: unfit: no score separates intact from pasted documents"
    flat = dataclasses.replace(perfect_check, long_range=dict.fromkeys(perfect_check.long_range, 0.0))
    assert list(flat.verdict())[1].endswith("structure is not seen")


def test_the_verdict_reports_the_positions_of_the_model(perfect_check: CheckResult) -> None:
    free = dataclasses.replace(perfect_check.facts, max_tokens=None)
    bound = dataclasses.replace(perfect_check.facts, max_tokens=8192)
    far = dataclasses.replace(perfect_check.facts, max_tokens=32768)
    lines = [next(dataclasses.replace(perfect_check, facts=facts).verdict()) for facts in (free, bound, far)]
    assert lines == [
        "positions: the model sets no limit; tested with 4,096 tokens",
        "positions: made for 8,192 tokens, tested with 4,096; longer rows are refused",
        "positions: made for 32,768 tokens, tested with 4,096; longer rows are not tested",
    ]


def test_error_messages_of_check(ladm: Run, rows: str, tmp_path: Path) -> None:
    out = ("--output", tmp_path / "check")
    for arguments, code, message in (
        (("--rows", rows, *out, "--documents", "15"), 1,
         f"{rows}: 15 documents of 256 tokens, and at least 16 are needed"),
        (("--rows", tmp_path / "no", *out), 1,
         f"no such data set: {tmp_path / 'no'} is neither a folder nor a Hub id such as org/name"),
        (out, 1, f"*{GOLDEN}"),
    ):  # fmt: skip
        result = ladm("check", "--model", GOLDEN, *arguments)
        assert result.exit_code == code
        if message.startswith("*"):
            assert result.stderr.startswith("ladm: ")
            assert message[1:] in result.stderr
        else:
            assert result.stderr == f"ladm: {message}\n"
