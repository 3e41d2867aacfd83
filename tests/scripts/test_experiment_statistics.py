"""The statistics of the experiment: p, Holm, and how often the intervals of two arms contain the truth."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from support.paths import ROOT

SCRIPTS = ROOT / "scripts" / "experiment"
sys.path.append(str(SCRIPTS))
sys.path.append(str(SCRIPTS / "pretraining"))

import outcomes  # noqa: E402
from pretraining import coverage, differences  # noqa: E402


@pytest.mark.parametrize(("t", "freedom", "p"), [(2.2281, 10, 0.05), (12.706, 1, 0.05), (1.3722, 10, 0.2)])
def test_p_equals_published_tables(t: float, freedom: float, p: float) -> None:
    assert differences.p_value(t, freedom) == pytest.approx(p, rel=1e-3)


def test_holm_multiplies_by_what_is_left_and_never_falls() -> None:
    found: list[dict[str, Any]] = [{"p": 0.04}, {"p": 0.01}, {"p": 0.03}, {"p": 0.5}]
    outcomes.holm(found, family=4)
    assert [each["p_holm"] for each in found] == pytest.approx([0.09, 0.04, 0.09, 0.5])


@pytest.mark.parametrize(
    ("of_seeds", "times"),
    [(0.02, 80), pytest.param(0.0, 300, marks=pytest.mark.slow), pytest.param(0.02, 300, marks=pytest.mark.slow)],
)
def test_intervals_contain_the_true_difference_of_two_arms(of_seeds: float, times: int) -> None:
    """Two arms of four seeds and 40 packages of 2 documents; documents differ between arms by 0.05."""
    draw = np.random.default_rng(1)
    weights = draw.integers(20, 80, 80).astype(float)
    clusters = np.repeat(np.arange(40), 2)
    inside, widths = 0, []
    for _ in range(times):
        effect = {"random": np.zeros(80), "guarded": -0.03 + 0.05 * np.repeat(draw.normal(size=40), 2)}
        sums = {
            (arm, 0, seed): weights * (3 + effect[arm] + of_seeds * draw.normal() + 0.001 * draw.normal(size=80))
            for arm in effect
            for seed in range(4)
        }
        found = differences.compare(
            differences.Outcome(sums=sums, weights=weights, clusters=clusters), "guarded", "random"
        )
        assert found is not None
        low, high = found["interval"]
        inside += low <= -0.03 <= high
        widths.append(high - low)
    assert inside / times >= 0.91
    # Not by being wide: the difference itself varies by the documents' 0.05 over 40 packages and the seeds' over 4.
    spread = (0.05**2 / 40 + 2 * of_seeds**2 / 4) ** 0.5
    assert np.median(widths) < 2.2 * 2 * 1.96 * spread


def test_the_variance_of_selections_is_apart_from_that_of_seeds() -> None:
    draw = np.random.default_rng(2)
    sums = {}
    for selection in range(200):
        moved = 0.03 * draw.normal()
        for seed in range(2):
            sums["random", selection, seed] = np.full(4, 3 + moved + 0.01 * draw.normal())
    outcome = differences.Outcome(sums=sums, weights=np.ones(4), clusters=np.arange(4))
    of_seeds, freedom = differences.seed_variance(outcome)
    assert freedom == 200
    assert of_seeds**0.5 == pytest.approx(0.01, rel=0.15)
    assert differences.draw_variance(outcome, of_seeds) ** 0.5 == pytest.approx(0.03, rel=0.15)


def test_freedom_is_that_of_seeds_selections_and_documents_together() -> None:
    """Two selections by two seeds against two with a seed each, on four documents; worked out by hand."""
    losses = {("random", 0, 0): 3.00, ("random", 0, 1): 3.02, ("random", 1, 1): 3.10, ("random", 1, 0): 3.12}
    sums = {key: np.full(4, value) for key, value in losses.items()}
    sums |= {("random x2", k, k): 2.9 + 0.1 * k + np.array([0.2, -0.2, 0.2, -0.2]) for k in range(2)}
    outcome = differences.Outcome(sums=sums, weights=np.ones(4), clusters=np.arange(4))
    found = differences.compare(outcome, "random x2", "random")
    assert found is not None
    # Seeds: 4 deviations of 0.01, over 2. Selections: means of 3.01 and 3.11, less half of that. Documents: 4 of 0.05.
    assert found["variances"] == pytest.approx(
        {"seeds": 0.0002 * 0.75, "selections": (0.005 - 0.0001) * 1.0, "documents": 4 * 0.05**2 * 4 / 3}
    )
    assert found["freedoms"] == {"seeds": 2, "selections": 1, "documents": 3}
    assert found["difference"] == pytest.approx(-0.11)
    assert found["error"] == pytest.approx(0.018383333**0.5)
    assert found["freedom"] == pytest.approx(0.018383333**2 / (0.00015**2 / 2 + 0.0049**2 / 1 + 0.013333333**2 / 3))
    assert found["freedom"] == pytest.approx(4.058, abs=0.001)
    # Between the published 2.776 and 2.571 of 4 and 5 degrees of freedom.
    assert 2.571 < (found["interval"][1] + 0.11) / found["error"] < 2.776
    assert found["p"] == pytest.approx(differences.p_value(0.11 / 0.018383333**0.5, 4.058), abs=1e-4)


def test_a_part_without_variance_has_no_say_in_the_freedom() -> None:
    assert differences.satterthwaite([(0.0, 0), (0.002, 7)]) == pytest.approx(7)
    assert differences.satterthwaite([(0.0001, 1), (0.0003, 30)]) == pytest.approx(12.3, abs=0.05)


def test_intervals_are_as_wide_as_the_page_says() -> None:
    shares = coverage.covered(*coverage.CASES["as estimated for D"], count=20_000)
    assert shares == pytest.approx({"Satterthwaite": 0.93, "of the seeds": 0.998, "normal": 0.91}, abs=0.01)
    shares = coverage.covered(*coverage.CASES["selections dominate"], count=20_000)
    assert shares["Satterthwaite"] == pytest.approx(0.87, abs=0.01)
