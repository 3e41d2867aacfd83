"""The oracle against the released code's numbers, an independent transcription, and what must hold of it."""

from __future__ import annotations

import math
import statistics
import tracemalloc
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor

from ladm.errors import LadmError
from ladm.method.focus import aggregated_focus, contextual_dependency, pairwise_focus
from ladm.method.grid import Grid, Method, span_grid


def random_qk(H: int, G: int, T: int, D: int, *, seed: int, sharp: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return sharp * torch.randn(H, T, D, generator=generator), torch.randn(G, T, D, generator=generator)


def cds(q: Tensor, k: Tensor, grid: Grid, *, ablation: str = "none", scaling: float = 0.3) -> float:
    pfs = pairwise_focus(q, k, scaling=scaling, grid=grid)
    afs = aggregated_focus(pfs, grid, ablation=ablation)
    return contextual_dependency(afs, grid, ablation=ablation).item()


def grid_of(T: int, **changed: Any) -> Grid:
    return span_grid(
        T, **({"variant": "released", "l": 8, "m": 1, "n": 4, "n0": None, "d_afs": 4, "d_cds": 4} | changed)
    )


def transcription(q: Tensor, k: Tensor, scaling: float, ablation: str, **s: Any) -> float:
    """Equations 2-5 once more, from the method's text, one scalar at a time in float64."""
    H, T, _ = q.shape
    G = k.shape[0]
    l, paper = s["l"], s["variant"] == "paper"
    N = T // l
    first = [T - (N - span) * l for span in range(N)]

    def focus(i: int, j: int) -> float:
        total = 0.0
        for h in range(H):
            for row in range(first[j], first[j] + l):
                seen = row + 1 if paper else first[j]
                logits = [scaling * float(q[h, row].double() @ k[h // (H // G), t].double()) for t in range(seen)]
                norm = sum(math.exp(x) for x in logits)
                total += sum(math.exp(logits[t]) for t in range(first[i], first[i] + l)) / norm
        return total / H

    parts = []
    j = (s["n0"] or 0) if paper else N - 1
    while j < N and j >= 0:
        if not paper and (j < s["n0"] if s["n0"] is not None else first[j] <= (s["m"] + 4 * s["d_afs"]) * l):
            break
        earlier = []
        i = s["m"] if paper else j - s["n"]
        while i <= j - s["n"] - 1 if paper else i >= s["m"]:
            earlier.append(i)
            i += s["d_afs"] if paper else -s["d_afs"]
        if len(earlier) >= (1 if ablation == "no-std" else 2):
            scores = [focus(i, j) for i in earlier]
            lengths = [1.0 if ablation == "no-length" else (j - i) * (1 if paper else l / T) for i in earlier]
            sigma = 1.0 if ablation == "no-std" else statistics.stdev(scores)
            where = 1.0 if ablation == "no-length" else (j / N if paper else first[j] / T)
            parts.append(where * sigma * sum(x * y for x, y in zip(scores, lengths, strict=True)))
        j += s["d_cds"] if paper else -s["d_cds"]
    return sum(parts) if paper else sum(parts) / len(parts)


@pytest.mark.parametrize("number", range(12))
def test_golden_numbers_of_the_released_code(golden: dict[str, Any], qk_of: Any, number: int) -> None:
    case = golden["cases"][number]
    T, ablation = case["length"], case["ablation"]
    grid = grid_of(
        T, l=case["span_tokens"], n=case["d_afs"], d_afs=case["d_afs"], d_cds=case["d_cds"], ablation=ablation
    )
    for document in range(4):
        ours = [cds(q, k, grid, ablation=ablation, scaling=s) for q, k, s in qk_of(document, T)]
        assert ours == pytest.approx(case["cds_per_layer"][document], rel=1e-5)
        assert statistics.fmean(ours) == pytest.approx(case["cds"][document], rel=1e-5)


@pytest.fixture(scope="session")
def qk_of(golden: dict[str, Any], golden_observer: Any) -> Any:
    """(document, T) -> q, k, scaling of each layer of the golden model, computed once."""
    known: dict[tuple[int, int], list[tuple[Tensor, Tensor, float]]] = {}

    def look_up(document: int, T: int) -> list[tuple[Tensor, Tensor, float]]:
        if (document, T) not in known:
            views: list[tuple[Tensor, Tensor, float]] = []
            ids = torch.tensor([golden["input_ids"][document][:T]])
            golden_observer.observe(ids, lambda v: views.append((v.q_BHTD[0], v.k_BGTD[0], v.scaling)))
            known[document, T] = views
        return known[document, T]

    return look_up


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize(
    ("changed", "ablation"),
    [
        # The many spans of the third take long.
        pytest.param(changed, ablation, marks=[pytest.mark.slow] if k == 2 and ablation != "none" else [])
        for k, changed in enumerate(
            (
                {"n0": 5, "n": 1},
                {"n0": 5, "n": 3, "m": 0, "d_afs": 2, "d_cds": 3},
                {"n0": 4, "n": 2, "m": 2, "d_afs": 1, "d_cds": 1, "l": 3},
                {"n0": 2, "n": 1, "m": 1, "d_afs": 3, "d_cds": 2, "l": 5},
                {"d_afs": 1, "n": 2, "l": 3, "m": 2, "d_cds": 5},
            )
        )
        for ablation in ("none", "no-std", "no-length")
    ],
)
def test_agrees_with_an_independent_transcription(variant: str, ablation: str, changed: dict[str, Any]) -> None:
    settings = {"variant": variant, "l": 4, "m": 1, "n": 4, "n0": None, "d_afs": 4, "d_cds": 4} | changed
    q, k = random_qk(4, 2, 49, 8, seed=1)
    ours = cds(q, k, span_grid(49, **settings, ablation=ablation), ablation=ablation)
    assert ours == pytest.approx(transcription(q, k, 0.3, ablation, **settings), rel=1e-5)


def test_the_grid_of_the_paper_and_of_the_released_code() -> None:
    released = span_grid(32768, variant="released", l=128, m=1, n=4, n0=None, d_afs=4, d_cds=4)
    assert released.J == tuple(range(19, 256, 4))
    assert sum(map(len, released.I)) == 2010
    assert released.I[0] == range(3, 16, 4)
    paper = span_grid(32768, variant="paper", l=128, m=1, n=4, n0=16, d_afs=4, d_cds=4)
    assert paper.J == tuple(range(16, 253, 4))
    assert paper.I[0] == range(1, 10, 4)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_a_grid_does_not_hold_its_pairs_one_by_one(variant: Any) -> None:
    """`ladm score` makes one for each length of rows before it starts; a long row among short ones has many pairs."""
    tracemalloc.start()
    try:
        grid = span_grid(3000, variant=variant, l=1, m=1, n=1, n0=1, d_afs=1, d_cds=1)
        most_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(map(len, grid.I)) > 4_000_000
    assert most_bytes < 4_000_000


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        # With n = 0 span j would be one of its own earlier spans, and PFS(j, j) would count tokens after the query.
        ({"n": 0}, "n must be at least 1 in the released variant, whose nearest span is j-n"),
        ({"n": -1}, "n must be a whole number of at least 0, not -1"),
        ({"d_afs": 0}, "d_afs must be a whole number of at least 1, not 0"),
        ({"variant": "Paper"}, "no variant 'Paper'; choose from released, paper"),
    ],
)
def test_no_grid_of_settings_that_are_wrong(changed: dict[str, Any], message: str) -> None:
    values = Method().as_dict() | changed
    for make in (lambda: grid_of(400, **changed), lambda: Method(**values), lambda: Method.from_dict(values)):
        with pytest.raises(LadmError) as caught:
            make()
        assert str(caught.value) == message


def test_every_earlier_span_lies_before_its_scored_span() -> None:
    for variant, n in (("released", 1), ("paper", 0)):
        grid = grid_of(400, variant=variant, n=n, n0=2, d_afs=1, d_cds=1)
        assert all(spans[-1] == j - 1 for j, spans in zip(grid.J, grid.I, strict=True))


def test_the_first_scored_span_lies_beyond_the_released_bound() -> None:
    assert grid_of(8 * 18, d_cds=1).J == ()
    assert grid_of(8 * 19, d_cds=1).J == (18,)
    assert grid_of(8 * 18 + 1, d_cds=1).J == (17,)


def test_a_span_with_one_earlier_span_is_left_out_unless_sigma_is_dropped() -> None:
    assert grid_of(8 * 9, n0=1, m=1, d_cds=1).J == ()
    assert grid_of(8 * 9, n0=1, m=1, d_cds=1, ablation="no-std").J == (5, 6, 7, 8)
    assert grid_of(8 * 10, n0=1, m=1, d_cds=1).J == (9,)


@given(
    T=st.integers(20, 120),
    l=st.integers(1, 9),
    seed=st.integers(0, 9),
    heads=st.sampled_from([(4, 4), (4, 2), (3, 1)]),
)
@hypothesis_settings(max_examples=60)
def test_the_released_focus_of_a_span_on_everything_before_it_sums_to_l(
    T: int,
    l: int,
    seed: int,
    heads: tuple[int, int],
) -> None:
    q, k = random_qk(*heads, T, 8, seed=seed)
    grid = grid_of(T, l=l, n=1, d_afs=1, d_cds=1, n0=1)
    front = T % l
    pfs = pairwise_focus(q, k, scaling=0.5, grid=grid)
    for row, j in enumerate(grid.J):
        tokens = grid.tokens(j)
        k_heads = k.repeat_interleave(heads[0] // heads[1], 0)
        weights = (0.5 * q[:, tokens] @ k_heads[:, : tokens.start].mT).softmax(-1)
        in_front = weights[:, :, :front].sum((1, 2)).mean().item()
        assert pfs[row].sum().item() + in_front == pytest.approx(l, rel=1e-5)


@given(order=st.permutations(range(4)), variant=st.sampled_from(["paper", "released"]))
@hypothesis_settings(max_examples=30)
def test_permuting_heads_changes_nothing(order: list[int], variant: str) -> None:
    q, k = random_qk(4, 4, 100, 8, seed=3)
    grid = grid_of(100, variant=variant, l=4, n0=6)
    assert cds(q[order], k[order], grid) == pytest.approx(cds(q, k, grid), rel=1e-5)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_uniform_attention_has_the_closed_form(variant: str) -> None:
    T, l = 101, 4
    q, k = torch.zeros(2, T, 8), torch.randn(2, T, 8)
    grid = grid_of(T, variant=variant, l=l, n0=6, n=1, d_afs=2, d_cds=3)
    pfs = pairwise_focus(q, k, scaling=1.0, grid=grid)
    for row, j in enumerate(grid.J):
        start = grid.start(j)
        if variant == "paper":
            focus = sum(l / (start + r + 1) for r in range(l))
        else:
            focus = l * l / start
        assert pfs[row, :j].tolist() == pytest.approx([focus] * j, rel=1e-5)
        assert pfs[row, j:].tolist() == [0.0] * (grid.N - j)
    assert cds(q, k, grid) == pytest.approx(0, abs=1e-5)


def test_leading_dimensions_are_kept() -> None:
    q, k = random_qk(4, 2, 100, 8, seed=5)
    grid = grid_of(100, l=4, n0=6)
    pfs = pairwise_focus(q, k, scaling=0.3, grid=grid)
    both = contextual_dependency(aggregated_focus(torch.stack([pfs, 2 * pfs]), grid), grid)
    assert both.shape == (2,)
    assert both[1].item() == pytest.approx(4 * both[0].item(), rel=1e-5)
