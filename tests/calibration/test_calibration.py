"""The contrast set, the choice of a score, and its intervals."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ladm.calibration.candidates import Candidate, choose, evaluate_candidates, robust_score
from ladm.calibration.contrast import (
    INTACT,
    KINDS,
    MADE_LIST,
    PASTED,
    PIECES,
    REAL_LIST,
    REPEATED,
    SAME_PACKAGE,
    SHUFFLED,
    ContrastRow,
    absent_kinds,
    contrast_set,
)
from ladm.calibration.contrast_rows import contrast_notes
from ladm.calibration.contrast_scores import CHOSEN_ON, JUDGED_ON, RELEASED, ROBUST, ContrastScores
from ladm.calibration.estimates import (
    Estimate,
    PairwiseWins,
    auc,
    estimate_auc,
    estimate_aucs,
    estimate_spearman,
    estimate_worst,
    estimate_worst_gain,
    wins,
)
from ladm.calibration.packages import Halves, split_by_package
from ladm.calibration.result import WORST, analyse, by_kind
from ladm.calibration.sample import DocumentSample
from ladm.calibration.signed_heads import fit_signed_heads, label_rows
from ladm.errors import LadmError
from ladm.selection.ranks import spearman
from support.packages import own_packages


def documents(count: int, tokens: int) -> list[Any]:
    """Document k holds k * 10^6 + position, so that every token shows where it is from."""
    return [k * 1_000_000 + np.arange(tokens) for k in range(count)]


@given(st.integers(32, 50), st.integers(64, 200), st.integers(0, 5))
@settings(max_examples=25)
def test_pasted_rows_hold_the_same_tokens_from_different_documents(count: int, tokens: int, seed: int) -> None:
    names = own_packages(count)
    halves = split_by_package(names, names, seed=seed)
    rows = contrast_set(documents(count, tokens), halves, span_tokens=4, seed=seed)
    assert all(len(row.ids) == tokens for row in rows)
    for half in (0, 1):
        members = set(np.flatnonzero(halves.of_documents == half))
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
                assert row.packages == tuple(names[k] for k in dict.fromkeys(sources.tolist()))


def test_packages_stay_in_one_half_and_are_mixed_or_not_as_the_kind_says() -> None:
    names = [f"package {k // 4}" for k in range(80)]
    halves = split_by_package(names, own_packages(80), seed=0, list_packages=["package 3", "other", "another"])
    rows = contrast_set(documents(80, 64), halves, span_tokens=4, seed=0, lists=documents(3, 64))
    half_of: dict[str, set[int]] = {}
    for row in rows:
        for package in row.packages:
            half_of.setdefault(package, set()).add(row.half)
    assert all(len(found) == 1 for found in half_of.values())
    assert {len(row.packages) for row in rows if row.kind in ("2 pieces", "4 pieces", "8 pieces")} == {2, 4, 8}
    same = [row for row in rows if row.kind == SAME_PACKAGE]
    assert len(same) == 80
    assert all(len(row.packages) == 1 and len(set(row.ids // 1_000_000)) == 4 for row in same)
    assert [row.packages for row in rows if row.kind == REAL_LIST] == [("package 3",), ("other",), ("another",)]
    assert not absent_kinds(rows)


def test_contents_of_degraded_rows() -> None:
    names = own_packages(32)
    halves = split_by_package(names, names, seed=0)
    rows = contrast_set(documents(32, 320), halves, span_tokens=16, seed=0)
    expected = dict.fromkeys((INTACT, *KINDS), 32)
    del expected[SAME_PACKAGE], expected[REAL_LIST]
    assert Counter(row.kind for row in rows) == expected
    assert absent_kinds(rows) == [
        "4 pieces, same package: no package has 4 documents in one half; see --package-key",
        "real list: give rows of them with --lists",
    ]
    for row in rows:
        own = row.document * 1_000_000
        if row.kind == SHUFFLED:
            assert np.array_equal(np.sort(row.ids), own + np.arange(320))
            assert (np.diff(row.ids) == 1).sum() >= 320 - 20
            assert not np.array_equal(row.ids, own + np.arange(320))
        elif row.kind in REPEATED:
            period = {"repeated T/16": 20, "repeated T/5": 64}[row.kind]
            assert np.array_equal(row.ids, np.resize(row.ids[:period], 320))
            assert len(set(row.ids)) == period
        elif row.kind == MADE_LIST:
            same = row.ids.reshape(-1, 5)
            fixed = (same == same[0]).all(axis=0)
            assert np.array_equal(row.ids[~np.tile(fixed, 64)], (own + np.arange(320))[~np.tile(fixed, 64)])


def test_a_first_token_that_all_documents_share_stays_in_front() -> None:
    names = own_packages(32)
    with_bos = [np.concatenate([[7], ids]) for ids in documents(32, 99)]
    for row in contrast_set(with_bos, split_by_package(names, names, seed=0), span_tokens=4, seed=0):
        assert row.ids[0] == 7
        assert (row.ids == 7).sum() <= 2  # the first document has a 7 of its own
        assert len(row.ids) == 100


def test_leaving_out_a_kind_changes_no_other_row() -> None:
    names = own_packages(32)
    halves = split_by_package(names, names, seed=0)
    every = contrast_set(documents(32, 64), halves, span_tokens=4, seed=1)
    few = contrast_set(documents(32, 64), halves, span_tokens=4, seed=1, kinds=("4 pieces", MADE_LIST))
    wanted = [row for row in every if row.kind in (INTACT, "4 pieces", MADE_LIST)]
    assert [row.kind for row in few] == [row.kind for row in wanted]
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(few, wanted, strict=True))


def test_halves_keep_parts_of_a_document_together() -> None:
    groups = [f"book {k // 3}" for k in range(60)]
    halves = split_by_package(["shop"] * 60, groups, seed=1)
    assert not halves.by_package
    assert sorted(Counter(halves.of_documents.tolist()).values()) == [30, 30]
    assert len(set(zip(groups, halves.of_documents.tolist(), strict=True))) == 20
    assert halves.clusters(groups) == groups
    assert not np.array_equal(halves.of_documents, split_by_package(["shop"] * 60, groups, seed=2).of_documents)


def notes(packages: list[str], halves: Halves, rows: list[ContrastRow], *, by_halves: bool = True) -> list[str]:
    ids = documents(len(packages), 4)
    sample = DocumentSample(ids=ids, groups=own_packages(len(packages)), packages=packages, length_tokens=4)
    return list(contrast_notes(sample, halves, rows, by_halves=by_halves))[1:]


def test_a_package_as_large_as_all_others_is_not_held_out() -> None:
    """A half of it alone had nothing to hold out: signed heads were fitted to no rows, and were NaN in silence."""
    packages = ["large"] * 40 + [f"site {k % 10}" for k in range(20)]
    halves = split_by_package(packages, own_packages(60), seed=0)
    assert not halves.by_package
    assert [len(set(np.array(halves.clusters(own_packages(60)))[halves.of_documents == k])) for k in (0, 1)] == [30, 30]
    rows = contrast_set(documents(60, 64), halves, span_tokens=4, seed=0)
    assert notes(packages, halves, rows)[0] == (
        "warning   40 of 60 documents are from one package, too many to hold it out, so single documents are held "
        "out; see --package-key"
    )
    # Three packages beside a large one are enough.
    assert split_by_package(["large"] * 8 + packages[40:], own_packages(28), seed=0).by_package


def test_lists_of_one_package_are_held_out_one_by_one() -> None:
    """All were in one half: they were scored, and missing in every table without a word."""
    packages = [f"site {k % 10}" for k in range(40)]
    halves = split_by_package(packages, own_packages(40), seed=0, list_packages=["changelogs"] * 12)
    assert halves.by_package
    assert Counter(halves.of_lists.tolist()) == {0: 6, 1: 6}
    assert len(set(halves.clusters(own_packages(40))[40:])) == 12
    rows = contrast_set(documents(40, 64), halves, span_tokens=4, seed=0, lists=documents(12, 64))
    assert {row.half for row in rows if row.kind == REAL_LIST} == {0, 1}
    assert notes(packages, halves, rows)[0] == (
        "warning   all lists are from one package, so lists are held out one by one; see --package-key"
    )
    # A package that has documents too stays whole, and then only its half has lists.
    halves = split_by_package(packages, own_packages(40), seed=0, list_packages=["site 3"] * 12)
    assert len(set(halves.of_lists.tolist())) == 1
    rows = contrast_set(documents(40, 64), halves, span_tokens=4, seed=0, lists=documents(12, 64))
    line = "absent    real list: all are in one half; give more with --lists, or see --package-key"
    assert line in notes(packages, halves, rows)
    # A check compares no halves: what one of them has counts.
    assert line not in notes(packages, halves, rows, by_halves=False)


def test_a_kind_of_one_half_is_named_and_counts_where_both_halves_judge() -> None:
    packages = ["large"] * 5 + [f"site {k}" for k in range(35)]
    halves = split_by_package(packages, own_packages(40), seed=0)
    rows = contrast_set(documents(40, 64), halves, span_tokens=4, seed=0)
    assert notes(packages, halves, rows) == [
        "absent    4 pieces, same package: no package of one of the halves has 4 documents; see --package-key",
        "absent    real list: give rows of them with --lists",
    ]
    kinds = np.array([row.kind for row in rows])
    scores = ContrastScores(
        rows=rows, kinds=kinds, halves=np.array([row.half for row in rows]), clusters=np.arange(len(rows)),
        cds={RELEASED: np.random.default_rng(0).random((len(rows), 2))}, layers=(0, 1), num_layers=2,
    )  # fmt: skip
    values = {"released": scores.cds[RELEASED][:, 0]}
    assert SAME_PACKAGE not in by_kind(scores, values, half=JUDGED_ON, seed=0)
    assert SAME_PACKAGE in by_kind(scores, values, half=None, seed=0)


def test_a_half_too_small_to_paste() -> None:
    names = own_packages(31)
    with pytest.raises(LadmError, match="^31 documents make halves of 16 and 15; each half needs 16 different"):
        contrast_set(documents(31, 64), split_by_package(names, names, seed=0), span_tokens=4, seed=0)


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
        clusters=np.tile(np.arange(documents), 1 + len(PASTED)), cds={RELEASED: np.concatenate(cds)},
        layers=tuple(range(layers)), num_layers=layers,
    )  # fmt: skip


def by_layers(data: ContrastScores, **more: Any) -> Any:
    return analyse(data, **({"search": "layers", "objective": "auc", "max_cost": 1.0, "seed": 0} | more))


def chosen(data: ContrastScores, *, most_cost: float = 1.0) -> Candidate:
    return choose(data, evaluate_candidates(data, search="layers"), most_cost=most_cost, seed=0)


def test_the_layers_that_carry_the_signal_are_found() -> None:
    data = simulated(200, {2: 1.5, 3: 1.5})
    found = by_layers(data)
    assert set(found.chosen.columns) >= {2, 3}
    assert 0 not in found.chosen.columns or found.chosen.how != "mean" or found.chosen.weights is not None
    assert found.gains["released"].low > 0.1
    assert found.gains["median"].low > 0
    assert found.recommended is found.chosen
    assert found.layers[3].forms[RELEASED].low > 0.75 > 0.6 > found.layers[0].forms[RELEASED].high


def test_the_form_that_separates_better_is_chosen() -> None:
    weak, strong = simulated(200, {2: 0.3}), simulated(200, {2: 2.0})
    both = dataclasses.replace(weak, cds=weak.cds | {ROBUST: strong.cds[RELEASED]})
    found = by_layers(both)
    assert found.chosen.form == ROBUST
    assert ", without sigma, of value-weighted layer" in found.names["profile"]
    assert found.chosen.reduction(both).focus == "value"
    assert found.layers[2].forms[ROBUST].low > found.layers[2].forms[RELEASED].high


def test_noise_gives_no_significant_gain_and_an_uncalibrated_score_is_recommended() -> None:
    noise = simulated(80, {})
    noise = dataclasses.replace(noise, cds=noise.cds | {ROBUST: simulated(80, {}, seed=9).cds[RELEASED]})
    found = by_layers(noise, seed=3)
    assert found.gains["robust"].low <= 0
    assert found.recommended == robust_score(noise)
    assert found.summary()["recommended"] == "mean, without sigma, of value-weighted layers 3-5"


def test_the_worst_kind_decides() -> None:
    """Layer 1 is excellent on three kinds and blind to the fourth; layer 2 is fair on all of them."""
    data = simulated(200, {1: 4.0, 2: 1.0})
    cds = data.cds[RELEASED].copy()
    blind = data.kinds == PASTED[-1]
    cds[blind, 1] *= np.exp(4.0)
    data = dataclasses.replace(data, cds={RELEASED: cds})
    found = by_layers(data)
    assert 2 in found.chosen.columns
    assert found.kinds[WORST]["profile"].value == min(found.kinds[kind]["profile"].value for kind in PASTED)
    assert found.kinds[WORST]["profile"].value > 0.7 > found.kinds[WORST]["released"].value


def test_max_cost_bounds_the_choice_and_may_be_too_small() -> None:
    data = simulated(100, {1: 0.8, 5: 3.0})
    assert max(chosen(data).columns) == 5
    cheap = chosen(data, most_cost=0.5)
    assert max(cheap.columns) <= 2
    assert cheap.cost <= 0.5
    with pytest.raises(LadmError, match=r"^no layer can be reached within 0\.1 of a forward pass; raise --max-cost$"):
        chosen(data, most_cost=0.1)


def judge(data: ContrastScores, candidate: Candidate, kinds: tuple[str, ...], half: int | None, seed: int = 0) -> Any:
    return estimate_auc(data.wins(candidate.values(data), kinds, half), seed=seed)


def test_the_judging_half_does_not_influence_the_choice() -> None:
    """Labels of the first half alone decide; those of the second half change the verdict and not the choice."""
    data = simulated(100, {2: 2.0})
    swapped = data.cds[RELEASED].copy()
    second = data.halves == JUDGED_ON
    swapped[second] = np.random.default_rng(1).permutation(swapped[second])
    other = dataclasses.replace(data, cds={RELEASED: swapped})
    a, b = (chosen(each) for each in (data, other))
    assert a == b
    assert judge(data, a, PASTED, JUDGED_ON).low > 0.8
    noise = judge(other, a, PASTED, JUDGED_ON)
    assert noise.low < 0.5 < noise.high


def test_intervals_cover_the_truth() -> None:
    """AUC of two unit normals a distance of 1 apart is 0.760; 95 % intervals hold it about 95 times of 100."""
    truth, hits = 0.7602, 0
    one = Candidate(columns=(0,), how="mean", weights=None, cost=1.0)
    for seed in range(100):
        data = simulated(60, {0: 1.0}, layers=1, seed=seed)
        found = judge(data, one, ("4 pieces",), None, seed=seed)
        hits += found.low <= truth <= found.high
    assert 88 <= hits <= 99


def test_intervals_by_package_are_wider_where_documents_of_a_package_are_alike() -> None:
    data = simulated(96, {0: 1.0}, layers=1)
    package = np.tile(np.arange(96) // 8, 1 + len(PASTED))
    effect = np.exp(2 * np.random.default_rng(5).normal(size=12))[package]
    alike = dataclasses.replace(data, cds={RELEASED: data.cds[RELEASED] * effect[:, None]})
    one = Candidate(columns=(0,), how="mean", weights=None, cost=1.0)
    narrow = judge(alike, one, PASTED, None)
    wide = judge(dataclasses.replace(alike, clusters=package), one, PASTED, None)
    assert wide.value == narrow.value
    assert wide.high - wide.low > 0.9 * (narrow.high - narrow.low)


def test_a_perfect_separation_of_few_rows_is_not_certain() -> None:
    data = simulated(12, {0: 500.0}, layers=1)
    one = Candidate(columns=(0,), how="mean", weights=None, cost=1.0)
    found = judge(data, one, PASTED, None)
    assert (found.value, found.low, found.high) == (1.0, 0.75, 1.0)


def test_few_clusters_on_one_side_make_a_perfect_separation_uncertain() -> None:
    """Eight bad rows of 4 packages against documents of 60: 1 - 3 / 4, alone, with another kind, and ranked."""
    intact, bad = np.arange(60), np.repeat(np.arange(4), 2)
    high, low = np.ones(60), np.zeros(8)
    few = PairwiseWins(wins_AB=wins(high, low), intact_A=intact, rows_B=bad)
    many = PairwiseWins(wins_AB=wins(high, np.zeros(60)), intact_A=intact, rows_B=intact)
    lists = PairwiseWins(wins_AB=wins(high, np.zeros(60)), intact_A=intact, rows_B=intact + 60)
    expected = Estimate(1.0, 0.25, 1.0)
    assert estimate_auc([few], seed=0) == estimate_worst([many, few], seed=0) == expected
    assert estimate_aucs([(high, low)], intact, bad, seed=0) == [expected]
    # Rows of other packages do not make the documents more: 1 - 3 / 60 as without them.
    assert estimate_auc([many], seed=0) == estimate_worst([many, lists], seed=0) == Estimate(1.0, 0.95, 1.0)


def test_a_paired_interval_is_narrower_than_two_separate_ones() -> None:
    data = simulated(100, {1: 1.0, 2: 1.0})
    both = Candidate(columns=(1, 2), how="geometric", weights=None, cost=1.0)
    one = Candidate(columns=(1,), how="mean", weights=None, cost=1.0)
    compared = [data.wins(each.values(data), PASTED, None) for each in (both, one)]
    found = estimate_worst_gain(*compared, seed=0)
    a, b = (estimate_worst(each, seed=0) for each in compared)
    assert found.value == pytest.approx(a.value - b.value)
    assert found.high - found.low < (a.high - a.low) + (b.high - b.low)
    assert estimate_worst_gain(compared[1], compared[1], seed=0).high == 0


def test_rank_correlation_with_ties() -> None:
    assert spearman(np.array([1.0, 2.0, 3.0, 4.0]), np.array([10.0, 20.0, 30.0, 25.0])) == pytest.approx(0.8)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
    assert spearman(np.array([1.0, 2.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(4.5 / 22.5**0.5)
    assert estimate_spearman(np.ones(4), np.arange(4.0), np.arange(4), seed=0) == Estimate(0.0, 0.0, 0.0)
    draw = np.random.default_rng(0)
    a = draw.normal(size=80)
    found = estimate_spearman(a, a + draw.normal(size=80), np.arange(80) // 2, seed=0)
    assert 0.4 < found.low < found.value < found.high < 0.9


def test_single_heads_are_found_and_named() -> None:
    flat = simulated(200, {7: 2.0}, layers=12)
    data = dataclasses.replace(
        flat, cds={RELEASED: flat.cds[RELEASED][:, ::3]}, by_head=flat.cds, layers=(0, 1, 2, 3), num_layers=4,
        num_heads=3,
    )  # fmt: skip
    found = by_layers(data, search="heads")
    assert 7 in found.chosen.columns
    assert (2, 1) in (found.chosen.reduction(data).heads or ())
    results = evaluate_candidates(data, search="heads")
    assert choose(data, results, most_cost=0.75, seed=0).cost <= 0.75
    assert CHOSEN_ON != JUDGED_ON


def copying(documents: int, *, seed: int = 0) -> ContrastScores:
    """Head 4 is high for whatever is not pasted, head 7 for what is repeated: no mean of heads orders both."""
    draw = np.random.default_rng(seed)
    kinds, logs = [], []
    for kind in (INTACT, "4 pieces", "repeated T/5"):
        mine = draw.normal(size=(documents, 12))
        mine[:, 4] += {INTACT: 3.0, "4 pieces": 0.0, "repeated T/5": 6.0}[kind]
        mine[:, 7] += {INTACT: 0.0, "4 pieces": 0.0, "repeated T/5": 8.0}[kind]
        kinds += [kind] * documents
        logs.append(mine)
    by_head = np.exp(np.concatenate(logs))
    return ContrastScores(
        kinds=np.array(kinds), halves=np.tile(np.arange(documents) % 2, 3), clusters=np.tile(np.arange(documents), 3),
        cds={RELEASED: by_head[:, ::3], ROBUST: by_head[:, ::3]}, by_head={RELEASED: by_head}, layers=(0, 1, 2, 3),
        num_layers=4, num_heads=3,
    )  # fmt: skip


def test_signed_heads_order_kinds_that_no_mean_can_order() -> None:
    data = copying(120)
    found = by_layers(data, search="signed")
    reduction = found.chosen.reduction(data)
    assert reduction.how == "signed"
    weight_of = dict(zip(reduction.heads or (), reduction.weights or (), strict=True))
    assert weight_of[1, 1] > 0 > weight_of[2, 1]
    assert found.kinds[WORST]["profile"].low > 0.8
    assert found.kinds[WORST]["released"].high < 0.6
    assert found.recommended is found.chosen
    cheap = by_layers(data, search="signed", objective="cost", max_cost=0.5)
    assert cheap.chosen.cost <= 0.5
    # Head 7 is in the third layer, and without it nothing orders the repeated rows.
    assert cheap.kinds[WORST]["profile"].value < found.kinds[WORST]["profile"].value


def test_the_ridge_is_chosen_on_clusters_that_were_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more heads than rows any labels can be fitted, and only held-out rows show that there is nothing to find."""
    draw = np.random.default_rng(0)
    kinds = np.array([INTACT, "shuffled"] * 20)
    noise = label_rows(np.exp(draw.normal(size=(40, 80))), kinds, np.arange(40))
    fit = fit_signed_heads(noise, seed=0)
    assert fit.worst_auc < 0.75
    # A column that never changes has no weight rather than an infinite one.
    constant = label_rows(np.ones((40, 3)), kinds, np.arange(40))
    assert not fit_signed_heads(constant, seed=0).weights_P.any()
    monkeypatch.setattr("ladm.calibration.signed_heads.RIDGES", (0.003,))
    fitted = noise.logs_BP @ fit_signed_heads(noise, seed=0).weights_P
    assert auc(fitted[kinds == INTACT], fitted[kinds != INTACT]) == 1.0
