"""The contrast set, the choice of a score and its intervals, and `ladm calibrate` from start to end."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import Result
from conftest import GOLDEN, read_lines
from hypothesis import given, settings
from hypothesis import strategies as st

from ladm.calibration.candidates import (
    CHOSEN_ON,
    JUDGED_ON,
    Candidate,
    all_layers,
    choose,
    evaluate_candidates,
    gain,
    judge,
)
from ladm.calibration.contrast import INTACT, LIST, PASTED, PIECES, REPEATED, SHUFFLED, contrast_set, halves
from ladm.calibration.contrast_scores import WITH_SIGMA, WITHOUT_SIGMA, ContrastScores
from ladm.calibration.estimates import auc
from ladm.calibration.result import analyse
from ladm.errors import LadmError
from ladm.settings.profiles import read_profile

Run = Callable[..., Result]


def documents(count: int, tokens: int) -> list[Any]:
    """Document k holds k * 10^6 + position, so that every token shows where it is from."""
    return [k * 1_000_000 + np.arange(tokens) for k in range(count)]


@given(st.integers(32, 50), st.integers(64, 200), st.integers(0, 5))
@settings(deadline=None, max_examples=25)
def test_pasted_rows_hold_the_same_tokens_from_different_documents(count: int, tokens: int, seed: int) -> None:
    half_of = halves([str(k) for k in range(count)], seed=seed)
    rows = contrast_set(documents(count, tokens), half_of, span_tokens=4, seed=seed)
    assert all(len(row.ids) == tokens for row in rows)
    for half in (0, 1):
        members = set(np.flatnonzero(half_of == half))
        intact = np.sort(np.concatenate([row.ids for row in rows if (row.kind, row.half) == (INTACT, half)]))
        for pieces, kind in zip(PIECES, PASTED, strict=True):
            pasted = [row for row in rows if (row.kind, row.half) == (kind, half)]
            assert np.array_equal(np.sort(np.concatenate([row.ids for row in pasted])), intact)
            for row in pasted:
                sources, places = np.divmod(row.ids, 1_000_000)
                assert np.array_equal(places, np.arange(tokens))
                assert len(set(sources)) == pieces
                assert set(sources) <= members
                assert row.document == sources[0]


def test_contents_of_degraded_rows() -> None:
    rows = contrast_set(documents(32, 256), halves([str(k) for k in range(32)], seed=0), span_tokens=16, seed=0)
    assert Counter(row.kind for row in rows) == {
        INTACT: 32, **dict.fromkeys(PASTED, 32), SHUFFLED: 8, REPEATED: 8, LIST: 8,
    }  # fmt: skip
    for row in rows:
        own = row.document * 1_000_000
        if row.kind == SHUFFLED:
            assert np.array_equal(np.sort(row.ids), own + np.arange(256))
            assert (np.diff(row.ids) == 1).sum() >= 256 - 16
            assert not np.array_equal(row.ids, own + np.arange(256))
        elif row.kind == REPEATED:
            assert np.array_equal(row.ids, np.tile(row.ids[:16], 16))
        elif row.kind == LIST:
            same = row.ids.reshape(-1, 4)
            fixed = (same == same[0]).all(axis=0)
            assert np.array_equal(row.ids[~np.tile(fixed, 64)], (own + np.arange(256))[~np.tile(fixed, 64)])


def test_halves_keep_parts_of_a_document_together() -> None:
    groups = [f"book {k // 3}" for k in range(60)]
    half_of = halves(groups, seed=1)
    assert sorted(Counter(half_of.tolist()).values()) == [30, 30]
    assert len({(group, int(half)) for group, half in zip(groups, half_of, strict=True)}) == 20
    assert not np.array_equal(half_of, halves(groups, seed=2))


def test_a_half_too_small_to_paste() -> None:
    with pytest.raises(LadmError, match="^31 documents make halves of 16 and 15; each half needs 16 different"):
        contrast_set(documents(31, 64), halves([str(k) for k in range(31)], seed=0), span_tokens=4, seed=0)


def test_auc_counts_pairs_and_half_of_the_ties() -> None:
    assert auc(np.array([3.0, 2.0]), np.array([1.0, 2.0])) == 3.5 / 4


def simulated(
    documents: int, strength: dict[int, float], *, layers: int = 6, scale: Any = 1.0, seed: int = 0
) -> ContrastScores:
    """Log-normal CDS in which some layers are raised for intact documents; layer 0 is a hundred times larger."""
    draw = np.random.default_rng(seed)
    kinds, half_list, cds = [], [], []
    for kind in (INTACT, *PASTED):
        logs = draw.normal(size=(documents, layers))
        for layer, shift in strength.items():
            logs[:, layer] += shift * (kind == INTACT)
        kinds += [kind] * documents
        half_list += [k % 2 for k in range(documents)]
        cds.append(np.exp(logs) * np.where(np.arange(layers) == 0, 100.0, 1.0) * scale)
    return ContrastScores(
        kinds=np.array(kinds), halves=np.array(half_list),
        documents=np.tile(np.arange(documents), 1 + len(PASTED)), cds={WITH_SIGMA: np.concatenate(cds)},
        layers=tuple(range(layers)), num_layers=layers,
    )  # fmt: skip


def test_the_layers_that_carry_the_signal_are_found() -> None:
    data = simulated(200, {2: 1.5, 3: 1.5})
    found = analyse(data, objective="auc", max_cost=1.0, seed=0)
    assert set(found.chosen.columns) >= {2, 3}
    assert 0 not in found.chosen.columns or found.chosen.how != "mean" or found.chosen.weights is not None
    assert found.gains["mean"].low > 0.1
    assert found.gains["median"].low > 0
    assert found.recommended is found.chosen
    assert found.layers[3].auc.low > 0.75 > 0.6 > found.layers[0].auc.high


def test_the_form_without_sigma_is_chosen_where_it_is_better() -> None:
    weak, strong = simulated(200, {2: 0.3}), simulated(200, {2: 2.0})
    both = ContrastScores(
        kinds=weak.kinds, halves=weak.halves, documents=weak.documents, layers=weak.layers, num_layers=weak.num_layers,
        cds=weak.cds | {WITHOUT_SIGMA: strong.cds[WITH_SIGMA]},
    )  # fmt: skip
    found = analyse(both, objective="auc", max_cost=1.0, seed=0)
    assert found.chosen.form == WITHOUT_SIGMA
    assert ", without sigma, of layer" in found.names["profile"]
    assert found.layers[2].forms[WITHOUT_SIGMA].low > found.layers[2].forms[WITH_SIGMA].high


def test_noise_gives_no_significant_gain_and_the_median_is_recommended() -> None:
    found = analyse(simulated(80, {}), objective="auc", max_cost=1.0, seed=3)
    assert found.gains["median"].low <= 0
    assert found.recommended == all_layers(simulated(80, {}), "median")
    assert found.summary()["recommended"] == "the median over all layers"


def test_max_cost_bounds_the_choice_and_may_be_too_small() -> None:
    data = simulated(100, {1: 0.8, 5: 3.0})
    assert max(choose(data, evaluate_candidates(data), most_cost=1.0, seed=0).columns) == 5
    cheap = choose(data, evaluate_candidates(data), most_cost=0.5, seed=0)
    assert max(cheap.columns) <= 2
    assert cheap.cost <= 0.5
    with pytest.raises(LadmError, match=r"^no layer ends within 0\.1 of a forward pass; allow more with --max-cost$"):
        choose(data, evaluate_candidates(data), most_cost=0.1, seed=0)


def test_the_judging_half_does_not_influence_the_choice() -> None:
    """Labels of the first half alone decide; those of the second half change the verdict and not the choice."""
    data = simulated(100, {2: 2.0})
    swapped = data.cds[WITH_SIGMA].copy()
    second = data.halves == JUDGED_ON
    swapped[second] = np.random.default_rng(1).permutation(swapped[second])
    other = dataclasses.replace(data, cds={WITH_SIGMA: swapped})
    a, b = (choose(each, evaluate_candidates(each), most_cost=1.0, seed=0) for each in (data, other))
    assert a == b
    assert judge(data, a, PASTED, half=JUDGED_ON, seed=0).low > 0.8
    noise = judge(other, a, PASTED, half=JUDGED_ON, seed=0)
    assert noise.low < 0.5 < noise.high


def test_intervals_cover_the_truth() -> None:
    """AUC of two unit normals a distance of 1 apart is 0.760; 95 % intervals hold it about 95 times of 100."""
    truth, hits = 0.7602, 0
    one = Candidate(columns=(0,), how="mean", weights=None, cost=1.0)
    for seed in range(100):
        data = simulated(60, {0: 1.0}, layers=1, seed=seed)
        found = judge(data, one, ("4 pieces",), half=None, seed=seed)
        hits += found.low <= truth <= found.high
    assert 88 <= hits <= 99


def test_a_perfect_separation_of_few_rows_is_not_certain() -> None:
    data = simulated(12, {0: 500.0}, layers=1)
    one = Candidate(columns=(0,), how="mean", weights=None, cost=1.0)
    found = judge(data, one, PASTED, half=None, seed=0)
    assert (found.value, found.low, found.high) == (1.0, 0.75, 1.0)


def test_a_paired_interval_is_narrower_than_two_separate_ones() -> None:
    data = simulated(100, {1: 1.0, 2: 1.0})
    both = Candidate(columns=(1, 2), how="geometric", weights=None, cost=1.0)
    one = Candidate(columns=(1,), how="mean", weights=None, cost=1.0)
    found = gain(data, both, one, PASTED, half=None, seed=0)
    a, b = (judge(data, each, PASTED, half=None, seed=0) for each in (both, one))
    assert found.value == pytest.approx(a.value - b.value)
    assert found.high - found.low < (a.high - a.low) + (b.high - b.low)
    assert gain(data, one, one, PASTED, half=None, seed=0).high == 0


def test_single_heads_are_found_and_named() -> None:
    flat = simulated(200, {7: 2.0}, layers=12)
    data = dataclasses.replace(
        flat, cds={WITH_SIGMA: flat.cds[WITH_SIGMA][:, ::3]}, by_head=flat.cds, layers=(0, 1, 2, 3), num_layers=4,
        num_heads=3,
    )  # fmt: skip
    found = analyse(data, objective="auc", max_cost=1.0, seed=0)
    assert 7 in found.chosen.columns
    reduction = found.chosen.reduction(data)
    assert (2, 1) in (reduction.heads or ())
    assert found.layers[2].name == "2 head 1"
    assert choose(data, evaluate_candidates(data), most_cost=0.75, seed=0).cost <= 0.75
    assert CHOSEN_ON != JUDGED_ON


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    """36 documents of 256 tokens in two domains, and one that is longer."""
    from datasets import Dataset

    draw = np.random.default_rng(0)
    ids = [np.resize(draw.integers(0, 500, size=40 + k), 256 + 100 * (k == 3)).tolist() for k in range(40)]
    meta = [{"pile_set_name": "lists" if k >= 36 else "books"} for k in range(40)]
    folder = tmp_path_factory.mktemp("calibration") / "rows"
    Dataset.from_dict({"input_ids": ids, "meta": meta, "index": list(range(40))}).save_to_disk(str(folder))
    return str(folder)


COMMON = ("--model", str(GOLDEN), "--dtype", "float32", "--span-tokens", "8")


@pytest.mark.parametrize("heads", [False, True])
def test_calibrate_then_score_with_the_profile(ladm: Run, rows: str, tmp_path: Path, heads: bool) -> None:
    profile = tmp_path / "p.yaml"
    command = ("calibrate", *COMMON, "--rows", rows, "--output", profile, "--exclude-domain", "lists")
    command += ("--heads",) if heads else ()
    result = ladm(*command)
    assert result.exit_code == 0, result.output
    assert "from 36 documents, stored in " in result.stderr
    assert "36 documents are few: the intervals will be wide; use at least 100" in result.stderr
    for words in ("cost of stopping there", "gain over the median", "AUC against", "recommended: the "):
        assert words in result.stdout
    kinds = Counter(line["meta"]["kind"] for line in read_lines(tmp_path / "p.calibration/run/sorted_by_score.jsonl"))
    assert kinds["intact"] == kinds["16 pieces"] == 36
    found = read_profile(profile)
    assert found.length_tokens == 256
    assert found.method.span_tokens == 8
    result = ladm("score", rows, *COMMON, "--profile", profile, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "run" / "run.json").read_text())["score"] == found.reduction.identity()
    before = profile.read_bytes()
    assert ladm(*command).stderr == f"ladm: {profile} exists already; give --output another name\n"
    profile.unlink()
    again = ladm(*command)
    assert again.exit_code == 0
    assert profile.read_bytes() == before


def test_error_messages_of_calibrate(ladm: Run, rows: str, tmp_path: Path) -> None:
    out = ("--output", tmp_path / "p.yaml")
    for arguments, code, message in (
        (("--rows", rows, *out, "--objective", "cost", "--max-cost", "1.5"), 2,
         "--max-cost must be above 0 and at most 1, not 1.5"),
        (("--rows", rows, *out, "--max-cost", "0.5"), 2, "--max-cost goes with --objective cost"),
        (("--rows", rows, *out, "--objective", "cost", "--max-cost", "0.1"), 2,
         "no layer ends within 0.1 of a forward pass; allow more with --max-cost"),
        (("--rows", rows, *out, "--seed", "-1"), 2, "--seed must be at least 0, not -1"),
        (("--rows", rows, *out, "--span-tokens", "64"), 2,
         "spans of 64 tokens leave none to score in 256 tokens; give a smaller --span-tokens or longer documents"),
        (("--rows", rows, "--output", tmp_path / "p.yaml", "--work", Path(rows).parent), 1,
         f"{Path(rows).parent} contains the rows {rows}; give another folder for the work files"),
        (("--rows", rows, *out, "--work", GOLDEN), 1,
         f"{GOLDEN} belongs to something else (it holds config.json); give an empty folder for the work files"),
        (("--rows", rows, *out, "--span-tokens", "0"), 2, "--span-tokens must be at least 1, not 0"),
        (("--rows", rows, *out, "--exclude-domain", "poems"), 2,
         f"--exclude-domain poems: {rows} has no row of that domain"),
        (("--rows", rows, *out, "--exclude-domain", "books"), 1,
         f"{rows}: 4 documents of 256 tokens, and at least 32 are needed"),
        (("--rows", rows, *out, "--documents", "8"), 1,
         f"{rows}: 8 documents of 256 tokens, and at least 32 are needed"),
        (("--rows", tmp_path / "no", *out), 1,
         f"no such data set: {tmp_path / 'no'} is neither a folder nor a Hub id such as org/name"),
    ):  # fmt: skip
        result = ladm("calibrate", "--model", GOLDEN, *arguments)
        assert (result.exit_code, result.stderr) == (code, f"ladm: {message}\n")
    assert not list(tmp_path.iterdir())


def test_a_stopped_calibration_resumes(ladm: Run, rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def command(name: str) -> tuple[str, ...]:
        return ("calibrate", *COMMON, "--rows", rows, "--output", str(tmp_path / name), "--batch-size", "4")

    assert ladm(*command("whole.yaml")).exit_code == 0
    advanced: list[int] = []

    def advance(_self: Any, *, rows: int, tokens: int) -> None:
        advanced.append(rows)
        if sum(advanced) > 60 and tokens:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ladm.progress_bars.ScoringBar.advance", advance)
        assert ladm(*command("stopped.yaml")).exit_code == 130
    assert not (tmp_path / "stopped.yaml").exists()
    safe = ladm("status", tmp_path / "stopped.calibration" / "run", "--json")
    assert 60 < json.loads(safe.stdout)["done"] < 120
    assert ladm(*command("stopped.yaml")).exit_code == 0
    assert (tmp_path / "stopped.yaml").read_bytes() == (tmp_path / "whole.yaml").read_bytes()


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model whose middle layer sees only a window."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    folder = str(tmp_path_factory.mktemp("windowed") / "model")
    config = Qwen2Config(
        vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, use_sliding_window=True, sliding_window=64,
        layer_types=["full_attention", "sliding_attention", "full_attention"],
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def test_layers_with_a_window_are_left_out(ladm: Run, rows: str, windowed: str, tmp_path: Path) -> None:
    common = ("--model", windowed, "--rows", rows, "--span-tokens", "8", "--dtype", "float32")
    result = ladm("calibrate", *common, "--output", tmp_path / "p.yaml")
    assert result.exit_code == 1
    assert "layers 1 of this qwen2 model see only a window" in result.stderr
    result = ladm("calibrate", *common, "--output", tmp_path / "p.yaml", "--layers", "0,2")
    assert result.exit_code == 0, result.output
    assert set(read_profile(tmp_path / "p.yaml").reduction.layers) <= {0, 2}
    result = ladm("check", *common, "--output", tmp_path / "check")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "check" / "run" / "run.json").read_text())["layers"] == [0, 2]


def test_a_profile_separates_new_documents_of_the_kind_it_was_calibrated_on(ladm: Run, tmp_path: Path) -> None:
    """From documents to AUC by the commands alone: repeated tunes, calibrated on some and judged on others.

    The golden model's weights are random, and yet attention finds a tune that repeats, which is enough.
    """
    from datasets import Dataset

    from ladm.calibration.contrast import INTACT, contrast_set
    from ladm.calibration.estimates import auc

    draw = np.random.default_rng(3)
    tunes = [np.resize(draw.integers(0, 500, size=24), 512) for _ in range(80)]
    Dataset.from_dict({"input_ids": tunes[:40], "index": list(range(40))}).save_to_disk(str(tmp_path / "known"))
    made = contrast_set(tunes[40:], np.zeros(40, int), span_tokens=8, seed=5)
    wanted = [row for row in made if row.kind in (INTACT, "8 pieces")]
    Dataset.from_dict(
        {"input_ids": [row.ids for row in wanted], "meta": [{"kind": row.kind} for row in wanted]}
    ).save_to_disk(str(tmp_path / "other"))
    profile = tmp_path / "p.yaml"
    assert ladm("calibrate", *COMMON, "--rows", tmp_path / "known", "--output", profile).exit_code == 0
    assert ladm("score", tmp_path / "other", *COMMON, "--profile", profile, "--output", tmp_path / "run").exit_code == 0
    lines = read_lines(tmp_path / "run" / "sorted_by_score.jsonl")
    scores = {kind: np.array([x["score"] for x in lines if x["meta"]["kind"] == kind]) for kind in (INTACT, "8 pieces")}
    found = yaml.safe_load(profile.read_text())["found"]["auc"]["8 pieces"]["profile"]
    value = auc(scores[INTACT], scores["8 pieces"])
    assert found[1] - 0.1 <= value <= found[2] + 0.1
