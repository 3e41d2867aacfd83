"""The gain of long context: the windows cover what they should, and the columns are their definitions."""

from __future__ import annotations

import math

import pytest
import torch

from ladm.settings.signals import COLUMNS_OF, CONTEXT_GAIN
from ladm.signals.context_gain import (
    ContextWindow,
    continues_earlier_bigram,
    gain_columns,
    scored_from,
    short_context_tokens,
    windows,
)


def test_the_suffix_at_32k_is_8192_tokens_after_4096() -> None:
    assert short_context_tokens(32768) == 4096
    assert windows(32768, "suffix") == [ContextWindow(start=20480, first=24576, stop=32768)]


@pytest.mark.parametrize("T", [16, 31, 64, 1000, 4096, 4099])
@pytest.mark.parametrize("scheme", ["suffix", "blocks"])
def test_windows_score_one_stretch_to_the_end_each_token_once(T: int, scheme: str) -> None:
    found = windows(T, scheme)  # type: ignore[arg-type]
    S = short_context_tokens(T)
    scored = [t for window in found for t in range(window.first, window.stop)]
    assert scored == list(range(scored_from(T, scheme), T))  # type: ignore[arg-type]
    assert all(0 < window.start < window.first < window.stop <= T for window in found)
    if scheme == "blocks":
        assert all(window.stop - window.start == 2 * S for window in found)
        assert all(window.first - window.start == S for window in found)
        assert S < scored[0] <= 2 * S


def test_a_token_continues_an_earlier_bigram() -> None:
    ids = torch.tensor([1, 2, 3, 1, 2, 3, 1, 2, 4, 1, 2, 3])
    expected = [False] * 5 + [True, True, True, False, False, False, True]
    assert continues_earlier_bigram(ids).tolist() == expected
    assert continues_earlier_bigram(torch.tensor([7, 7])).tolist() == [False, False]


def test_columns_are_their_definitions() -> None:
    draw = torch.Generator().manual_seed(0)
    long = torch.rand(3, 50, generator=draw) * 5
    short = torch.rand(3, 50, generator=draw) * 7
    copied = torch.rand(3, 50, generator=draw) < 0.3
    found = gain_columns(long, short, copied)
    assert tuple(found) == COLUMNS_OF[CONTEXT_GAIN]
    for b in range(3):
        pairs = list(zip(long[b].tolist(), short[b].tolist(), copied[b].tolist(), strict=True))
        gains = [s - l for l, s, _ in pairs]
        assert found["gain"][b].item() == pytest.approx(sum(gains) / 50)
        assert found["gain_positive"][b].item() == sum(gain > 0 for gain in gains) / 50
        assert found["longfilter"][b].item() == pytest.approx(sum(math.exp(-l) * (s - l) for l, s, _ in pairs) / 50)
        assert found["key_tokens"][b].item() == sum(s - l > 2 and l < 2 for l, s, _ in pairs) / 50
        own = [s - l for l, s, copy in pairs if not copy]
        assert found["gain_no_copy"][b].item() == pytest.approx(sum(own) / len(own))


def test_a_row_of_nothing_but_copies_has_no_gain_of_its_own() -> None:
    every = torch.ones(1, 4, dtype=torch.bool)
    assert gain_columns(torch.zeros(1, 4), torch.ones(1, 4), every)["gain_no_copy"].item() == 0.0
