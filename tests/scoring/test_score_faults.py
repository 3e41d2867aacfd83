"""Whole-input faults of `ladm score`, each with its message in full, and what a resume refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from support.models import SMALL
from support.paths import GOLDEN
from support.rows import topical_rows
from support.runs import results

Run = Callable[..., Result]


def whole_input_faults(tmp_path: Path, save_rows: Any, golden: Any) -> dict[str, tuple[tuple[str, ...], int, str]]:
    """name -> (arguments, exit code, the whole message)."""
    from datasets import Dataset, DatasetDict

    good = save_rows(topical_rows(golden, [512]))
    no_ids = save_rows([{"text": "a"}], "no_ids")
    strings = save_rows([{"input_ids": ["a", "b"]}], "strings")
    floats = save_rows([{"input_ids": [1.5]}], "floats")
    DatasetDict(test=Dataset.from_list([{"input_ids": [1]}])).save_to_disk(str(tmp_path / "no_train"))
    Dataset.from_list([{"input_ids": [1]}]).select([]).save_to_disk(str(tmp_path / "none"))
    for name, content in {"pickled": "pytorch_model.bin", "bare": "notes.txt"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / content).write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
        shutil.copy(GOLDEN / "config.json", tmp_path / name)
    (tmp_path / "empty").mkdir()
    shutil.copytree(GOLDEN, tmp_path / "torn")
    (tmp_path / "torn" / "model.safetensors").write_bytes((GOLDEN / "model.safetensors").read_bytes()[:5000])
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("")
    (tmp_path / "odd.yaml").write_text("span_token: 4\n")
    (tmp_path / "other.yaml").write_text("fruit: 4\n")
    (tmp_path / "typed.yaml").write_text("m: one\n")
    (tmp_path / "list.yaml").write_text("- m\n")
    (tmp_path / "torn.yaml").write_text("m: [1\n")
    model = ("--model", str(GOLDEN))
    out = ("--output", str(tmp_path / "out"))
    t = tmp_path
    return {
        "no such rows": (
            (f"{t}/nowhere/x", *model, *out), 1,
            f"no such data set: {t}/nowhere/x is neither a folder nor a Hub id such as org/name",
        ),
        "no such folder here": (
            ("nowhere", *model, *out), 1,
            "no such data set: nowhere is neither a folder nor a Hub id such as org/name",
        ),
        "no such folder, from here": (
            ("./nowhere", *model, *out), 1,
            "no such data set: ./nowhere is neither a folder nor a Hub id such as org/name",
        ),
        "a Hub id that is not given": (
            ("org/nowhere", *model, *out), 1,
            "no such data set: org/nowhere is neither a folder nor on the Hub: *",
        ),
        "a folder that is no data set": (
            (f"{t}/empty", *model, *out), 1,
            f"no such data set: {t}/empty is not a data set saved by save_to_disk: *",
        ),
        "no train": ((f"{t}/no_train", *model, *out), 1, f"{t}/no_train has no split train (it has test)"),
        "no rows": ((f"{t}/none", *model, *out), 1, f"{t}/none has no rows"),
        "no ids": (
            (no_ids, *model, *out), 1,
            f"{no_ids} has no column input_ids (it has text); tokenise it first: ladm prepare",
        ),
        "strings": (
            (strings, *model, *out), 1,
            f"{strings}: input_ids holds list<item: string>, not lists of token ids; tokenise it first: ladm prepare",
        ),
        "floats": (
            (floats, *model, *out), 1,
            f"{floats}: input_ids holds list<item: double>, not lists of token ids; tokenise it first: ladm prepare",
        ),
        "no such model": (
            (good, "--model", f"{t}/nowhere/x", *out), 1,
            f"no such model: {t}/nowhere/x is neither a folder nor a Hub id such as org/name",
        ),
        "a Hub model that is not given": (
            (good, "--model", "org/nowhere", *out), 1,
            "no such model: org/nowhere is not a folder, and cannot be downloaded from the Hub: *",
        ),
        "a pickled model": (
            (good, "--model", f"{t}/pickled", *out), 1,
            f"{t}/pickled: only pickled weights there (pytorch_model.bin), which could run any code and are never "
            "opened; convert them to safetensors",
        ),
        "no weights": ((good, "--model", f"{t}/bare", *out), 1, f"{t}/bare: no *.safetensors there"),
        "no config": (
            (good, "--model", f"{t}/empty", *out), 1,
            f"{t}/empty: no config.json there; a model folder holds config.json and *.safetensors",
        ),
        "torn weights": (
            (good, "--model", f"{t}/torn", *out), 1,
            f"{t}/torn: the model does not load: SafetensorError: *",
        ),
        "taken output": (
            (good, *model, "--output", f"{t}/taken"), 1,
            f"{t}/taken belongs to something else (it holds thesis.tex); give --output an empty folder",
        ),
        "output below a file": (
            (good, *model, "--output", f"{t}/odd.yaml/run"), 74,
            f"cannot create {t}/odd.yaml/run: {t}/odd.yaml is not a writable folder",
        ),
        "unknown key": (
            (good, *model, *out, "--config", f"{t}/odd.yaml"), 2,
            f"--config {t}/odd.yaml: unknown key 'span_token'; did you mean span_tokens?",
        ),
        "quite unknown key": (
            (good, *model, *out, "--config", f"{t}/other.yaml"), 2,
            f"--config {t}/other.yaml: unknown key 'fruit'; the keys are variant, span_tokens, m, n, n0, d_afs, "
            "d_cds, ablation, rows, model, output, reduce, layers, record, score, profile, signals, context_gain, "
            "unigrams, prolong_pairs, dtype, backend, attention, fused, device, engine, workers, shard, "
            "allow_other_tokenizer, batch_size, limit, dry_run, max_errors, fail_fast, retry_errors",
        ),
        "wrong type": (
            (good, *model, *out, "--config", f"{t}/typed.yaml"), 2,
            f'--config {t}/typed.yaml: m: "one" is not a whole number',
        ),
        "a list": (
            (good, *model, *out, "--config", f"{t}/list.yaml"), 2,
            f"--config {t}/list.yaml must hold keys and values, such as span_tokens: 128",
        ),
        "not YAML": (
            (good, *model, *out, "--config", f"{t}/torn.yaml"), 2,
            f"--config {t}/torn.yaml is not YAML: *",
        ),
        "no config file": (
            (good, *model, *out, "--config", f"{t}/nowhere.yaml"), 2,
            f"--config {t}/nowhere.yaml: No such file or directory",
        ),
        "a stride of 0": ((good, *model, *out, "--d-cds", "0"), 2, "--d-cds must be at least 1, not 0"),
        "n of 0": (
            (good, *model, *out, "--n", "0"), 2,
            "--n must be at least 1 in the released variant, whose nearest span is j-n",
        ),
        "layers": ((good, *model, *out, "--layers", "3..5"), 2, "--layers '3..5' is not a list such as 0-10,14"),
        "layers backwards": (
            (good, *model, *out, "--layers", "0,5-3"), 2, "--layers '0,5-3': the range 5-3 runs backwards",
        ),
        "a layer of no model": (
            (good, *model, *out, "--layers", "99999"), 2, "--layers '99999': no model has a layer 99999",
        ),
        "a range of layers of no model": (
            (good, *model, *out, "--layers", "0-99999"), 2, "--layers '0-99999': no model has a layer 99999",
        ),
        "layers beyond": (
            (good, *model, *out, "--layers", "2-3"), 2, f"--layers names layer 3, but {GOLDEN} has layers 0-2",
        ),
        "device": (
            (good, *model, *out, "--device", "tpu"), 2, "--device 'tpu' is not one of auto, cpu, cuda, cuda:0,1",
        ),
    }  # fmt: skip


def test_whole_input_faults_in_full(ladm: Run, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    for name, (arguments, code, message) in whole_input_faults(tmp_path, save_rows, golden).items():
        result = ladm("score", *arguments)
        last = result.stderr.splitlines()[-1]
        assert result.exit_code == code, (name, result.output)
        if message.endswith("*"):
            assert last.startswith(f"ladm: {message[:-1]}"), name
        else:
            assert last == f"ladm: {message}", name
    assert not (Path.cwd() / "ran").exists()


@pytest.mark.skipif("__import__('torch').cuda.is_available()")
def test_a_device_that_is_not_there(ladm: Run, short_rows: str, tmp_path: Path) -> None:
    result = ladm("score", short_rows, "--model", GOLDEN, "--output", tmp_path / "run", "--device", "cuda:0,1")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "ladm: --device cuda:0,1: no CUDA device here; use --device cpu"


def test_no_row_with_a_score_is_an_error(ladm: Run, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    rows = topical_rows(golden, [512, 512])
    for row in rows:
        row["input_ids"] = [*row["input_ids"][:-1], 5000]
    result = ladm("score", save_rows(rows), *SMALL, "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        f"ladm: no document has a score; {tmp_path / 'run'}/errors.jsonl says why"
    )
    assert (tmp_path / "run" / "sorted_by_score.jsonl").read_bytes() == b""


def test_a_resume_with_something_else_is_refused(
    ladm: Run, short_rows: str, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert ladm("score", short_rows, *SMALL, "--output", folder).exit_code == 0
    before = results(folder)
    rows = topical_rows(golden, [700, 512, 700, 650, 512, 700, 512])
    rows[4]["input_ids"] = [*rows[4]["input_ids"][:-1], 3]
    edited = save_rows(rows, "edited")
    shutil.copytree(GOLDEN, tmp_path / "model")
    config = json.loads((GOLDEN / "config.json").read_text()) | {"rope_theta": 20000.0}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    shutil.copytree(GOLDEN, tmp_path / "reweighed")
    weights = bytearray((GOLDEN / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "reweighed" / "model.safetensors").write_bytes(weights)
    shutil.copytree(GOLDEN, tmp_path / "respelled")
    (tmp_path / "respelled" / "tokenizer.json").write_text("{}")
    for arguments, field in [
        ((short_rows, *SMALL, "--model", tmp_path / "reweighed"), "model.sha256.model.safetensors"),
        ((short_rows, *SMALL, "--model", tmp_path / "respelled"), "tokenizer.tokenizer.json"),
        ((short_rows, *SMALL, "--backend", "triton"), "backend.focus"),
        ((edited, *SMALL), "data.xxh3_128"),
        ((short_rows, *SMALL, "--model", tmp_path / "model"), "model.sha256.config.json"),
        ((short_rows, *SMALL, "--limit", "6"), "data.rows"),
        ((short_rows, *SMALL, "--d-afs", "2"), "settings.d_afs"),
        ((short_rows, *SMALL, "--layers", "1,2"), "layers"),
        ((short_rows, *SMALL, "--dtype", "bfloat16"), "dtype"),
    ]:
        result = ladm("score", *arguments, "--output", folder)
        assert result.exit_code == 1, field
        assert f"{folder} was started with something else (" in result.stderr
        assert "; give what it was started with, another --output, or --overwrite to delete the run" in result.stderr
        assert f"\n  {field}: " in result.stderr
    result = ladm("score", short_rows, *SMALL, "--score", "robust", "--output", folder)
    assert f"for another score of a finished run: ladm rescore {folder} --score NAME -o RUN2" in result.stderr
    assert results(folder) == before


def test_a_moved_copy_of_the_same_data_and_model_resumes(ladm: Run, short_rows: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ladm("score", short_rows, *SMALL, "--output", folder)
    shutil.copytree(GOLDEN, tmp_path / "model copy")
    shutil.copytree(short_rows, tmp_path / "rows copy")
    result = ladm("score", tmp_path / "rows copy", *SMALL, "--model", tmp_path / "model copy", "--output", folder)
    assert result.exit_code == 0
    assert result.stdout.startswith("already finished: 7 rows scored")
