"""The columns that one forward pass stores of every layer, against the equations written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ladm.method import cds as fast
from ladm.method import focus as oracle
from ladm.method.grid import Grid, Method
from ladm.method.pfs import measure_focus
from ladm.method.sinks import far_key_mass, sink_mass
from ladm.signals.layer_cds import layer_cds

FOUR = ("cds_per_layer", "cds_per_layer_no_std", "value_cds_per_layer", "value_cds_per_layer_no_std")
SEVEN = (*FOUR, "copy_share_per_layer", "sink_mass_per_layer", "near_share_per_layer")


def cds(pfs: torch.Tensor, grid: Grid, form: Any, equations: Any = oracle) -> torch.Tensor:
    return equations.contextual_dependency(equations.aggregated_focus(pfs, grid, ablation=form), grid, ablation=form)


@pytest.fixture
def ids(golden: dict[str, Any]) -> torch.Tensor:
    return torch.tensor([golden["input_ids"][0][:512]])


@pytest.mark.parametrize("variant", ["released", "paper"])
def test_columns_of_layers_are_those_of_the_equations(golden_observer: Any, ids: torch.Tensor, variant: Any) -> None:
    grid = Method(variant=variant, span_tokens=16, n0=4 if variant == "paper" else None).grid(512)
    found = layer_cds(golden_observer, ids, grid, ablation="none", backend="torch")
    assert tuple(found) == SEVEN
    views: list[Any] = []
    golden_observer.observe(ids, views.append)
    # The last wanted layer has no log-sum-exp, and yet all of its columns.
    assert views[-1].lse_BHT is None
    for k, view in enumerate(views):
        weights = oracle.value_weights(view.v_BGTD[0])
        q, k_ = view.q_BHTD[0], view.k_BGTD[0]
        plain = oracle.pairwise_focus(q, k_, scaling=view.scaling, grid=grid)
        value = oracle.pairwise_focus(q, k_, scaling=view.scaling, grid=grid, key_weight_GT=weights)
        copied = oracle.pairwise_focus(q, k_, scaling=view.scaling, grid=grid, counted_TT=oracle.copy_keys(ids[0]))
        mass = far_key_mass(view.q_BHTD, view.k_BGTD, scaling=view.scaling, skipped_tokens=grid.start(1))
        expected = {
            **dict(zip(FOUR, (cds(x, grid, form) for x in (plain, value) for form in ("none", "no-std")), strict=True)),
            "copy_share_per_layer": oracle.copy_share(plain, copied, grid),
            "sink_mass_per_layer": sink_mass(mass.mean(dim=1))[0],
            "near_share_per_layer": oracle.near_share(value, grid),
        }
        for name, number in expected.items():
            assert found[name][0, k].item() == pytest.approx(number.item(), rel=1e-5), (name, k)


def test_what_was_stored_before_stays_the_same_to_the_last_bit(golden_observer: Any, ids: torch.Tensor) -> None:
    grid = Method(span_tokens=16).grid(512)
    whole, by_head = [], []

    def visit(view: Any) -> None:
        for kept, heads in ((whole, False), (by_head, True)):
            focus = measure_focus(
                view.q_BHTD, view.k_BGTD, view.lse_BHT, scaling=view.scaling, grid=grid, backend="torch", by_head=heads
            )
            kept.append(focus.pfs_BKJN if heads else focus.pfs_BKJN.squeeze(1))

    golden_observer.observe(ids, visit)
    for record in ("layers", "heads", "range", "forms"):
        found = layer_cds(golden_observer, ids, grid, ablation="none", backend="torch", record=record)
        of_layers = torch.stack([x.mean(dim=1) for x in by_head] if record in ("heads", "forms") else whole, dim=1)
        assert torch.equal(found["cds_per_layer"], cds(of_layers, grid, "none", fast))
        if record in ("heads", "forms"):
            assert torch.equal(found["cds_per_head"], torch.cat([cds(x, grid, "none", fast) for x in by_head], dim=1))


def test_every_column_of_layers_is_there_of_heads(golden_observer: Any, ids: torch.Tensor) -> None:
    grid = Method(span_tokens=16).grid(512)
    found = layer_cds(golden_observer, ids, grid, ablation="none", backend="torch", record="heads")
    assert tuple(found) == (*SEVEN, *(name.replace("layer", "head") for name in SEVEN))
    forms = layer_cds(golden_observer, ids, grid, ablation="none", backend="torch", record="forms")
    assert all(torch.equal(forms[name], found[name]) for name in found)
    for focus in ("", "value_"):
        by_head = found[f"{focus}cds_per_head_no_std"].view(1, len(golden_observer.layers), -1)
        # Without sigma CDS is linear in PFS, so the layer's is the mean over its heads.
        torch.testing.assert_close(by_head.mean(dim=-1), found[f"{focus}cds_per_layer_no_std"])


def test_columns_of_heads_are_those_of_the_equations(golden_observer: Any, ids: torch.Tensor) -> None:
    grid = Method(span_tokens=16).grid(512)
    found = layer_cds(golden_observer, ids, grid, ablation="none", backend="torch", record="heads")
    views: list[Any] = []
    golden_observer.observe(ids, views.append)
    H = views[0].q_BHTD.shape[1]
    R = H // views[0].k_BGTD.shape[1]
    for layer, view in enumerate(views):
        mass = far_key_mass(view.q_BHTD, view.k_BGTD, scaling=view.scaling, skipped_tokens=grid.start(1))
        for head in range(H):
            # The oracle of one head: its own query, and the key and the values of its group.
            group = slice(head // R, head // R + 1)
            q, k = view.q_BHTD[0, head : head + 1], view.k_BGTD[0, group]
            weights = oracle.value_weights(view.v_BGTD[0])[group]
            plain = oracle.pairwise_focus(q, k, scaling=view.scaling, grid=grid)
            value = oracle.pairwise_focus(q, k, scaling=view.scaling, grid=grid, key_weight_GT=weights)
            copied = oracle.pairwise_focus(q, k, scaling=view.scaling, grid=grid, counted_TT=oracle.copy_keys(ids[0]))
            forms = (cds(x, grid, form) for x in (plain, value) for form in ("none", "no-std"))
            expected = {
                **dict(zip((name.replace("layer", "head") for name in FOUR), forms, strict=True)),
                "copy_share_per_head": oracle.copy_share(plain, copied, grid),
                "sink_mass_per_head": sink_mass(mass[0, head]),
                "near_share_per_head": oracle.near_share(value, grid),
            }
            for name, number in expected.items():
                assert found[name][0, layer * H + head].item() == pytest.approx(number.item(), rel=1e-5), (name, head)


def test_an_ablation_has_one_form_of_each_focus(golden_observer: Any, ids: torch.Tensor) -> None:
    both = layer_cds(golden_observer, ids, Method(span_tokens=16).grid(512), ablation="none", backend="torch")
    for ablation in ("no-std", "no-length"):
        grid = Method(span_tokens=16, ablation=ablation).grid(512)
        found = layer_cds(golden_observer, ids, grid, ablation=ablation, backend="torch")
        assert tuple(found) == (FOUR[0], FOUR[2], *SEVEN[4:])
        if ablation == "no-std":
            assert torch.equal(found[FOUR[2]], both[FOUR[3]])


def test_attention_that_does_not_fall_with_distance_has_the_near_share_of_the_pairs() -> None:
    grid = Method().grid(32_768)
    near = sum(j - i <= j / 4 for j, earlier in zip(grid.J, grid.I, strict=True) for i in earlier)
    flat = torch.full((2, len(grid.J), grid.N), 0.25)
    for equations in (oracle, fast):
        assert equations.near_share(flat, grid).tolist() == pytest.approx([near / 2010] * 2)
        assert equations.near_share(torch.zeros(len(grid.J), grid.N), grid) == 0.0


def test_a_head_whose_values_are_zero_weighs_nothing() -> None:
    v_GTD = torch.zeros(1, 5, 3)
    v_GTD[0, 0] = 1.0
    assert oracle.value_weights(v_GTD).tolist() == [[0.0] * 5]
