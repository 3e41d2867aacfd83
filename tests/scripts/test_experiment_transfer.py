"""Carrying the experiment to a machine without a network: weights in parts, and losses of several launches."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.paths import ROOT

SCRIPTS = ROOT / "scripts" / "experiment"
sys.path.append(str(SCRIPTS))
sys.path.append(str(SCRIPTS / "pretraining"))
sys.path.append(str(SCRIPTS.parent / "toy"))

import fetch_model  # noqa: E402
from pretraining import carry, files  # noqa: E402


def test_token_losses_of_several_launches_are_found_in_folders_and_archives(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    losses = {name: draw.uniform(0, 8, (2, 3, 8)).astype(np.float32) for name in ("random/0/0", "B guards, random/1/1")}
    for place in (tmp_path / "folder", tmp_path / "all.zip"):
        for name in (*losses, "random/0/0"):
            files.write_token_losses(place, name, *losses[name])
        for name, (long, short) in losses.items():
            found = files.read_token_losses([place], name)
            assert np.abs(found["long"] - long).max() <= files.TOKEN_STEP / 2
            assert np.abs(found["short"] - short).max() <= files.TOKEN_STEP / 2
    files.write_token_losses(tmp_path / "next.zip", "text/0/0", *losses["random/0/0"])
    places = [tmp_path / "all.zip", tmp_path / "folder", tmp_path / "next.zip"]
    assert files.read_token_losses(places, "text/0/0")["long"].shape == (3, 8)
    with pytest.raises(SystemExit, match="no losses of all tokens of gain/0/0 in "):
        files.read_token_losses(places, "gain/0/0")


@pytest.mark.parametrize(("size", "most", "count"), [(1000, 400, 3), (1000, 1000, 1), (1001, 500, 3), (0, 10, 1)])
def test_a_file_is_split_and_joined_again(tmp_path: Path, size: int, most: int, count: int) -> None:
    content = np.random.default_rng(0).bytes(size)
    (tmp_path / "weights").write_bytes(content)
    listed = carry.split(tmp_path / "weights", tmp_path / "parts", most_bytes=most)
    parts = sorted((tmp_path / "parts").glob("weights.part-*"))
    assert len(parts) == count
    assert max(part.stat().st_size for part in parts) <= most
    carry.join(listed, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == content


def test_a_part_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(range(100)))
    listed = carry.split(tmp_path / "weights", tmp_path, most_bytes=50)
    second = tmp_path / "weights.part-2-of-2"
    content = second.read_bytes()
    second.write_bytes(content[:-1])
    with pytest.raises(SystemExit, match="weights.part-2-of-2 is not what weights.json lists; copy it again"):
        carry.join(listed, tmp_path / "again")
    second.unlink()
    with pytest.raises(SystemExit, match="not in .*: weights.part-2-of-2"):
        carry.join(listed, tmp_path / "again")
    assert not list(tmp_path.glob("again*"))
    # Whole parts in the wrong order.
    second.write_bytes(content)
    about = json.loads(listed.read_text())
    listed.write_text(json.dumps(about | {"parts": about["parts"][::-1]}))
    with pytest.raises(SystemExit, match="the parts do not make up weights"):
        carry.join(listed, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_weights_that_are_at_hand_are_converted_without_a_download(tmp_path: Path, monkeypatch: Any) -> None:
    made = []
    monkeypatch.setattr(fetch_model, "convert", lambda gguf, folder: made.append((gguf, folder)))
    gguf = tmp_path / "weights.gguf"
    with pytest.raises(SystemExit, match="weights.gguf: no such file"):
        fetch_model.main(tmp_path / "model", gguf=gguf)
    gguf.write_bytes(b"GGUF")
    monkeypatch.setattr(fetch_model, "fetch", lambda _folder: pytest.fail("downloads"))
    fetch_model.main(tmp_path / "model", gguf=gguf)
    assert made == [(gguf, tmp_path / "model")]
    # The model was made earlier, without keeping the weights.
    monkeypatch.setattr(fetch_model, "fetch", lambda _folder: gguf)
    (tmp_path / "model").mkdir()
    fetch_model.main(tmp_path / "model", keep=tmp_path / "kept.gguf")
    assert (tmp_path / "kept.gguf").read_bytes() == b"GGUF"
    assert len(made) == 1
