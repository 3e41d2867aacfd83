"""ProLong's and LongAttn's numbers against their definitions, written out plainly."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

from ladm.method.grid import Method
from ladm.modeling.observer import Observer
from ladm.signals import longattn, prolong
from ladm.signals.forward_pass import PassSignals, forward_pass


@pytest.mark.parametrize(("H", "G", "T"), [(4, 2, 64), (2, 2, 37), (3, 1, 130)])
@pytest.mark.parametrize("elements", [1, 700, 1 << 20])
def test_distant_attention_is_that_of_the_whole_matrix(
    H: int, G: int, T: int, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(longattn.BLOCK_ELEMENTS, "cpu", elements)
    draw = torch.Generator().manual_seed(T)
    q = torch.randn(2, H, T, 8, generator=draw) * 2
    k = torch.randn(2, G, T, 8, generator=draw)
    logits = 0.4 * q @ k.repeat_interleave(H // G, dim=1).mT
    logits = logits.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), -torch.inf)
    weights = logits.softmax(dim=-1).double()
    far = T // 4
    apart = torch.arange(T).unsqueeze(1) - torch.arange(T) >= far
    found = longattn.distant_attention(q, k, logits.logsumexp(dim=-1), scaling=0.4)
    far_weights = weights[:, :, apart]
    torch.testing.assert_close(found["longattn_ds"], far_weights.sum(-1).mean(1) / T, rtol=1e-5, atol=0)
    torch.testing.assert_close(found["longattn_v"], far_weights.var(-1, correction=0).mean(1), rtol=1e-4, atol=1e-12)


def test_distant_attention_holds_fewer_weights_where_memory_is_short(
    golden_observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last try of a row that did not fit must need less memory in every signal of its pass."""
    limit = 4 * 4 * 48
    monkeypatch.setattr(longattn, "LOW_MEMORY_ELEMENTS", limit)
    at_once: list[int] = []
    fill = torch.Tensor.masked_fill_

    def recorded(weights: torch.Tensor, *options: Any) -> torch.Tensor:
        at_once.append(weights.numel())
        return fill(weights, *options)

    monkeypatch.setattr(torch.Tensor, "masked_fill_", recorded)
    ids = torch.arange(64).mul(31).remainder(96).unsqueeze(0)
    grid = Method(span_tokens=4).grid(64)
    signals = PassSignals(cds=False, gain=None, longattn=True)
    observer = copy.copy(golden_observer)
    observer.layers, observer.also = (), (0,)
    found = {}
    for low_memory in (False, True):
        at_once.clear()
        found[low_memory] = forward_pass(observer, ids, ids, grid, signals, low_memory=low_memory).longattn
        assert (max(at_once) <= limit) == low_memory
    for name, value in found[False].items():
        torch.testing.assert_close(found[True][name], value, rtol=1e-6, atol=0)


def plain_score(alone: list[float], given: dict[tuple[int, int], float]) -> float:
    total = 0.0
    for i in range(len(alone)):
        of_i = {j: alone[i] - ppl for (j, k), ppl in given.items() if k == i}
        if not of_i:
            continue
        weights = {j: math.exp(gain - max(of_i.values())) for j, gain in of_i.items()}
        p = [w / sum(weights.values()) for w in weights.values()]
        entropy = -sum(x * math.log(x) for x in p if x > 0)
        specificity = 1.0 if len(p) == 1 else min(1.0, max(0.0, 1 - entropy / math.log(len(p))))
        for j, gain in of_i.items():
            strength = gain / alone[i]
            if strength > 0.1:
                total += (strength + min(1.0, (i - j) / 255)) * specificity
    return total


@pytest.mark.parametrize("most", [None, 7])
def test_the_long_dependency_score_is_its_definition(most: int | None) -> None:
    draw = np.random.default_rng(3)
    N = 9
    pairs = prolong.choose_pairs(N, most=most, seed=1)
    alone, given = draw.uniform(5, 300, N), draw.uniform(3, 300, len(pairs))
    found = prolong.long_dependency(alone, pairs, given)
    table = {(int(j), int(i)): float(ppl) for (j, i), ppl in zip(pairs, given, strict=True)}
    assert found.score == pytest.approx(plain_score(alone.tolist(), table))
    assert found.pairs == len(pairs) == (36 if most is None else 7)
    assert found.per_pair == pytest.approx(found.score / found.pairs)


def test_pairs_are_all_or_a_seeded_sample_without_repeats() -> None:
    every = prolong.choose_pairs(20, most=None, seed=0)
    assert len(every) == 190
    assert (every[:, 0] < every[:, 1]).all()
    some = prolong.choose_pairs(20, most=50, seed=4)
    assert len({tuple(pair) for pair in some.tolist()}) == 50
    assert (some == prolong.choose_pairs(20, most=50, seed=4)).all()
    assert (some != prolong.choose_pairs(20, most=50, seed=5)).any()
    assert len(prolong.choose_pairs(3, most=5000, seed=0)) == 3


def test_a_short_row_has_a_score_from_the_pairs_that_it_has() -> None:
    """The released code gives 0 to every document with fewer pairs than its sample."""
    ids = np.arange(3 * 128 + 50)
    seen: list[tuple[int, int]] = []

    def perplexities(inputs: prolong.Ints) -> prolong.Floats:
        seen.append(inputs.shape)
        return np.where(inputs.shape[1] == 128, 100.0, 60.0) * np.ones(len(inputs))

    found = prolong.score_row(ids, perplexities, most_pairs=5000, seed=0)
    assert seen == [(3, 128), (3, 256)]
    # Segment 1 has one earlier segment, which is specific; segment 2 gains evenly from two, which is not.
    assert found.score == pytest.approx(0.4 + 1 / 255)
    assert found.pairs == 3
    assert prolong.forward_tokens(len(ids), most=5000) == 3 * 128 + 3 * 256


def test_at_most_256_segments_are_used() -> None:
    assert prolong.segments(np.arange(40_000)).shape == (256, 128)
    assert prolong.segments(np.arange(127)).shape == (0, 128)
    assert prolong.forward_tokens(40_000, most=None) == 256 * 128 + 32_640 * 256
