"""The programs of `scripts/bench` that read rows, models and measurements: what is none ends them with one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.commands import run_script
from support.paths import GOLDEN, ROOT
from support.rows import topical_rows

BENCH = ROOT / "scripts" / "bench"


def refusal(program: str, *arguments: Any) -> Any:
    """What a program ends with: the line that Python prints for it, or a number."""
    with pytest.raises(SystemExit) as ended:
        run_script(BENCH / program, *arguments)
    return ended.value.code


def test_layers_names_rows_and_models_that_are_none(save_rows: Any, golden: Any, tmp_path: Path) -> None:
    rows = save_rows(topical_rows(golden, [512, 512]))
    flags = ("--output", tmp_path / "layers.jsonl")
    found = refusal("layers.py", rows, "--model", GOLDEN, *flags)
    assert found == f"{rows}: no row has the kind `document` in its meta; documents.py makes such rows"
    found = refusal("layers.py", tmp_path, "--model", GOLDEN, *flags)
    assert found.startswith(f"no such data set: {tmp_path} is not a data set saved by save_to_disk")
    found = refusal("layers.py", rows, "--model", tmp_path, *flags)
    assert found == f"{tmp_path}: no config.json there; a model folder holds config.json and *.safetensors"
    meta = {"kind": "document", "pile_set_name": "a"}
    documents = [row | {"meta": meta} for row in topical_rows(golden, [512 + k for k in range(40)])]
    rows = save_rows(documents, "documents")
    found = refusal("layers.py", rows, "--model", GOLDEN, *flags, "--kinds", "intact", "--from-document", "99")
    assert found == f"{rows}: none of its rows is of the kinds intact from document 99 on"


@pytest.mark.parametrize("content", ["", "{}\n", "no JSON\n", "[]\n", '{"layers": 3}\n'])
def test_profiles_names_a_file_that_layers_did_not_write(tmp_path: Path, content: str) -> None:
    measured = tmp_path / "measured.jsonl"
    measured.write_text(content)
    assert refusal("profiles.py", measured, "--form", "16") == f"{measured} is not what layers.py writes"
    assert refusal("profiles.py", tmp_path, "--form", "16") == f"{tmp_path} is not what layers.py writes"


def test_profiles_names_the_spans_that_were_measured(tmp_path: Path) -> None:
    measured = tmp_path / "measured.jsonl"
    cds: dict[str, Any] = {"16": [1.0], "16 no-std": [1.0], "128": [1.0], "128 no-std": [1.0], "heads": [[1.0]]}
    line = {"kind": "intact", "domain": "a", "document": 0, "layers": [0], "cds": cds}
    measured.write_text(json.dumps(line) + "\n")
    assert refusal("profiles.py", measured, "--form", "32") == f"{measured} has no --form 32; it has 16, 128"


def test_program_names_a_folder_that_is_no_model(tmp_path: Path) -> None:
    found = refusal("program.py", "--model", tmp_path)
    assert found == f"{tmp_path}: no config.json there; a model folder holds config.json and *.safetensors"


@pytest.mark.parametrize("program", ["rescore.py", "selection.py", "store.py"])
def test_runs_of_no_rows_are_refused(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(program, "--rows", "0") == 2
    assert "Invalid value for '--rows': 0 is not in the range x>=1." in capsys.readouterr().err
