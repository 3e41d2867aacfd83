"""Short forms of what scripts/torture.py does at every point: commands interrupted at some of their disk operations."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from support.survival import COMMANDS, build_world, kill_at_random, survive, survive_small_files
from support.word_tokenizers import words_tokenizer

SEED = int(os.environ.get("LADM_SEED", "0"))
POINTS = int(os.environ.get("LADM_POINTS", "2"))
LIGHT = [name for name, command in COMMANDS.items() if not command.heavy]
HEAVY = [name for name, command in COMMANDS.items() if command.heavy]
SLOW = (
    "calibrate", "check", "train", "report", "compare", "annotate", "select parquet", "rescore", "rescore --so-far",
    "inspect",
)  # fmt: skip
"""A minute each, because they score a contrast set again and again, or on the same ground as one that is quick."""


def quick_ones(names: list[str]) -> list[Any]:
    """The names, of which some are slow."""
    return [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in names]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, golden_lm: Path) -> Path:
    root = tmp_path_factory.mktemp("survival")
    model = root / "model"
    shutil.copytree(golden_lm, model)
    words_tokenizer(model)
    # Where the copies will be: a run records the absolute paths of its rows and its model.
    world = root / "world"
    build_world(world, model)
    world.rename(root / "template")
    return root / "template"


@pytest.mark.parametrize("name", quick_ones(LIGHT))
def test_a_command_interrupted_at_its_disk_operations(template: Path, name: str) -> None:
    found = survive(name, template, template.parent, points=POINTS, seed=SEED)
    print(f"{name}: {found}, seed {SEED}")
    assert found.interruptions > 0


@pytest.mark.parametrize("name", quick_ones(HEAVY))
def test_a_command_with_a_model_interrupted_at_its_disk_operations(template: Path, name: str) -> None:
    modes: Any = ("stop before", "fail once")
    found = survive(name, template, template.parent, points=max(1, POINTS // 2), seed=SEED, modes=modes)
    print(f"{name}: {found}, seed {SEED}")


@pytest.mark.parametrize("name", quick_ones(LIGHT))
def test_a_command_whose_files_cannot_grow(template: Path, name: str) -> None:
    assert survive_small_files(name, template, template.parent, points=POINTS, seed=SEED) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prepare", "select"])
def test_a_command_killed_at_random(template: Path, name: str) -> None:
    """What is lost, left behind or different fails inside.

    Quick tests of the same: a killed `select` in tests/selection/test_subset_formats.py, a stopped `prepare` in
    tests/corpus/test_prepare.py.
    """
    found = kill_at_random(name, template, template.parent, kills=POINTS, seed=SEED)
    assert found.kills == POINTS
