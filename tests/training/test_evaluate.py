"""`ladm evaluate`: perplexity against a plain computation, needles against greedy argmax, tasks on local data."""

from __future__ import annotations

import functools
import json
import math
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file, save_file

from ladm.errors import LadmError
from ladm.evaluation import needle, perplexity, tasks
from ladm.modeling import causal_lm as language
from ladm.modeling.language_head import CHUNK_LOGITS, LanguageHead
from ladm.settings.evaluation import TasksSettings
from support.rows import topical_rows

Command = Callable[..., Result]


@functools.lru_cache(maxsize=1)
def plain_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()


def plain_losses(folder: Path, ids: list[int]) -> torch.Tensor:
    """-log p of every token but the first, from the model's own logits in float64."""
    with torch.inference_mode():
        logits = plain_model(folder)(torch.tensor([ids])).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")


def test_perplexity_is_that_of_a_plain_computation(
    ladm: Command, golden_lm: Path, save_rows: Any, golden: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHUNK_LOGITS, "cpu", 100 * 512)
    data = topical_rows(golden, [700, 500, 650, 120])
    rows = save_rows(data)
    result = ladm(
        "evaluate", "perplexity", "--model", golden_lm, "--rows", rows, "--windows", "512,64,256", "--dtype", "float32",
        "--output", tmp_path / "p.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert f"rows      {rows}: 2 of at least 512 tokens" in result.stderr
    found = json.loads((tmp_path / "p.json").read_text())
    for window in (64, 256, 512):
        losses = [plain_losses(golden_lm, data[k]["input_ids"][:window]).mean().item() for k in (0, 2)]
        value = found["windows"][str(window)]
        assert value["perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)
        assert value["low"] <= value["perplexity"] <= value["high"]
        assert f"{window:>8,} {value['perplexity']:>11.4f}  " in result.stdout
    by_position = torch.stack([plain_losses(golden_lm, data[k]["input_ids"][:512]) for k in (0, 2)]).mean(dim=0)
    assert [(part["from"], part["to"]) for part in found["loss_by_position"]] == [(1, 127), (128, 255), (256, 511)]
    for part in found["loss_by_position"]:
        assert part["loss"] == pytest.approx(by_position[part["from"] - 1 : part["to"]].mean().item(), rel=1e-5)


def test_a_rope_that_depends_on_the_length_is_run_for_every_window(
    ladm: Command, golden_lm: Path, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    """With dynamic RoPE a prefix of a long row is not what the row cut there is, whatever was run before it."""
    folder = tmp_path / "model"
    folder.mkdir()
    config = json.loads((golden_lm / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    config["max_position_embeddings"] = 128
    (folder / "config.json").write_text(json.dumps(config))
    save_file(load_file(golden_lm / "model.safetensors"), folder / "model.safetensors", metadata={"format": "pt"})
    data = [topical_rows(golden, [400])[0] | {"index": index} for index in (0, 1)]
    result = ladm(
        "evaluate", "perplexity", "--model", folder, "--rows", save_rows(data), "--windows", "128,400",
        "--dtype", "float32", "--output", tmp_path / "p.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    # Twice as many as config.json says before the scaling, as `ladm score` counts them.
    assert "is made for 256 positions" in result.stderr
    found = json.loads((tmp_path / "p.json").read_text())["windows"]
    cut, whole = (plain_losses(folder, data[0]["input_ids"][:w]) for w in (128, 400))
    assert found["128"]["perplexity"] == pytest.approx(math.exp(cut.mean().item()), rel=1e-5)
    assert found["400"]["perplexity"] == pytest.approx(math.exp(whole.mean().item()), rel=1e-5)
    assert abs(cut.mean() - whole[:127].mean()) > 1e-3


def test_windows_of_a_document_are_drawn_together_for_the_intervals(
    ladm: Command, golden_lm: Path, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    """Each counted as a document of its own, and 20 windows of a book made intervals a quarter as wide."""
    books = topical_rows(golden, [128, 128, 128])
    alone = save_rows(books, "alone")
    windows = [book | {"index": k, "chunked_index": window} for k, book in enumerate(books) for window in range(8)]
    tens = save_rows(windows, "windows")
    words = ("evaluate", "perplexity", "--model", golden_lm, "--windows", "32,128", "--dtype", "float32", "--ladder")
    one, many = (
        ladm(*words, "--rows", rows, "--output", tmp_path / f"{k}.json") for k, rows in enumerate((alone, tens))
    )
    assert (one.exit_code, many.exit_code) == (0, 0), one.output + many.output
    assert "  95 % interval; 3 documents\n" in one.stdout
    assert "  95 % interval; 24 windows of 3 documents\n" in many.stdout
    expected, found = (json.loads((tmp_path / f"{k}.json").read_text()) for k in range(2))
    assert (expected["documents"], expected.get("windows_of_documents")) == (3, None)
    assert (found["documents"], found["windows_of_documents"]) == (3, 24)
    # Eight copies of a document say what one says.
    for window in ("32", "128"):
        assert found["windows"][window] == pytest.approx(expected["windows"][window])
    for a, b in zip(expected["ladder"]["steps"], found["ladder"]["steps"], strict=True):
        assert a == pytest.approx(b)
    single = ladm(*words, "--rows", save_rows(windows[:8], "single"))
    assert "interval; 8 windows of 1 document\n" in single.stdout
    assert single.stdout.splitlines()[1].endswith("  -")


def test_the_ladder_scores_the_same_tokens_with_more_context(
    ladm: Command, golden_lm: Path, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    data = topical_rows(golden, [512, 400, 512])
    words = ["evaluate", "perplexity", "--model", golden_lm, "--rows", save_rows(data), "--dtype", "float32"]
    result = ladm(*words, "--windows", "64,256,512", "--ladder", "--output", tmp_path / "p.json")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "p.json").read_text())["ladder"]
    assert found["tokens"] == 32
    assert [step["context"] for step in found["steps"]] == [32, 224, 480]
    expected = [
        [plain_losses(golden_lm, row["input_ids"][512 - w : 512])[-32:].mean().item() for w in (64, 256, 512)]
        for row in (data[0], data[2])
    ]
    for k, step in enumerate(found["steps"]):
        assert step["loss"] == pytest.approx((expected[0][k] + expected[1][k]) / 2, rel=1e-5)
        gains = [row[0] - row[k] for row in expected]
        assert step["gain"] == pytest.approx(sum(gains) / 2, abs=1e-5)
        assert step["gain_low"] <= step["gain"] <= step["gain_high"]
    assert "the same last 32 tokens" in result.stdout
    result = ladm(*words, "--windows", "512", "--ladder")
    assert (result.exit_code, result.stderr) == (
        2,
        "ladm: --ladder compares contexts; give at least two --windows\n",
    )


def test_a_haystack_is_of_its_length_and_holds_the_fact_at_its_depth(talking: Path) -> None:
    from ladm.corpus.preparation.tokenization import plain_tokenizer

    tokenizer = plain_tokenizer(str(talking))
    hay = np.full(4000, 300)
    for depth in (0.0, 0.25, 1.0):
        prompt = needle.make_haystack(hay, tokenizer, length=400, depth=depth, draw=np.random.default_rng(1))
        assert len(prompt.ids) == 400 - needle.ANSWER_TOKENS
        digits = [int(tokenizer.convert_ids_to_tokens(int(k))) for k in prompt.ids if k < 10]
        assert "".join(map(str, digits)) == prompt.number
        own = np.flatnonzero(prompt.ids != 300)
        before, room = int(own[0]), int((prompt.ids == 300).sum())
        assert before == round(depth * room)
    with pytest.raises(LadmError, match=r"^--lengths 20: needle, question and answer alone have \d+ tokens$"):
        needle.make_haystack(hay, tokenizer, length=20, depth=0.5, draw=np.random.default_rng(1))


def test_an_answer_is_greedy_and_matches_exactly(talking: Path) -> None:
    from ladm.corpus.preparation.tokenization import plain_tokenizer

    tokenizer = plain_tokenizer(str(talking))
    loaded = language.load_language(str(talking), device="cpu", dtype="float32")
    # What a model's folder may ask for, and what would keep it from repeating the number.
    loaded.model.generation_config.update(repetition_penalty=5.0, no_repeat_ngram_size=2, num_beams=2)
    prompt = needle.make_haystack(np.full(4000, 300), tokenizer, length=120, depth=0.5, draw=np.random.default_rng(1))
    ids = prompt.ids.tolist()
    for _ in range(needle.ANSWER_TOKENS):
        with torch.inference_mode():
            ids.append(int(loaded.model(torch.tensor([ids])).logits[0, -1].argmax()))
    heard: list[Any] = []

    def generate(*arguments: Any, **named: Any) -> Any:
        heard.append(real(*arguments, **named))
        return heard[-1]

    real = loaded.model.generate
    loaded.model.generate = generate
    assert not needle.answers(loaded, tokenizer, prompt)
    assert heard[0].sequences[0].tolist() == ids
    for text, right in (
        (f"{prompt.number} .", True), (f"is 12 {prompt.number}", False), (f"{prompt.number}1", False),
        (f"is : {prompt.number} . 1", True), ("1", False), ("", False),
    ):  # fmt: skip
        reader = SimpleNamespace(pad_token_id=None, decode=lambda _ids, text=text: text)
        assert needle.answers(loaded, reader, prompt) is right, text


def test_an_answer_does_not_depend_on_the_prompt_before(talking: Path, tmp_path: Path) -> None:
    """A stock model with dynamic RoPE turns a row by the angles of the longest row that it has seen so far."""
    from ladm.corpus.preparation.tokenization import plain_tokenizer

    folder = tmp_path / "model"
    shutil.copytree(talking, folder)
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    config["max_position_embeddings"] = 100
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = plain_tokenizer(str(folder))
    logits: list[torch.Tensor] = []
    for before in ((), (300,)):
        loaded = language.load_language(str(folder), device="cpu", dtype="float32")
        real = loaded.model.generate

        def generate(*arguments: Any, real: Any = real, **named: Any) -> Any:
            found = real(*arguments, **named)
            logits.append(found.logits[0])
            return found

        loaded.model.generate = generate
        for length in (*before, 200):
            draw = np.random.default_rng(1)
            prompt = needle.make_haystack(np.full(4000, 300), tokenizer, length=length, depth=0.5, draw=draw)
            needle.answers(loaded, tokenizer, prompt)
    assert torch.equal(logits[0], logits[-1])


def test_the_needle_command(
    ladm: Command, talking: Path, save_rows: Any, golden: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = save_rows(topical_rows(golden, [300] * 4))
    # The backend is that of the program that calls it, such as a notebook.
    monkeypatch.setitem(matplotlib.rcParams, "backend", "svg")
    result = ladm(
        "evaluate", "needle", "--model", talking, "--rows", rows, "--lengths", "200,100", "--depths", "3",
        "--repeats", "2", "--output", tmp_path / "n.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "n.json").read_text())
    assert found["lengths"] == [100, 200]
    assert found["depths"] == [0.0, 0.5, 1.0]
    assert np.array(found["exact_match"]).shape == (2, 3)
    assert (tmp_path / "n.png").read_bytes().startswith(b"\x89PNG")
    assert matplotlib.rcParams["backend"] == "svg"
    assert result.stdout.splitlines()[0] == "  depth       100      200"
    assert not list(tmp_path.glob("*.partial"))
    again = ladm(
        "evaluate", "needle", "--model", talking, "--rows", rows, "--lengths", "2000", "--output", tmp_path / "m.json"
    )
    assert again.exit_code == 1
    assert again.stderr.endswith("tokens in all, but a haystack needs 2,000\n")


def test_faults_in_full(ladm: Command, golden_lm: Path, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    rows = save_rows(topical_rows(golden, [300]))
    p = ("evaluate", "perplexity", "--model", golden_lm, "--rows", rows)
    n = ("evaluate", "needle", "--model", golden_lm, "--rows", rows, "--lengths", "100")
    faults: list[tuple[tuple[Any, ...], int, str]] = [
        ((*p, "--windows", "400"), 1, f"ladm: {rows}: no row has 400 tokens; give smaller --windows\n"),
        ((*n, "--output", tmp_path / "n.txt"), 2,
         f"ladm: --output {tmp_path}/n.txt: name a .json file; the heat map is written next to it\n"),
    ]  # fmt: skip
    for arguments, code, message in faults:
        result = ladm(*arguments)
        assert (result.exit_code, result.stderr) == (code, message)
    result = ladm(*p, "--windows", "100", "--output", tmp_path / "no" / "p.json")
    assert (result.exit_code, result.stderr) == (
        74, f"ladm: cannot write {tmp_path}/no/p.json: {tmp_path}/no is not a writable folder\n",
    )  # fmt: skip
    result = ladm(*p, "--windows", "many")
    assert result.exit_code == 2
    assert "'many' is not a list of numbers of tokens such as 2048,4096" in result.stderr
    result = ladm(*n, "--output", tmp_path / "n.json")
    assert result.exit_code == 1
    assert "no such tokenizer" in result.stderr


def test_needles_stopped_at_their_picture_run_again(
    ladm: Command, talking: Path, save_rows: Any, golden: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = save_rows(topical_rows(golden, [300] * 2))
    words = ("evaluate", "needle", "--model", talking, "--rows", rows, "--lengths", "100", "--depths", "1",
             "--repeats", "1", "--output", tmp_path / "n.json")  # fmt: skip

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    for place in ("write_whole", "replacing"):
        with monkeypatch.context() as patch:
            patch.setattr(needle, place, stop)
            assert ladm(*words).exit_code == 130
    assert (tmp_path / "n.json").exists()
    assert ladm(*words).exit_code == 0
    assert (tmp_path / "n.png").exists()


def test_a_model_without_finite_logits_is_refused(
    ladm: Command, talking: Path, save_rows: Any, golden: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = save_rows(topical_rows(golden, [300] * 2))
    remedy = "its weights are damaged, or it needs another --dtype, such as float32"
    p = ("evaluate", "perplexity", "--model", talking, "--rows", rows, "--windows", "64,128")
    n = ("evaluate", "needle", "--model", talking, "--rows", rows, "--lengths", "100", "-o", tmp_path / "n.json")
    real = perplexity.token_losses

    # exp of the second is beyond any number.
    for value in (float("nan"), 3000.0):

        def overflowing(loaded: Any, ids: torch.Tensor, value: float = value) -> torch.Tensor:
            losses = real(loaded, ids).clone()
            losses[0, 70:] = value
            return losses

        with monkeypatch.context() as patch:
            patch.setattr(perplexity, "token_losses", overflowing)
            result = ladm(*p)
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (
            1, f"ladm: row 0 of {rows}: the perplexity of {talking} is not finite; {remedy}",
        )  # fmt: skip
    weights = load_file(talking / "model.safetensors")
    weights["model.norm.weight"][3] = float("inf")
    save_file(weights, talking / "model.safetensors", metadata={"format": "pt"})
    for words in (p, n):
        result = ladm(*words)
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (
            1, f"ladm: {talking}: its logits are not finite; {remedy}",
        )  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(LanguageHead, "check", lambda *_args, **_named: None)
        result = ladm(*n)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        1, f"ladm: {talking}: logits after 84 tokens are not finite; {remedy}",
    )  # fmt: skip
    assert not (tmp_path / "n.json").exists()


def test_a_head_that_is_more_than_linear_is_refused(golden_lm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForCausalLM

    forward = LlamaForCausalLM.forward

    def scaled(self: Any, *arguments: Any, **named: Any) -> Any:
        out = forward(self, *arguments, **named)
        out.logits = out.logits * 2
        return out

    monkeypatch.setattr(LlamaForCausalLM, "forward", scaled)
    with pytest.raises(LadmError, match="the head of this llama is not a linear one"):
        language.load_language(str(golden_lm), device="cpu", dtype="float32")


@pytest.mark.parametrize("content", ['{"auto_map": ', "7"])
def test_a_damaged_file_of_a_tokenizer_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(LadmError, match=r"^m: tokenizer_config.json is damaged: .*; download the model again$"):
        tasks.require_no_code("m", tmp_path)


def test_marks_are_gathered_from_every_task() -> None:
    found = {
        "results": {
            "arc_easy": {"alias": "arc_easy", "acc,none": 0.5, "acc_stderr,none": 0.1, "acc_norm,none": 0.6},
            "mmlu": {"acc,none": 0.3, "acc_stderr,none": "N/A", "sample_len": 4},
            "one": {"acc,none": 1.0, "acc_stderr,none": float("nan")},
        }
    }
    assert [(m["task"], m["metric"], m["value"], m["error"]) for m in tasks.marks_of(found, 5, None)] == [
        ("arc_easy", "acc", 0.5, 0.1), ("arc_easy", "acc_norm", 0.6, None), ("mmlu", "acc", 0.3, None),
        ("one", "acc", 1.0, None),
    ]  # fmt: skip
    assert tasks.shots_of(("ruler", "mine")) == {"ruler": None, "mine": None}
    assert tasks.shots_of(("short",))["arc_challenge"] == 25


def test_rulers_lengths_are_those_that_the_model_has(golden_lm: Path) -> None:
    assert tasks.ruler_lengths(TasksSettings(), golden_lm) == [4096, 8192]
    assert tasks.ruler_lengths(TasksSettings(length=20_000), golden_lm) == [4096, 8192, 16384]


def test_arguments_of_lm_eval(talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its --limit takes the first questions of all lengths together, and its mean is of 4,096 tokens alone."""
    lengths: list[list[int]] = []
    handed: list[dict[str, Any]] = []

    class Manager:
        def __init__(self, include_path: Any, metadata: dict[str, Any] | None = None) -> None:
            self.include_path, self.lengths = include_path, (metadata or {}).get("max_seq_lengths")

        def match_tasks(self, names: list[str]) -> list[str]:
            return [name for name in names if name != "nonesuch"]

    def evaluate(task_manager: Manager, **named: Any) -> dict[str, Any]:
        if task_manager.lengths is None:
            handed.append(named)
            if named["tasks"] == ["hellaswag"]:
                raise ValueError("no such data")
            return {"results": {named["tasks"][0]: {"acc,none": 0.5}}}
        lengths.append(task_manager.lengths)
        length = task_manager.lengths[0]
        values = {f"{each},none": 0.5 if each == length else -1.0 for each in (4096, 8192)}
        return {"results": {"niah_single_1": values, "ruler_vt": values | {f"{length},none": 1.0}}}

    fake, of_tasks = types.ModuleType("lm_eval"), types.ModuleType("lm_eval.tasks")
    fake.simple_evaluate = evaluate  # type: ignore[attr-defined]
    of_tasks.TaskManager = Manager  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lm_eval", fake)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", of_tasks)
    settings = TasksSettings(model=str(talking), tasks=("ruler",), device="cpu", dtype="float32")
    found = tasks.tasks(settings, echo=print)
    assert lengths == [[4096], [8192]]
    assert [(mark["task"], mark["metric"], mark["value"]) for mark in found["marks"]] == [
        ("niah_single_1", "4096", 0.5), ("ruler_vt", "4096", 1.0), ("ruler", "4096", 0.75),
        ("niah_single_1", "8192", 0.5), ("ruler_vt", "8192", 1.0), ("ruler", "8192", 0.75),
    ]  # fmt: skip
    output = tmp_path / "short.json"
    settings = TasksSettings(
        model=str(talking), tasks=("longbench", "short"), device="cpu", dtype="float32", limit=3, length=256,
        output=str(output),
    )  # fmt: skip
    with pytest.raises(
        LadmError, match=f"lm-eval failed in hellaswag: no such data; . earlier results are in {output}"
    ):
        tasks.tasks(settings, echo=print)
    shots = {call["tasks"][0]: call["num_fewshot"] for call in handed}
    assert (shots["longbench"], shots["arc_challenge"], shots["hellaswag"]) == (None, 25, 10)
    for call in handed:
        assert (call["model"], call["limit"], call["batch_size"], call["device"]) == ("hf", 3, 1, "cpu")
        assert call["model_args"] == {
            "pretrained": str(talking), "dtype": "float32", "trust_remote_code": False, "max_length": 256,
        }  # fmt: skip
    assert json.loads(output.read_text())["finished"] is False
    (talking / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.py", null]}}')
    with pytest.raises(LadmError, match=r"names code .auto_map., which lm-eval's RULER would run"):
        tasks.tasks(TasksSettings(model=str(talking), tasks=("ruler",)), echo=print)
    with pytest.raises(LadmError, match=r"^lm-eval has no task nonesuch; the suites of ladm are short, longbench, "):
        tasks.tasks(TasksSettings(model=str(talking), tasks=("nonesuch",)), echo=print)


@pytest.mark.slow
def test_lm_eval_has_every_task_of_the_suites() -> None:
    lm_tasks = pytest.importorskip("lm_eval.tasks")
    known = lm_tasks.TaskManager()
    named = {name for suite in tasks.SUITES.values() for name in suite} | {"longbench", "ruler"}
    assert {name for name in named if not known.match_tasks([name])} == set()


@pytest.mark.slow
def test_a_task_of_ruler(ladm: Command, talking: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    result = ladm(
        "evaluate", "tasks", "--model", talking, "--task", "niah_single_1", "--length", "4096", "--limit", "2",
        "--dtype", "float32", "--output", tmp_path / "t.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (mark,) = json.loads((tmp_path / "t.json").read_text())["marks"]
    assert (mark["task"], mark["metric"]) == ("niah_single_1", "4096")
    assert 0 <= mark["value"] <= 1


def test_without_lm_eval_the_remedy_is_named(golden_lm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(
        LadmError, match=r"^ladm evaluate tasks needs lm-eval .*; run pip install '\.\[eval\]' in ladm's source folder$"
    ):
        tasks.tasks(TasksSettings(model=str(golden_lm)), echo=print)


@pytest.mark.slow
def test_a_task_of_ones_own_is_run_by_lm_eval(ladm: Command, talking: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    folder = tmp_path / "tasks"
    folder.mkdir()
    questions = [{"q": f"w{k} is", "choices": ["The", "magic"], "gold": k % 2} for k in range(6)]
    (folder / "q.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions))
    (folder / "own.yaml").write_text(
        "task: own_choice\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: "
        f"{folder}/q.jsonl\ntest_split: test\noutput_type: multiple_choice\ndoc_to_text: q\n"
        "doc_to_choice: choices\ndoc_to_target: gold\nmetric_list:\n  - metric: acc\n"
    )
    result = ladm(
        "evaluate", "tasks", "--model", talking, "--task", "own_choice", "--include-path", folder, "--dtype", "float32",
        "--output", tmp_path / "t.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (mark,) = json.loads((tmp_path / "t.json").read_text())["marks"]
    right = 0
    for question in questions:
        from ladm.corpus.preparation.tokenization import plain_tokenizer

        tokenizer = plain_tokenizer(str(talking))
        losses = [
            plain_losses(talking, tokenizer(f"{question['q']} {word}")["input_ids"])[-1].item()
            for word in question["choices"]
        ]
        right += int(np.argmin(losses)) == question["gold"]
    assert (mark["task"], mark["metric"], mark["value"]) == ("own_choice", "acc", right / 6)
    result = ladm("evaluate", "tasks", "--model", talking, "--task", "nonesuch")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        1, "ladm: lm-eval has no task nonesuch; the suites of ladm are short, longbench, ruler",
    )  # fmt: skip
