"""`ladm score` from the command line: numbers, files, resume, row faults, and every message in full."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from conftest import GOLDEN, read_lines, topical_rows

Run = Callable[..., Result]
SMALL = ("--model", str(GOLDEN), "--dtype", "float32", "--device", "cpu", "--span-tokens", "16")


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("sorted_by_score.jsonl", "scores.parquet", "errors.jsonl")}


@pytest.fixture
def short_rows(save_rows: Any, golden: dict[str, Any]) -> str:
    return str(save_rows(topical_rows(golden, [700, 512, 700, 650, 512, 700, 512])))


def test_golden_scores_layer_by_layer(ladm: Run, save_rows: Any, golden: dict[str, Any], tmp_path: Path) -> None:
    for number in (3, 9, 11):
        case = golden["cases"][number]
        rows = save_rows(topical_rows(golden, [case["length"]] * 4), f"rows{number}")
        result = ladm(
            "score", rows, "--model", GOLDEN, "--output", tmp_path / f"run{number}", "--dtype", "float32",
            "--span-tokens", case["span_tokens"], "--d-afs", case["d_afs"], "--d-cds", case["d_cds"],
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        lines = read_lines(tmp_path / f"run{number}" / "sorted_by_score.jsonl")
        for line in lines:
            assert line["score"] == pytest.approx(case["cds"][line["index"]], rel=1e-5)
            assert line["cds_per_layer"] == pytest.approx(case["cds_per_layer"][line["index"]], rel=1e-5)
        assert [line["index"] for line in lines] == sorted(range(4), key=lambda k: -case["cds"][k])


def test_what_is_written_and_said(ladm: Run, short_rows: str, tmp_path: Path) -> None:
    folder = tmp_path / "a run, named é"
    result = ladm("score", short_rows, *SMALL, "--output", folder, "--limit", "5")
    assert result.exit_code == 0
    assert result.stderr.splitlines()[:6] == [
        f"rows      {short_rows}: 5 documents",
        f"model     {GOLDEN}: llama, 3 layers",
        "method    released, spans of 16 tokens, m 1, n 4, n0 where the released code starts, d_afs 4, d_cds 4, "
        "ablation none, mean over layers 0-2",
        "device    cpu in float32, attention aten-flash-cpu, focus torch",
        f"output    {folder}",
        "reading the data and the model once for their identity",
    ]
    assert "tokens/s" in result.stderr
    lines = read_lines(folder / "sorted_by_score.jsonl")
    assert result.stdout.splitlines()[1:] == [
        f"score: best {lines[0]['score']:.6g}, middle {lines[2]['score']:.6g}, worst {lines[-1]['score']:.6g}",
        f"results: {folder}/sorted_by_score.jsonl",
    ]
    assert result.stdout.startswith("finished in ")
    assert ": 5 documents scored, 0 without a score" in result.stdout
    assert {line["index"]: line["meta"] for line in lines}[3] == {"pile_set_name": "domain 1"}
    assert [line["num_tokens"] for line in sorted(lines, key=lambda line: line["index"])] == [700, 512, 700, 650, 512]
    identity = json.loads((folder / "run.json").read_text())
    assert identity["layers"] == [0, 1, 2]
    assert identity["settings"]["n"] == 4
    assert identity["data"]["rows"] == 5


@pytest.mark.parametrize("batch", ["1", "2", "4"])
def test_float32_scores_are_bit_equal_whatever_the_batch(
    ladm: Run, short_rows: str, tmp_path: Path, batch: str
) -> None:
    ladm("score", short_rows, *SMALL, "--output", tmp_path / "auto")
    ladm("score", short_rows, *SMALL, "--output", tmp_path / "batched", "--batch-size", batch)
    assert results(tmp_path / "batched") == results(tmp_path / "auto")


def test_the_order_of_the_rows_changes_no_score(ladm: Run, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    rows = topical_rows(golden, [700, 512, 700, 650])
    ladm("score", save_rows(rows, "there"), *SMALL, "--output", tmp_path / "forth")
    ladm("score", save_rows(rows[::-1], "and_back"), *SMALL, "--output", tmp_path / "back")
    forth, back = results(tmp_path / "forth"), results(tmp_path / "back")
    del forth["scores.parquet"], back["scores.parquet"]
    assert forth == back


def test_layers_and_reduce(ladm: Run, short_rows: str, tmp_path: Path) -> None:
    ladm("score", short_rows, *SMALL, "--output", tmp_path / "all")
    ladm("score", short_rows, *SMALL, "--output", tmp_path / "some", "--layers", "0,2", "--reduce", "median")
    every = {line["index"]: line for line in read_lines(tmp_path / "all" / "sorted_by_score.jsonl")}
    for line in read_lines(tmp_path / "some" / "sorted_by_score.jsonl"):
        first, _, last = every[line["index"]]["cds_per_layer"]
        assert line["cds_per_layer"] == pytest.approx([first, last], rel=1e-6)
        assert line["score"] == pytest.approx((first + last) / 2, rel=1e-6)
    ladm("score", short_rows, *SMALL, "--output", tmp_path / "median", "--reduce", "median")
    for line in read_lines(tmp_path / "median" / "sorted_by_score.jsonl"):
        assert line["score"] == sorted(every[line["index"]]["cds_per_layer"])[1]


def test_variants_ablations_and_a_config_that_a_flag_beats(ladm: Run, short_rows: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("variant: paper\nd-afs: 2\nablation: no-std\nbatch_size: 2\n")
    result = ladm(
        "score", short_rows, *SMALL, "--output", tmp_path / "run", "--config", tmp_path / "c.yaml",
        "--ablation", "no-length",
    )  # fmt: skip
    assert result.exit_code == 0
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert settings == {
        "method": "ladm", "variant": "paper", "span_tokens": 16, "m": 1, "n": 2, "n0": 16, "d_afs": 2, "d_cds": 4,
        "ablation": "no-length", "reduce": "mean", "record": "layers",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["paper", "toy"])
def test_the_configs_that_are_shipped_load(name: str) -> None:
    from ladm.config import score_settings
    from ladm.settings import ScoreSettings

    path = Path(__file__).parent.parent / "configs" / f"{name}.yaml"
    loaded = score_settings(str(path), {})
    assert loaded.identity() == ScoreSettings(span_tokens=loaded.span_tokens, record=loaded.record).identity()


def test_row_faults_are_error_rows_and_good_scores_stay(
    ladm: Run, save_rows: Any, golden: dict[str, Any], tmp_path: Path
) -> None:
    ids = golden["input_ids"][2]
    bad = [None, [], [1, None, 3], ids[:200], [*ids[:511], 512], [*ids[:511], -1], ids * 3, ["a", "b"], "text", [1.5]]
    good = [ids[:512], ids[100:612]]
    rows = [{"input_ids": each, "meta": {"k": k}} for k, each in enumerate([good[0], *bad, good[1]])]
    result = ladm(
        "score", save_rows(rows, on_mixed_types="use_json"), *SMALL, "--output", tmp_path / "mixed"
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert (
        ": 2 documents scored, 10 without a score\n  empty: 1\n  no_ids: 1\n  outside_vocabulary: 2\n" in result.stdout
    )
    errors = read_lines(tmp_path / "mixed" / "errors.jsonl")
    assert [(error["position"], error["error_type"], error["message"]) for error in errors] == [
        (1, "no_ids", "input_ids is None"),
        (2, "empty", "input_ids is empty"),
        (3, "wrong_type", "input_ids holds None at token 1, not an integer"),
        (4, "too_short", "200 tokens leave no span to score"),
        (
            5,
            "outside_vocabulary",
            "id 512 at token 511 is outside the model's vocabulary of 512; was the data made with another tokenizer?",
        ),
        (
            6,
            "outside_vocabulary",
            "id -1 at token 511 is outside the model's vocabulary of 512; was the data made with another tokenizer?",
        ),
        (7, "too_long", "12288 tokens, and the model has 8192 positions"),
        (8, "wrong_type", "input_ids holds str at token 0, not an integer"),
        (9, "wrong_type", "input_ids is str, not a list of integers"),
        (10, "wrong_type", "input_ids holds float at token 0, not an integer"),
    ]
    clean = save_rows([{"input_ids": each} for each in good], "clean_rows")
    ladm("score", clean, *SMALL, "--output", tmp_path / "clean")
    scores = {line["index"]: line["score"] for line in read_lines(tmp_path / "clean" / "sorted_by_score.jsonl")}
    mixed = {line["index"]: line["score"] for line in read_lines(tmp_path / "mixed" / "sorted_by_score.jsonl")}
    assert mixed == {0: scores[0], 11: scores[1]}


def test_a_model_of_nan_scores_nothing(ladm: Run, short_rows: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(GOLDEN, tmp_path / "nan")
    weights = load_file(tmp_path / "nan" / "model.safetensors")
    name = next(key for key in weights if key.endswith("layers.1.self_attn.q_proj.weight"))
    weights[name][0, 0] = float("nan")
    save_file(weights, tmp_path / "nan" / "model.safetensors", metadata={"format": "pt"})
    result = ladm("score", short_rows, *SMALL, "--model", tmp_path / "nan", "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        f"ladm: {tmp_path / 'nan'}: the stock model's hidden states are NaN or infinite in torch.float32; its weights "
        "hold NaN, or it needs --dtype float32"
    )
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("flags", "safe"), [(("--fail-fast",), 1), (("--max-errors", "0"), 1), (("--max-errors", "1"), 2)]
)
def test_stopping_at_errors_keeps_what_is_done(
    ladm: Run, save_rows: Any, golden: Any, tmp_path: Path, flags: tuple[str, ...], safe: int
) -> None:
    rows = topical_rows(golden, [512] * 40)
    rows[3]["input_ids"] = None
    rows[20]["input_ids"] = None
    rows[39]["input_ids"] = [7]
    folder, data = tmp_path / "run", save_rows(rows)
    (tmp_path / "strict.yaml").write_text("fail_fast: true\n")
    by_file = ladm("score", data, *SMALL, "--output", tmp_path / "by_file", "--config", tmp_path / "strict.yaml")
    assert "1 row has no score, such as row 3" in by_file.stderr
    result = ladm("score", data, *SMALL, "--output", folder, *flags)
    assert result.exit_code == 1
    position, has = {1: (3, "1 row has"), 2: (20, "2 rows have")}[safe]
    assert result.stderr.splitlines()[-1] == (
        f"ladm: {has} no score, such as row {position}: input_ids is None; stopped by --max-errors or "
        "--fail-fast. Finished rows are safe, and the same command without it goes on"
    )
    again = ladm("score", data, *SMALL, "--output", folder, *flags)
    assert again.exit_code == 1
    assert again.stderr.splitlines()[-1].startswith(f"ladm: {has} no score; stopped by")
    assert ladm("score", data, *SMALL, "--output", folder).exit_code == 0
    ladm("score", data, *SMALL, "--output", tmp_path / "straight")
    assert results(folder) == results(tmp_path / "straight")


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
        "a Hub id that is not given": (
            ("org/nowhere", *model, *out), 1,
            "no such data set: org/nowhere is not a folder, nor given by the Hub: *",
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
            "no such model: org/nowhere is not a folder, and the Hub did not give it: *",
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
            f"cannot create {t}/odd.yaml/run: {t}/odd.yaml is not a folder that can be written to",
        ),
        "unknown key": (
            (good, *model, *out, "--config", f"{t}/odd.yaml"), 2,
            f"--config {t}/odd.yaml: unknown key 'span_token'; did you mean span_tokens?",
        ),
        "quite unknown key": (
            (good, *model, *out, "--config", f"{t}/other.yaml"), 2,
            f"--config {t}/other.yaml: unknown key 'fruit'; the keys are rows, model, output, variant, span_tokens, "
            "m, n, n0, d_afs, d_cds, ablation, reduce, layers, record, profile, dtype, backend, device, engine, "
            "workers, shard, batch_size, limit, max_errors, fail_fast, retry_errors, overwrite",
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
        "layers beyond": (
            (good, *model, *out, "--layers", "2-3"), 2, f"--layers names layer 3, but {GOLDEN} has layers 0-2",
        ),
        "device": (
            (good, *model, *out, "--device", "tpu"), 2, "--device 'tpu' is none of auto, cpu, cuda, cuda:0,1",
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
    result = ladm("score", save_rows(topical_rows(golden, [100, 90])), *SMALL, "--output", tmp_path / "run")
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
    for arguments, field in [
        ((short_rows, *SMALL, "--model", tmp_path / "reweighed"), "model.sha256.model.safetensors"),
        ((edited, *SMALL), "data.xxh3_128"),
        ((short_rows, *SMALL, "--model", tmp_path / "model"), "model.sha256.config.json"),
        ((short_rows, *SMALL, "--limit", "6"), "data.rows"),
        ((short_rows, *SMALL, "--d-afs", "2"), "settings.d_afs"),
        ((short_rows, *SMALL, "--layers", "1,2"), "layers"),
        ((short_rows, *SMALL, "--dtype", "bfloat16"), "dtype"),
    ]:
        result = ladm("score", *arguments, "--output", folder)
        assert result.exit_code == 1, field
        assert f"{folder} was begun with something else; give another --output" in result.stderr
        assert f"\n  {field}: " in result.stderr
    assert results(folder) == before


def test_a_moved_copy_of_the_same_data_and_model_resumes(ladm: Run, short_rows: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ladm("score", short_rows, *SMALL, "--output", folder)
    shutil.copytree(GOLDEN, tmp_path / "model copy")
    shutil.copytree(short_rows, tmp_path / "rows copy")
    result = ladm("score", tmp_path / "rows copy", *SMALL, "--model", tmp_path / "model copy", "--output", folder)
    assert result.exit_code == 0
    assert result.stdout.startswith("already finished: 7 documents scored")


def start(*arguments: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ladm", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def lines_safe(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (folder / "units").glob("*")) if folder.exists() else 0


def interrupt(process: subprocess.Popen[str], folder: Path, *, at_rows: int, number: int) -> str:
    """Send a signal to the whole process group once some rows are safe."""
    while lines_safe(folder) < at_rows and process.poll() is None:
        time.sleep(0.005)
    os.killpg(process.pid, number)
    return process.communicate()[1]


@pytest.fixture
def slower_rows(save_rows: Any, golden: dict[str, Any]) -> str:
    return str(save_rows(topical_rows(golden, [4096] * 24)))


def test_killed_twice_and_interrupted_twice_the_bytes_are_the_same(ladm: Run, slower_rows: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = ("score", slower_rows, *SMALL, "--output", folder)
    for at_rows, number, code in [
        (3, signal.SIGKILL, -9),
        (8, signal.SIGINT, 130),
        (12, signal.SIGKILL, -9),
        (18, signal.SIGTERM, 143),
    ]:
        process = start(*command)
        said = interrupt(process, folder, at_rows=at_rows, number=number)
        assert process.returncode == code, said
        assert "Traceback" not in said
        # A row that was seen but not yet synced when the signal came may be dropped again.
        assert at_rows - 1 <= lines_safe(folder) < 24
        if number != signal.SIGKILL:
            assert said.splitlines()[-1] == (
                f"ladm: stopped by {signal.Signals(number).name}; finished rows are safe in {folder}, "
                "and the same command goes on from there"
            )
    assert ladm(*command).exit_code == 0
    assert ladm(*command[:-1], tmp_path / "straight").exit_code == 0
    assert results(folder) == results(tmp_path / "straight")


def test_ctrl_c_at_a_terminal(slower_rows: str, tmp_path: Path) -> None:
    """Typed at a pseudo-terminal, as a person does, it reaches every process of the run; two workers and all."""
    command = [sys.executable, "-m", "ladm", "score", slower_rows, *SMALL, "--output", str(tmp_path / "run")]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [*map(str, command), "--workers", "2"])
    said = b""
    typed = False
    with contextlib.suppress(OSError):  # what Linux answers once the other side is gone
        while True:
            if not typed and lines_safe(tmp_path / "run") >= 2:
                os.write(terminal, b"\x03")
                typed = True
            if select.select([terminal], [], [], 0.005)[0]:
                block = os.read(terminal, 4096)
                if not block:
                    break
                said += block
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert typed, said
    assert os.waitstatus_to_exitcode(status) == 130, said
    assert b"ladm: stopped by SIGINT; finished rows are safe in " in said
    assert b"Traceback" not in said
    assert 2 <= lines_safe(tmp_path / "run") < 24


def test_paths_with_anything_in_them_and_a_locale_without_letters(short_rows: str, tmp_path: Path) -> None:
    folder = tmp_path / "ein Lauf über alles 長い"
    shutil.copytree(short_rows, tmp_path / "rows with blanks ü")
    command = [sys.executable, "-m", "ladm", "score", str(tmp_path / "rows with blanks ü"), *map(str, SMALL)]
    environment = os.environ | {"LC_ALL": "C", "LANG": "C"}
    done = subprocess.run(
        [*command, "--output", str(folder)], env=environment, capture_output=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert b"7 documents scored" in done.stdout
    assert (folder / "sorted_by_score.jsonl").exists()


def test_a_folder_that_takes_no_files_is_told_before_the_model_loads(ladm: Run, short_rows: str) -> None:
    result = ladm("score", short_rows, *SMALL, "--output", "/proc/ladm-run")
    assert result.exit_code == 74
    assert result.stderr.splitlines()[-1].startswith("ladm: cannot ")
    assert "/proc/ladm-run" in result.stderr
    assert "scoring" not in result.stderr


def test_rows_of_another_tokenizer_are_noticed(ladm: Run, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    """Where texts stand beside the ids and the model has a tokenizer, the first ones are compared."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    model = tmp_path / "model"
    shutil.copytree(GOLDEN, model)
    backend = Tokenizer(models.WordLevel({f"w{k}": k for k in range(512)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="w0").save_pretrained(model)
    ids = [k % 500 + 1 for k in golden["input_ids"][0][:512]]
    own = {"text": " ".join(f"w{k}" for k in ids), "input_ids": ids}
    arguments = [argument if argument != str(GOLDEN) else str(model) for argument in map(str, SMALL)]
    result = ladm("score", save_rows([own] * 3, "own"), *arguments, "--output", tmp_path / "a")
    assert result.exit_code == 0
    assert "warning" not in result.stderr
    other = own | {"text": " ".join(f"w{(k * 7) % 511}" for k in ids)}
    rows = save_rows([own, other, own], "other")
    result = ladm("score", rows, *arguments, "--output", tmp_path / "b")
    assert f"warning   row 1 of {rows}: 0% of its first ids are what the model's own tokenizer makes" in result.stderr


def test_help_is_quick_and_loads_no_torch() -> None:
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "ladm", "--help"], check=True, capture_output=True)
        seconds.append(time.monotonic() - began)
    assert min(seconds) < 0.5
    code = "import sys, ladm.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_fault_of_ours_is_one_line_too(
    ladm: Run, short_rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("division by zero\nand more")

    monkeypatch.setattr("ladm.score.finish", broken)
    result = ladm("score", short_rows, *SMALL, "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "ladm: unexpected ZeroDivisionError: division by zero and more (a fault of ladm; LADM_DEBUG=1 shows where)"
    )
