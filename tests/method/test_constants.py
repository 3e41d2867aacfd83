"""What is made once for each length of rows: kept while it is in use, and never more than a bound."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch

from ladm.method import constants
from ladm.method.cds import aggregated_focus, near_share, used_pairs_JN
from ladm.method.grid import Grid, Method
from ladm.method.pfs_triton import _kernel_grid
from ladm.signals.layer_cds import layer_cds


def grid_of(T: int) -> Grid:
    return Method(span_tokens=4, n=1, d_afs=1, d_cds=1).grid(T)


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    constants.release_constants()


def measure(T: int) -> None:
    grid = grid_of(T)
    pfs_JN = torch.rand(len(grid.J), grid.N)
    aggregated_focus(pfs_JN, grid)
    aggregated_focus(pfs_JN, grid, ablation="no-std")
    near_share(pfs_JN, grid)
    _kernel_grid(grid, torch.device("cpu"))


def test_a_length_that_is_in_use_is_made_once() -> None:
    grid = grid_of(400)
    assert used_pairs_JN(grid) is used_pairs_JN(grid_of(400))
    assert _kernel_grid(grid, torch.device("cpu")) is _kernel_grid(grid_of(400), torch.device("cpu"))
    before = constants._KEPT.bytes
    measure(400)
    # Sigma does not change the length weights, so both forms share them: one more (J, N) of float32 and of bool.
    assert constants._KEPT.bytes - before == 5 * len(grid.J) * grid.N
    assert before > 0


def test_many_lengths_hold_no_more_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    measure(400)
    one_length = constants._KEPT.bytes
    monkeypatch.setattr(constants, "MOST_BYTES", 4 * one_length)
    for T in range(300, 400):
        measure(T)
        assert constants._KEPT.bytes <= 4 * one_length
    assert constants._KEPT.bytes > 2 * one_length
    first, last = used_pairs_JN(grid_of(396)), used_pairs_JN(grid_of(399))
    measure(401)
    measure(402)
    assert used_pairs_JN(grid_of(396)) is first
    assert used_pairs_JN(grid_of(399)) is last


def test_a_length_beyond_the_bound_is_kept_while_it_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer needs the same again."""
    monkeypatch.setattr(constants, "MOST_BYTES", 1)
    used, kernel_grid = used_pairs_JN(grid_of(400)), _kernel_grid(grid_of(400), torch.device("cpu"))
    assert used_pairs_JN(grid_of(400)) is used
    assert _kernel_grid(grid_of(400), torch.device("cpu")) is kernel_grid
    used_pairs_JN(grid_of(300))
    assert used_pairs_JN(grid_of(400)) is not used


def test_little_memory_releases_those_of_other_lengths(golden_observer: Any, golden: dict[str, Any]) -> None:
    ids, grid = torch.tensor([golden["input_ids"][0][:512]]), Method(span_tokens=16).grid(512)
    measure(2000)
    held = constants._KEPT.bytes
    gc.collect()
    layer_cds(golden_observer, ids, grid, ablation="none", backend="torch", low_memory=True)
    assert 0 < constants._KEPT.bytes < held / 10
