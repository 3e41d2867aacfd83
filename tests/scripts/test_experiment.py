"""The experiment's parts that need no model: choices, planted rows, and the statistics of the outcomes."""

from __future__ import annotations

import gzip
import json
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from support.paths import ROOT

# First, because scripts/bench, which another test puts on the path, has a module `selection` too.
sys.path.insert(0, str(ROOT / "scripts" / "experiment"))

import outcomes
import selection
from planted_pool import plant


def test_a_full_disk_leaves_no_tokenizer_that_cannot_be_read(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(Exception, match="File too large"):
            selection.student_tokenizer(["one two"], 300, tmp_path / "t.json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert selection.student_tokenizer(["one two"], 300, tmp_path / "t.json").encode("one two").ids


@pytest.mark.parametrize(
    ("freedom", "probability", "quantile"),
    [(2, 0.975, 4.3027), (2, 0.8, 1.0607), (10, 0.975, 2.2281), (100, 0.975, 1.9840), (3.5, 0.8, 0.957)],
)
def test_students_t_equals_published_tables(freedom: float, probability: float, quantile: float) -> None:
    assert outcomes.student_t(probability, freedom) == pytest.approx(quantile, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("of_seeds", [0.0, 0.01, 0.1])
def test_intervals_contain_the_true_difference_and_find_the_detectable_one_four_times_in_five(
    of_seeds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five arms, three seeds, twenty documents of three rows; `of_seeds` is how much an arm depends on its seed."""
    monkeypatch.setattr(outcomes, "PERMUTATIONS", 1)
    draw = np.random.default_rng(0)
    documents = np.repeat(np.arange(20), 3)

    def compare(true: float) -> dict[str, Any]:
        shift = np.zeros((5, 1, 1))
        shift[1] = true
        seeds = draw.normal(0, 0.3, (1, 3, 1)) + draw.normal(0, of_seeds, (5, 3, 1))
        of_documents = draw.normal(0, 1, (1, 1, 20)) + draw.normal(0, 0.02, (5, 1, 20))
        rows = np.repeat(shift + seeds + of_documents, 3, axis=2) + draw.normal(0, 0.02, (5, 3, 60))
        return outcomes.compared(outcomes.by_document(rows, documents), 0)

    found = [compare(0.1) for _ in range(200)]
    true = [0, 0.1, 0, 0, 0]
    hold = [all(d["low"] <= t <= d["high"] for d, t in zip(each["differences"], true, strict=True)) for each in found]
    assert np.mean(hold) > 0.91
    detectable = float(np.mean([each["detectable"] for each in found]))
    again = [compare(detectable) for _ in range(200)]
    assert 0.65 < np.mean([each["differences"][1]["low"] > 0 for each in again]) < 0.95


def test_equal_arms_differ_significantly_once_in_twenty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "PERMUTATIONS", 500)
    draw = np.random.default_rng(0)
    p = np.array([outcomes.permuted(draw.normal(size=(5, 3)) + draw.normal(size=(1, 3))) for _ in range(300)])
    assert 0.02 < np.mean(p <= 0.05) < 0.09
    apart = np.linspace(0, 3, 5)[:, None] + draw.normal(0, 0.1, (5, 3))
    assert outcomes.permuted(apart) < 0.02


def test_none_taken_of_few_documents_leaves_a_wide_interval() -> None:
    """Nothing taken of 22 rows of 10 documents: up to 0.31 could be (0.69^10 = 0.025)."""
    pool = [{"meta": {"kind": "list", "document": k % 10}} for k in range(22)]
    none, all_ = (outcomes.taken_shares(pool, [taken], "list") for taken in ([], list(range(22))))
    assert (none["share"], none["low"], none["high"]) == (0, 0, pytest.approx(0.3085, abs=1e-4))
    assert (all_["share"], all_["low"], all_["high"]) == (1, pytest.approx(0.6915, abs=1e-4), 1)


def test_every_arm_takes_the_same_share_of_every_domain() -> None:
    domains = ["a"] * 40 + ["b"] * 8 + ["c"] * 12
    scores = {"up": np.arange(60.0), "flat": np.zeros(60)}
    arms = selection.choose(scores, domains, share=0.25, seed=1)
    for name, taken in arms.items():
        times = 2 if name == "random x2" else 1
        assert [sum(domains[k] == domain for k in taken) for domain in "abc"] == [10 * times, 2 * times, 3 * times]
        assert len(set(taken)) == len(taken)
    assert arms["up"] == [*range(30, 40), 46, 47, 57, 58, 59]
    assert set(arms["random"]) <= set(arms["random x2"])
    assert arms["flat"] != selection.choose(scores, domains, share=0.25, seed=2)["flat"]


def test_planting_is_balanced_and_leaves_the_other_rows_unchanged() -> None:
    draw = np.random.default_rng(0)
    rows: list[dict[str, Any]] = [
        {"ids": draw.integers(0, 1000, 512), "meta": {"kind": "intact", "pile_set_name": f"d{k % 3}"}}
        for k in range(80)
    ]
    pool = plant(rows, share=0.25, span_tokens=8, seed=0)
    kinds = [row["meta"]["kind"] for row in pool]
    assert {kind: kinds.count(kind) for kind in outcomes.KINDS} == dict.fromkeys(outcomes.KINDS, 4)
    for before, after in zip(rows, pool, strict=True):
        assert after["meta"]["pile_set_name"] == before["meta"]["pile_set_name"]
        assert (after["ids"] is before["ids"]) == (after["meta"]["kind"] == "intact")


def test_report_counts_planted_rows_and_compares_documents() -> None:
    """Two of five planted rows are taken; the arm's students lose 0.5 less at every position."""
    pool = [{"meta": {"kind": kind, "document": k}} for k, kind in enumerate([*outcomes.KINDS, *["intact"] * 5])]
    draw = np.random.default_rng(0)
    base = draw.normal(5, 1, (2, 6, 63))
    losses = {"random": base, "random x2": base - 0.1, "arm": base - 0.5 + draw.normal(0, 0.01, base.shape)}
    chosen = {"untrained": [[0, 9]] * 2, "random": [[4, 5]] * 2, "random x2": [[4, 5, 6, 7]] * 2, "arm": [[0, 1]] * 2}
    found = outcomes.report({"student": {"length": 64}}, pool, np.repeat([0, 1, 2], 2), chosen, losses)
    arm = found["arms"]["arm"]
    assert found["arms"]["untrained"]["planted_share_of_arm"] == 0.5
    assert arm["planted_taken"]["share"] == pytest.approx(2 / 5)
    assert arm["planted_share_of_arm"] == 1.0
    compared = arm["all positions"]["to random"]
    assert compared["difference"] == pytest.approx(-0.5, abs=0.01)
    assert compared["low"] < -0.5 < compared["high"]
    assert arm["all positions"]["by_seed"] == pytest.approx(losses["arm"].mean(axis=(1, 2)), abs=1e-4)
    assert arm["all positions"]["to random x2"]["difference"] == pytest.approx(-0.4, abs=0.01)
    # All documents have equally many rows, so the mean over documents is that over rows.
    assert arm["loss_by_context"]["32-63"] == pytest.approx(losses["arm"][:, :, 31:63].mean(), abs=1e-4)
    seconds = {"this launch": 61.0, "scores": None, "students": {"arm-0": 20.0, "arm-1": 22.0}}
    markdown = outcomes.as_markdown(found | {"seconds": seconds, "cores": 2, "device": "CPU", "config": {"at_once": 2}})
    assert "| arm | 2 | 1.00 | 0.40 " in markdown
    assert (
        "Time (CPU, 2 cores): the scores before; 2 students 42 s, 2 at a time; the launch that wrote this 61 s."
        in markdown
    )


@pytest.mark.slow
def test_whole_experiment_on_words(talking: Path, tmp_path: Path) -> None:
    """From documents to the report, with a tiny calculator and tiny students; then resumed without any training."""
    draw = np.random.default_rng(0)
    for name, count in (("pool", 60), ("held-out", 12)):
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt") as file:
            for k in range(count):
                words = draw.permutation(200)[:60]
                text = " ".join(f"w{words[x]}" for x in draw.integers(0, 60, 700))
                file.write(json.dumps({"text": text, "meta": {"pile_set_name": f"d{k % 3}"}}) + "\n")
    config = {
        "pool": str(tmp_path / "pool.jsonl.gz"), "held_out": str(tmp_path / "held-out.jsonl.gz"),
        "work": str(tmp_path / "work"), "report": str(tmp_path / "report"), "calculator": str(talking),
        "profile": None, "row_tokens": 320, "span_tokens": 8, "windows_a_document": 2, "planted_share": 0.3,
        "budget_share": 0.25, "held_out_rows": 12, "seeds": 2,
        "student": {"vocab": 300, "width": 16, "layers": 1, "heads": 2, "length": 256},
        "passes": 1, "batch_rows": 2, "learning_rate": 1e-3, "warmup_steps": 2, "at_once": 2,
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    command = [sys.executable, str(ROOT / "scripts" / "experiment" / "selection.py"), str(tmp_path / "config.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "report" / "report.json").read_text())
    assert set(found["arms"]) == {
        "length", "LADM mean", "LADM median", "LADM median in the band", "gzip band", "random", "random x2",
    }  # fmt: skip
    assert found["arms"]["random x2"]["rows"] == 2 * found["arms"]["random"]["rows"] == 2 * found["pool"] // 4
    assert len(found["seconds"]["students"]) == 12
    assert "Time (" in done.stdout
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "training" not in again.stderr
    del found["seconds"]
    repeated = json.loads((tmp_path / "report" / "report.json").read_text())
    del repeated["seconds"]
    assert repeated == found


def test_too_few_planted_rows_are_an_error_before_anything_is_scored(talking: Path, tmp_path: Path) -> None:
    document = {"text": " ".join(f"w{k % 200}" for k in range(700)), "meta": {"pile_set_name": "d"}}
    (tmp_path / "pool.jsonl").write_text((json.dumps(document) + "\n") * 20)
    config = {
        "pool": str(tmp_path / "pool.jsonl"), "held_out": str(tmp_path / "pool.jsonl"), "work": str(tmp_path / "work"),
        "report": str(tmp_path / "report"), "calculator": str(talking), "row_tokens": 320, "span_tokens": 8,
        "windows_a_document": 1, "planted_share": 0.1, "seeds": 2, "student": {},
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    with pytest.raises(SystemExit, match="planted_share is too small for this pool: no row of the kind shuffled would"):
        selection.main.callback(tmp_path / "config.yaml", scores_only=False)


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_configurations_have_every_setting(name: str) -> None:
    config = yaml.safe_load((ROOT / "configs" / "experiment" / f"{name}.yaml").read_text())
    wanted = set(re.findall(r'config\["(\w+)"\]', (ROOT / "scripts" / "experiment" / "selection.py").read_text()))
    assert wanted | {"profile"} == set(config)
    assert (ROOT / config["profile"]).exists()
