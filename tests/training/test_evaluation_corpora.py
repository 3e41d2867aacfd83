"""A corpus by its name: fetched, and made into rows of the model's own tokenizer."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

Command = Callable[..., Result]


@pytest.fixture
def proof_pile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The Hub gives a file of eight texts, of 100 to 800 words; requests are recorded."""
    import huggingface_hub

    draw = np.random.default_rng(0)
    texts = [" ".join(f"w{k}" for k in draw.integers(2, 300, 100 * (n + 1))) for n in range(8)]
    lines = [json.dumps({"text": text, "meta": "{}"}) for text in texts]
    path = tmp_path / "test.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    requests: list[tuple[str, ...]] = []

    def hf_hub_download(*names: str, **more: str) -> str:
        requests.append((*names, *more.values()))
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return requests


def test_perplexity_of_proof_pile_by_name(
    ladm: Command, talking: Path, proof_pile: list[tuple[str, ...]], tmp_path: Path
) -> None:
    result = ladm(
        "evaluate", "perplexity", "--model", talking, "--rows", "proof-pile", "--windows", "64,300", "--documents", "4",
        "--output", tmp_path / "p.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert proof_pile == [("hoskinson-center/proof-pile", "test/proofpile_test.jsonl.gz", "dataset")]
    found = json.loads((tmp_path / "p.json").read_text())
    # 300, 400, 500 and 600 words; the texts before are too short, those behind are not needed.
    assert (found["rows"], found["documents"]) == ("proof-pile", 4)
    assert ": 4 of at least 300 tokens" in result.stderr


def test_needles_in_proof_pile_by_name(
    ladm: Command, talking: Path, proof_pile: list[tuple[str, ...]], tmp_path: Path
) -> None:
    result = ladm(
        "evaluate", "needle", "--model", talking, "--rows", "proof-pile", "--lengths", "200", "--depths", "1",
        "--repeats", "1", "--output", tmp_path / "n.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert len(proof_pile) == 1
    assert json.loads((tmp_path / "n.json").read_text())["rows"] == "proof-pile"


def test_without_the_hub(ladm: Command, talking: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refused(*_: Any, **__: Any) -> None:
        raise OSError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refused)
    result = ladm("evaluate", "perplexity", "--model", talking, "--rows", "proof-pile")
    assert result.exit_code == 1
    assert result.stderr == (
        "ladm: --rows proof-pile: cannot download hoskinson-center/proof-pile from the Hub: offline; give rows of "
        "ladm prepare\n"
    )


def test_a_folder_of_that_name_comes_first(
    ladm: Command, talking: Path, save_rows: Any, golden: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.rows import topical_rows

    rows = Path(save_rows(topical_rows(golden, [200] * 2)))
    rows.rename(rows.with_name("proof-pile"))
    monkeypatch.chdir(rows.parent)
    result = ladm("evaluate", "perplexity", "--model", talking, "--rows", "proof-pile", "--windows", "128")
    assert result.exit_code == 0, result.output
    assert "rows      proof-pile: 2 of at least 128 tokens" in result.stderr
