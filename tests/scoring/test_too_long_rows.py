"""Rows longer than a model has positions: said before they are made, not only when they are scored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import ladm as package
from ladm.modeling.facts import stated_positions
from support.documents import write_jsonl

Command = Callable[..., Result]


def corpus(folder: Path) -> Path:
    text = " ".join(f"w{k % 300}" for k in range(9000))
    return write_jsonl(folder / "d.jsonl", [{"text": text, "domain": "a"}])


@pytest.mark.parametrize("flags", [["--dry-run"], []], ids=["dry run", "run"])
def test_run_refuses_a_length_beyond_the_models_positions(
    ladm: Command, talking: Path, tmp_path: Path, flags: list[str]
) -> None:
    arguments = ("run", corpus(tmp_path), "--model", talking, "--top", "50%", "-o", tmp_path / "job", *flags)
    result = ladm(*arguments, "--length", "8193")
    assert result.exit_code == 2
    assert result.stderr == (
        f"ladm: --length 8193 is more than the 8,192 positions of {talking}, which could score none of the rows; give "
        "--length 8192 or less, or leave it out\n"
    )
    assert not (tmp_path / "job").exists()
    # Statistics of texts need no positions.
    result = ladm(*arguments, "--length", "8193", "--signals", "text", "--by", "gzip_ratio", "--dry-run")
    assert result.exit_code == 0, result.output


def test_prepare_warns_of_rows_longer_than_the_positions_beside_the_tokenizer(
    ladm: Command, talking: Path, tmp_path: Path
) -> None:
    source = corpus(tmp_path)
    arguments = ("prepare", source, "--tokenizer", talking, "--domain-key", "domain")
    warning = (
        f"warning   rows of 8,193 tokens are longer than the 8,192 positions of the model in {talking}, which cannot "
        "score them; for that model give --length 8192\n"
    )
    result = ladm(*arguments, "--length", "8193", "-o", tmp_path / "rows")
    assert result.exit_code == 0
    assert result.stderr.startswith(warning)
    assert f"next: ladm score {tmp_path / 'rows'} --model MODEL --score robust -o run\n" in result.stderr
    result = ladm(*arguments, "--length", "8192", "-o", tmp_path / "rows2")
    assert (result.exit_code, "warning" in result.stderr) == (0, False)
    assert f"--model {talking}" in result.stderr
    settings = {"domain_key": "domain", "length": 8193, "output": tmp_path / "rows3"}
    with pytest.warns(package.LadmWarning, match="^rows of 8,193 tokens are longer than the 8,192 positions"):
        package.prepare(source, tokenizer=talking, **settings)
    # A configuration that no model can be made of is no fault of a tokenizer.
    assert stated_positions(str(talking)) == 8192
    (talking / "config.json").write_text(json.dumps({"max_position_embeddings": 10}))
    assert stated_positions(str(talking)) is None
    (talking / "config.json").unlink()
    assert stated_positions(str(talking)) is None


@pytest.mark.parametrize("factor", ["1e400", "NaN"])
def test_a_scaling_that_is_no_number_is_none(talking: Path, tmp_path: Path, factor: str) -> None:
    shutil.copytree(talking, tmp_path / "model")
    config = json.loads((talking / "config.json").read_text())
    scaled = json.dumps(config | {"rope_parameters": {"rope_type": "linear", "factor": 0, "rope_theta": 1e4}})
    (tmp_path / "model" / "config.json").write_text(scaled.replace('"factor": 0', f'"factor": {factor}'))
    assert stated_positions(str(tmp_path / "model")) in (None, 8192)


def test_run_refuses_layers_and_devices_that_scoring_would_before_any_document_is_read(
    ladm: Command, talking: Path, tmp_path: Path
) -> None:
    arguments = ("run", corpus(tmp_path), "--model", talking, "--top", "50%", "-o", tmp_path / "job")
    for flags, message in {
        ("--layers", "0-7"): f"--layers names layer 7, but {talking} has layers 0-2",
        ("--device", "gpu"): "--device 'gpu' is not one of auto, cpu, cuda, cuda:0,1",
        ("--device", "cuda:1,1"): "--device cuda:1,1 names a device twice",
    }.items():
        result = ladm(*arguments, *flags)
        assert (result.exit_code, result.stderr.splitlines()[0]) == (2, f"ladm: {message}"), result.output
    assert not (tmp_path / "job").exists()
