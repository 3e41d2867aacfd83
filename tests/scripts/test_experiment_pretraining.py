"""Continual pretraining in miniature: pack, judge, run with a kill and a resume, tables and report, on the CPU."""

from __future__ import annotations

import gzip
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.commands import run_script
from support.interruptions import Stopped, disk_operations, stop_at
from support.paths import ROOT

SCRIPTS = ROOT / "scripts" / "experiment"
sys.path.append(str(SCRIPTS))
sys.path.append(str(SCRIPTS / "pretraining"))

import arms  # noqa: E402
import judge  # noqa: E402
from pretraining import files, report  # noqa: E402
from pretraining import pack as packing  # noqa: E402

TOKENS, STUDENT_ROWS, HELD_OUT = 1024, 8, 4


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pool of invented text, a tiny model and its tokenizer."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("pretraining")
    draw = np.random.default_rng(0)
    words = ["".join(map(chr, draw.integers(97, 123, 4))) for _ in range(300)]
    texts = [" ".join(words[k] for k in draw.integers(0, 300, 1200)) for _ in range(44)]
    trained = ByteLevelBPETokenizer()
    # With the words of the needles, whose 16 facts and questions would not fit into a row otherwise.
    needle_words = [f"The number of the {colour} {animal} is 0 1 2 3 4 5 6 7 8 9"
                    for colour in packing.COLOURS for animal in packing.ANIMALS]  # fmt: skip
    trained.train_from_iterator(texts + 20 * needle_words, vocab_size=900, show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token=None)
    splits = ["held_out"] * HELD_OUT + ["pool"] * 4 * STUDENT_ROWS + ["fault"] * 8
    rows = [
        {"id": f"row {k}", "package": f"package {k % 9}", "kind": "manuals", "domain": f"domain {k % 2}",
         "split": split, "fault_kind": "logs" if split == "fault" else "", "text": text,
         "input_ids": tokenizer.encode(text)[:TOKENS]}
        for k, (split, text) in enumerate(zip(splits, texts, strict=True))
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), folder / "pool.parquet")
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, bos_token_id=None, eos_token_id=None,
        tie_word_embeddings=True,
    )  # fmt: skip
    import torch

    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder


def script(name: str, *arguments: Any) -> list[str]:
    return [sys.executable, str(SCRIPTS / name), *map(str, arguments)]


def run_here(name: str, *arguments: Any) -> None:
    """Run one of the experiment's commands, which ends with a success, in this process."""
    with pytest.raises(SystemExit) as ended:
        run_script(SCRIPTS / name, *arguments)
    assert not ended.value.code


def run_command(folder: Path) -> list[str]:
    return script("pretraining/run.py", "--model", folder / "model", "--pack", folder / "pack.npz", "--state",
                  folder / "state.json.gz", "--tokens", folder / "tokens.zip",
                  "--only", "random", "--only", "guarded", "--only", "repetition", "--seeds", 2)  # fmt: skip


def read_state(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gzip.decompress((folder / "state.json.gz").read_bytes()))
    return found


@pytest.fixture(scope="module")
def states(inputs: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state of a run that was killed after its first student, and that of its end."""
    run_here(
        "pretraining/pack.py", inputs / "pool.parquet", "--tokenizer", inputs / "model", "--output",
        inputs / "pack.npz", "--student-rows", STUDENT_ROWS, "--needle-rows", 2,
    )  # fmt: skip
    run_here("judge.py", inputs / "pack.npz", "--judge", inputs / "model", "--tokenizer", inputs / "model")
    # A tiny random judge finds no dependent tokens, and the report wants some.
    classes, judged = judge.read_classes(inputs / "classes.npz", (HELD_OUT, TOKENS))
    assert judged.all()
    assert set(np.unique(classes[:, TOKENS // 2 :])) <= {1, 2, 3}
    classes[:, TOKENS // 2 :: 5] = judge.CLASSES["D"]
    judge.save_classes(inputs / "classes.npz", classes, judged)
    # Killed by itself, when it has stored its first student: from outside the moment could be missed.
    script_name, *words = run_command(inputs)[1:]
    program = WITHOUT + KILLED.format(folder=str(Path(script_name).parent), script=script_name, words=words)
    first = subprocess.run([sys.executable, "-c", program], check=False)
    assert first.returncode == -signal.SIGKILL
    before = read_state(inputs)
    subprocess.run(run_command(inputs), check=True)
    return before, read_state(inputs)


WITHOUT = """
import sys
for name in ("accelerate", "datasets", "duckdb", "gguf", "matplotlib", "pandas", "xxhash", "zstandard"):
    sys.modules[name] = None  # an import of it raises ModuleNotFoundError
"""
"""A machine that has torch, transformers and what these need, pyarrow and click."""

KILLED = """
import os, runpy, signal, sys
sys.path.insert(0, {folder!r})
from files import State

stored = State.save

def save(state):
    stored(state)
    if state.content["students"]:
        os.kill(os.getpid(), signal.SIGKILL)

State.save = save
sys.argv = [{script!r}, *{words!r}]
runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.mark.slow
def test_the_whole_path_survives_a_kill_and_ends_in_a_report(
    inputs: Path, states: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    before, after = states
    assert len(before["students"]) == 1
    for name, student in before["students"].items():
        assert after["students"][name] == student
    assert after["scores"] == before["scores"]
    assert set(after["students"]) == {
        "random/0/0", "random/1/1", "random/0/1", "random/1/0", "guarded/0/0", "guarded/0/1",
        "repetition/0/0", "repetition/0/1",
    }  # fmt: skip
    assert len(after["scores"]) == 4 * STUDENT_ROWS
    student = after["students"]["random/0/0"]
    assert len(set(student["rows"])) == STUDENT_ROWS
    assert student["rows"] == after["students"]["random/0/1"]["rows"]
    # One pass at a small rate teaches the unigrams: the loss falls, and by far more than seeds differ.
    assert student["training_losses"][-1] < student["training_losses"][0]
    output = inputs / "results"
    common = ("--state", inputs / "state.json.gz", "--pack", inputs / "pack.npz", "--output", output)
    run_here("pretraining/tables.py", *common)
    found = report.analyse(output)
    more = ("--tokens", inputs / "tokens.zip", "--next-state", inputs / "next.json.gz")
    run_here("pretraining/tables.py", *common, *more)
    # Classes made before training and after it give the same outcomes, so that a launch can continue from either.
    following = json.loads(gzip.decompress((inputs / "next.json.gz").read_bytes()))
    assert following["identity"] == after["identity"]
    assert {name: student["held_out"] for name, student in following["students"].items()} == {
        name: student["held_out"] for name, student in after["students"].items()
    }
    for arm, of_arm in report.analyse(output)["arms"].items():
        assert of_arm["D"]["mean"] == found["arms"][arm]["D"]["mean"]
        assert of_arm["D - S"]["mean"] == pytest.approx(of_arm["D"]["mean"] - of_arm["S"]["mean"])
        assert of_arm["bigram"] == found["arms"][arm]["bigram"]
    assert found["arms"]["random"]["students"] == 4
    contrast = found["contrasts"]["D"]["guarded - random"]
    assert contrast["students"] == [2, 4]
    means = [found["arms"][arm]["D"]["mean"] for arm in ("guarded", "random")]
    assert contrast["difference"] == pytest.approx(means[0] - means[1], abs=1e-6)
    assert found["contrasts"]["D"]["repetition - random"]["students"] == [2, 4]
    assert "p_holm" not in found["contrasts"]["D"]["repetition - random"]
    page = report.as_markdown(found)
    assert "| guarded - random | loss on D |" in page
    # The same 256 tokens after 256 and after 768 others.
    assert found["ladder"]["random"]["context"] == [256, 768]
    assert len(found["ladder"]["random"]["loss"]) == 2
    assert "| loss of the same last tokens after | 256 | 768 | gain | +- |" in page


@pytest.mark.slow
@pytest.mark.usefixtures("states")
def test_a_state_of_another_pack_is_refused(inputs: Path) -> None:
    state = read_state(inputs)
    state["identity"]["pack"] = "another"
    (inputs / "other.json.gz").write_bytes(gzip.compress(json.dumps(state).encode()))
    command = [*run_command(inputs), "--state", str(inputs / "other.json.gz")]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "was started with another pack" in refused.stderr


def test_a_kill_at_any_moment_leaves_the_last_state_and_its_token_losses(tmp_path: Path) -> None:
    """Ended before and after every operation on the disk; what comes next is written over what is left."""
    state_file, archive = tmp_path / "state.json.gz", tmp_path / "tokens.zip"
    losses = np.ones((2, 3, 8), np.float32)

    def students() -> list[str]:
        return list(files.State(state_file, {"pack": "a"}).content["students"])

    def store(name: str) -> None:
        files.write_token_losses(archive, name, *losses)
        state = files.State(state_file, {"pack": "a"})
        state.content["students"][name] = {}
        state.save()

    store("first")
    with disk_operations(lambda _, do: do()) as counted:
        store("second")
    assert counted["calls"] >= 6
    for number in range(counted["calls"]):
        for after in (False, True):
            name, before = f"{number} {after}", students()
            with stop_at(number, after=after), pytest.raises(Stopped):
                store(name)
            assert students() in (before, [*before, name])
            for stored in students():
                assert (files.read_token_losses([archive], stored)["long"] == 1).all()
            store(name)
            assert students() == [*before, name]


def test_a_model_is_known_by_its_config_and_weights_and_not_by_who_converted_it(inputs: Path, tmp_path: Path) -> None:
    shutil.copytree(inputs / "model", tmp_path / "model")
    config_file, weights_file = (tmp_path / "model" / name for name in ("config.json", "model.safetensors"))
    config = json.loads(config_file.read_text())
    known = files.model_identity(inputs / "model")
    # Another release also writes the keys in another order.
    config_file.write_text(json.dumps(dict(reversed(config.items())) | {"transformers_version": "99.0"}))
    assert files.model_identity(tmp_path / "model") == known
    config_file.write_text(json.dumps(config | {"rms_norm_eps": 1.0}))
    assert {key for key, value in files.model_identity(tmp_path / "model").items() if value != known[key]} == {
        "model config"
    }
    config_file.write_text(json.dumps(config))
    content = bytearray(weights_file.read_bytes())
    content[-1] ^= 1
    weights_file.write_bytes(content)
    assert {key for key, value in files.model_identity(tmp_path / "model").items() if value != known[key]} == {
        "weights file"
    }


def test_the_committed_state_is_of_the_weights_that_the_scores_of_documents_are_of() -> None:
    root = SCRIPTS.parent.parent
    state = json.loads(gzip.decompress((SCRIPTS / "results" / "pretraining" / "state.json.gz").read_bytes()))
    runs = json.loads((root / "scripts" / "bench" / "results" / "quality" / "runs.json").read_text())
    weights = runs["smollm2/4096"]["model"]["sha256"]["model.safetensors"]
    assert state["identity"]["weights file"] == weights[:16]


@pytest.mark.slow
def test_ids_in_memory_are_scored_where_only_torch_and_transformers_are_installed(inputs: Path) -> None:
    program = f"""{WITHOUT}
import ladm
(row,) = ladm.Scorer({str(inputs / "model")!r}, score="robust", dtype="float32", device="cpu").score(list(range(256)))
assert row.error is None, row.error
try:
    import datasets
except ModuleNotFoundError:
    print(row.score)
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert float(found.stdout) > 0


def test_a_pack_is_known_by_its_arrays_and_not_by_their_compression(tmp_path: Path) -> None:
    arrays = {"ids": np.arange(12, dtype=np.uint16).reshape(3, 4), "held_out": np.array([True, False, False])}
    known = files.arrays_digest(arrays)
    # Pinned: the committed state holds such a digest.
    assert known == "443fda29337d2234"
    for k, save in enumerate((np.savez, np.savez_compressed)):
        save(tmp_path / f"{k}.npz", **dict(reversed(arrays.items())))
        with np.load(tmp_path / f"{k}.npz") as content:
            assert files.arrays_digest(content) == known
    ids = arrays["ids"]
    assert files.arrays_digest(arrays | {"ids": np.asfortranarray(ids)}) == known
    assert files.arrays_digest(arrays | {"ids": ids.astype(">u2")}) == known
    changed = ids.copy()
    changed[2, 3] += 1
    for other in (changed, ids.reshape(4, 3), ids.astype(np.int16)):
        assert files.arrays_digest(arrays | {"ids": other}) != known
    assert files.arrays_digest({"other": ids, "held_out": arrays["held_out"]}) != known


def test_rounding_lowers_the_committed_means_by_what_the_page_says() -> None:
    """Sums by class are of rounded losses, means by position of exact ones; of the same tokens but one a row."""
    state = json.loads(gzip.decompress((SCRIPTS / "results" / "pretraining" / "state.json.gz").read_bytes()))
    for name, student in state["students"].items():
        of_row = np.sum([student["held_out"]["long"][of_class] for of_class in "DCS"], axis=0)
        judged = of_row > 0
        bins = np.array(student["held_out"]["bins"])[judged]
        # The far half is the last 8,192 of 16,383 losses; the last four of eight parts are 3 x 2,048 and 2,047.
        exact = bins[:, 4:] @ [2048, 2048, 2048, 2047] / 8191
        lowered = (exact - of_row[judged] / 8192).mean()
        low, high = (0.0008, 0.0010) if name == "untrained/0/0" else (0.0015, 0.0018)
        assert low < lowered < high


def test_every_arm_takes_its_quarter_of_each_domain() -> None:
    draw = np.random.default_rng(0)
    domains = ["a"] * 40 + ["b"] * 24 + ["c"] * 16
    scores = {name: draw.random(80) for name in ("robust", "gain", *arms.TEXT_COLUMNS)}
    for job in arms.jobs():
        taken = arms.rows_of(job, scores, domains, 20)
        if job.arm == arms.UNTRAINED:
            assert taken == []
            continue
        times = 2 if job.arm == "random x2" else 1
        assert len(set(taken)) == 20 * times
        assert sum(domains[row] == "a" for row in taken) == 10 * times
    guarded = arms.rows_of(arms.Job(arm="guarded"), scores, domains, 20)
    assert int(np.argmax(scores["robust"])) not in guarded
    once = arms.rows_of(arms.Job(arm="random"), scores, domains, 20)
    assert set(once) < set(arms.rows_of(arms.Job(arm="random x2"), scores, domains, 20))


def test_an_added_arm_comes_last_and_leaves_the_others_in_their_order() -> None:
    names = [job.name for job in arms.jobs()]
    assert names[-2:] == ["repetition/0/0", "repetition/0/1"]
    assert len(names) == len(set(names)) == 57
    # The committed state has the first seven.
    state = json.loads(gzip.decompress((SCRIPTS / "results" / "pretraining" / "state.json.gz").read_bytes()))
    assert list(state["students"]) == names[:7]
    assert names[7:11] == ["guarded/0/0", "text/0/0", "gain/0/0", "guarded, lowest/0/0"]
    without_a_model = {job.arm for job in arms.jobs() if not job.ranks}
    assert without_a_model == {"untrained", "random", "random x2", "B random", "text", "B text", "repetition"}


def test_repetition_ranks_by_repeated_4grams_in_the_band_and_needs_no_model() -> None:
    values = np.arange(40.0)
    taken = arms.rows_of(arms.Job(arm="repetition"), {"repeated_4grams": values}, ["a"] * 40, 5)
    # The two above the 95th percentile rank last.
    assert taken == [37, 36, 35, 34, 33]


def test_the_band_of_pool_b_is_of_all_its_rows() -> None:
    """A selection does not know which rows are faults: ten of them with high scores widen the band."""
    intact, faults = np.arange(90.0), 1000 + np.arange(10.0)
    scores = {"robust": np.concatenate([intact, faults])}
    taken = arms.rows_of(arms.Job(arm="B guarded"), scores, ["a"] * 100, 8)
    assert taken == [94, 93, 92, 91, 90, 89, 88, 87]


def test_needles_ask_for_what_stands_at_their_distances(inputs: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(inputs / "model")
    haystack = np.array(tokenizer.encode("abcd " * 2000)[: 2 * TOKENS], np.uint16)
    ids, places, distances = packing.needles(haystack, tokenizer, np.random.default_rng(0))
    assert len(ids) == len(haystack)
    assert (np.diff(distances) != 0).all()
    for place, distance in zip(places, distances, strict=True):
        assert (ids[place] == ids[place - distance]).all()
        assert tokenizer.decode(ids[place]).isdigit()
    assert distances.max() > 0.4 * len(ids)


def test_a_bfloat16_student_keeps_rope_and_masters_in_float32(inputs: Path, tmp_path: Path) -> None:
    import torch
    from student import Students, write_long_config

    write_long_config(inputs / "model", tmp_path, 2 * TOKENS)
    losses = []
    for dtype in (torch.float32, torch.bfloat16):
        students = Students(tmp_path, device="cpu", dtype=dtype)
        assert students.model.dtype == dtype
        assert students.model.model.rotary_emb.inv_freq.dtype == torch.float32
        assert students.model.config.rope_parameters["rope_theta"] == 500_000
        rows = np.random.default_rng(0).integers(0, 500, (4, 256)).astype(np.uint16)
        losses.append(students.train(rows, seed=0)["training_losses"])
    assert losses[0] == pytest.approx(losses[1], abs=0.02)
