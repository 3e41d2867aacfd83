"""`ladm score` from the command line: numbers, files, row faults, what is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from ladm.corpus.rows.reading import open_rows
from ladm.method.grid import span_grid
from ladm.modeling.facts import model_facts
from ladm.scoring.plan import make_plan
from ladm.scoring.score import score
from ladm.settings.score import ScoreSettings
from support.files import read_lines
from support.models import SMALL
from support.paths import GOLDEN, ROOT
from support.rows import topical_rows
from support.runs import results

Run = Callable[..., Result]


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
        # Of an even number of rows the middle is the median too, as ladm compare has it.
        assert f", median {(lines[1]['score'] + lines[2]['score']) / 2:.6g}, worst " in result.stdout


def test_what_is_written_and_said(ladm: Run, short_rows: str, tmp_path: Path) -> None:
    folder = tmp_path / "a run, named é"
    result = ladm("score", short_rows, *SMALL, "--output", folder, "--limit", "5")
    assert result.exit_code == 0
    assert result.stderr.splitlines()[:9] == [
        f"rows      {short_rows}: 5 rows, the first of 7",
        f"model     {GOLDEN}: llama, 3 layers",
        "method    released, spans of 16 tokens, m 1, n 4, n0 where the released code starts, d_afs 4, d_cds 4, "
        "ablation none, layers 0-2 stored",
        "score     mean over layers 0-2",
        "signals   cds, text",
        "device    cpu in float32, attention aten-flash-cpu, focus torch, fused none",
        "lengths   512 to 700 tokens, 2 rows have 700; scores can be compared only between rows of the same length",
        f"output    {folder}",
        "reading the data and the model once to identify them",
    ]
    assert "tokens/s" in result.stderr
    lines = read_lines(folder / "sorted_by_score.jsonl")
    assert result.stdout.splitlines()[1:] == [
        f"score: best {lines[0]['score']:.6g}, median {lines[2]['score']:.6g}, worst {lines[-1]['score']:.6g}",
        f"results: {folder}/sorted_by_score.jsonl",
    ]
    assert result.stdout.startswith("finished in ")
    assert ": 5 rows scored, 0 without a score" in result.stdout
    assert {line["index"]: line["meta"] for line in lines}[3] == {"pile_set_name": "domain 1"}
    assert [line["num_tokens"] for line in sorted(lines, key=lambda line: line["index"])] == [700, 512, 700, 650, 512]
    identity = json.loads((folder / "run.json").read_text())
    assert identity["layers"] == [0, 1, 2]
    assert identity["settings"]["n"] == 4
    assert identity["data"]["rows"] == 5


@pytest.mark.parametrize("batch", ["1", "2", "4"])
def test_float32_scores_are_bit_equal_whatever_the_batch(
    ladm: Run, score_once: Any, short_rows: str, tmp_path: Path, batch: str
) -> None:
    score_once(short_rows, output=tmp_path / "auto")
    ladm("score", short_rows, *SMALL, "--output", tmp_path / "batched", "--batch-size", batch)
    assert results(tmp_path / "batched") == results(tmp_path / "auto")


def test_the_order_of_the_rows_changes_no_score(ladm: Run, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    rows = topical_rows(golden, [700, 512, 700, 650])
    ladm("score", save_rows(rows, "there"), *SMALL, "--output", tmp_path / "forth")
    ladm("score", save_rows(rows[::-1], "and_back"), *SMALL, "--output", tmp_path / "back")
    forth, back = results(tmp_path / "forth"), results(tmp_path / "back")
    del forth["scores.parquet"], back["scores.parquet"]
    assert forth == back


def test_layers_and_reduce(ladm: Run, score_once: Any, short_rows: str, tmp_path: Path) -> None:
    score_once(short_rows, output=tmp_path / "all")
    ladm("score", short_rows, *SMALL, "--output", tmp_path / "some", "--layers", "0,2", "--reduce", "median")
    every = {line["index"]: line for line in read_lines(tmp_path / "all" / "sorted_by_score.jsonl")}
    for line in read_lines(tmp_path / "some" / "sorted_by_score.jsonl"):
        first, _, last = every[line["index"]]["cds_per_layer"]
        assert line["cds_per_layer"] == pytest.approx([first, last], rel=1e-6)
        assert line["score"] == pytest.approx((first + last) / 2, rel=1e-6)
    ladm("score", short_rows, *SMALL, "--output", tmp_path / "median", "--reduce", "median")
    for line in read_lines(tmp_path / "median" / "sorted_by_score.jsonl"):
        assert line["score"] == float(np.float32(sorted(every[line["index"]]["cds_per_layer"])[1]))


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
    from ladm.settings.config_file import score_settings
    from ladm.settings.score import ScoreSettings

    path = ROOT / "configs" / f"{name}.yaml"
    loaded = score_settings(str(path), {"rows": "rows", "output": "run"})
    plain = ScoreSettings(span_tokens=loaded.span_tokens, record=loaded.record)
    assert (loaded.method, loaded.reduce) == (plain.method, plain.reduce)


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
    assert ": 2 rows scored, 10 without a score\n  empty: 1\n  no_ids: 1\n  outside_vocabulary: 2\n" in result.stdout
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
        (7, "too_long", "12288 tokens, but the model has only 8192 positions"),
        (8, "wrong_type", "input_ids holds str at token 0, not an integer"),
        (9, "wrong_type", "input_ids is str, not a list of integers"),
        (10, "wrong_type", "input_ids holds float at token 0, not an integer"),
    ]
    clean = save_rows([{"input_ids": each} for each in good], "clean_rows")
    ladm("score", clean, *SMALL, "--output", tmp_path / "clean")
    scores = {line["index"]: line["score"] for line in read_lines(tmp_path / "clean" / "sorted_by_score.jsonl")}
    mixed = {line["index"]: line["score"] for line in read_lines(tmp_path / "mixed" / "sorted_by_score.jsonl")}
    assert mixed == {0: scores[0], 11: scores[1]}


def test_lengths_around_every_bound(ladm: Run, save_rows: Any, golden: dict[str, Any], tmp_path: Path) -> None:
    settings: dict[str, Any] = {"variant": "released", "l": 16, "m": 1, "n": 4, "n0": None, "d_afs": 4, "d_cds": 4}
    least = next(T for T in range(16, 8192) if span_grid(T, **settings).J)
    ids = golden["input_ids"][2] * 3
    rows = save_rows([{"input_ids": ids[:T]} for T in (1, least - 1, least, least + 1, 8192, 8193)])
    ladm("score", rows, *SMALL, "--output", tmp_path / "run")
    scored = {line["index"] for line in read_lines(tmp_path / "run" / "sorted_by_score.jsonl")}
    errors = {line["index"]: line["error_type"] for line in read_lines(tmp_path / "run" / "errors.jsonl")}
    assert scored == {2, 3, 4}
    assert errors == {0: "too_short", 1: "too_short", 5: "too_long"}


@pytest.mark.parametrize("layer", [0, 1])
def test_a_model_of_nan_scores_nothing(ladm: Run, short_rows: str, tmp_path: Path, layer: int) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(GOLDEN, tmp_path / "nan")
    weights = load_file(tmp_path / "nan" / "model.safetensors")
    name = next(key for key in weights if key.endswith(f"layers.{layer}.self_attn.q_proj.weight"))
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
    ladm: Run, score_once: Any, save_rows: Any, golden: Any, tmp_path: Path, flags: tuple[str, ...], safe: int
) -> None:
    rows = topical_rows(golden, [320] * 24)
    rows[3]["input_ids"] = None
    rows[20]["input_ids"] = None
    rows[23]["input_ids"] = [7]
    small = (*SMALL, "--layers", "0")
    folder, data = tmp_path / "run", save_rows(rows)
    (tmp_path / "strict.yaml").write_text("fail_fast: true\n")
    by_file = ladm("score", data, *small, "--output", tmp_path / "by_file", "--config", tmp_path / "strict.yaml")
    assert "1 row has no score, such as row 3" in by_file.stderr
    result = ladm("score", data, *small, "--output", folder, *flags)
    assert result.exit_code == 1
    position, has = {1: (3, "1 row has"), 2: (20, "2 rows have")}[safe]
    assert result.stderr.splitlines()[-1] == (
        f"ladm: {has} no score, such as row {position}: input_ids is None; stopped by --max-errors or --fail-fast. "
        "Finished rows are safe; to continue, run the same command without that flag"
    )
    again = ladm("score", data, *small, "--output", folder, *flags)
    assert again.exit_code == 1
    assert again.stderr.splitlines()[-1].startswith(f"ladm: {has} no score; stopped by")
    assert ladm("score", data, *small, "--output", folder).exit_code == 0
    score_once(data, "--layers", "0", output=tmp_path / "straight")
    assert results(folder) == results(tmp_path / "straight")


def test_the_rows_of_a_rescored_run_cannot_be_tried_again(
    ladm: Run, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    rows, run, median = save_rows(topical_rows(golden, [512, 10])), tmp_path / "run", tmp_path / "median"
    assert ladm("score", rows, *SMALL, "--output", run).exit_code == 0
    assert ladm("rescore", run, "--reduce", "median", "--output", median).exit_code == 0
    before = results(median)
    result = ladm("score", rows, *SMALL, "--reduce", "median", "--retry-errors", "--output", median)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        1, f"ladm: {median} was made by ladm rescore, which scores no rows; retry the errors "
        "of the run that it was made from, and rescore that",
    )  # fmt: skip
    assert results(median) == before


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
    # The token for unknown words is a special one, and those of the text are no disagreement.
    unknown = [0 if k % 3 == 0 else id_ for k, id_ in enumerate(ids)]
    foreign = {"text": " ".join(f"w{k}" if k else "foreign" for k in unknown), "input_ids": unknown}
    result = ladm("score", save_rows([own, foreign, own], "own"), *arguments, "--output", tmp_path / "a")
    assert result.exit_code == 0
    assert "warning" not in result.stderr
    other = own | {"text": " ".join(f"w{(k * 7) % 511}" for k in ids)}
    rows = save_rows([own, other, own], "other")
    result = ladm("score", rows, *arguments, "--output", tmp_path / "b")
    assert (
        f"warning   row 1 of {rows}: only 0% of its first ids match what the model's tokenizer makes" in result.stderr
    )
    # A row that is no list of ids is an error of its own, and no text says nothing.
    odd = [own | {"input_ids": [1, None, *ids[2:]]}, own | {"text": None}, own | {"input_ids": None}]
    result = ladm("score", save_rows(odd, "odd"), *arguments, "--output", tmp_path / "c")
    assert (result.exit_code, result.stdout.splitlines()[0].split(": ")[1]) == (
        0,
        "1 row scored, 2 without a score",
    )
    assert "warning" not in result.stderr


def test_a_fault_of_ours_is_one_line_too(
    ladm: Run, short_rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("division by zero\nand more")

    monkeypatch.setattr("ladm.scoring.scoring_pass.finish", broken)
    result = ladm("score", short_rows, *SMALL, "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "ladm: unexpected ZeroDivisionError: division by zero and more (a bug in ladm; set LADM_DEBUG=1 to see where)"
    )


def test_scoring_from_python_works_in_a_thread_and_is_silent(
    short_rows: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = ScoreSettings(
        rows=short_rows, model=str(GOLDEN), output=str(tmp_path / "run"), dtype="float32", device="cpu", span_tokens=16
    )
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(score, settings).result()
        assert (first.summary.scored, first.already_finished) == (7, False)
        assert thread.submit(score, settings).result().already_finished
    assert capfd.readouterr() == ("", "")
    assert first.run.is_finished


def test_rows_and_facts_that_are_at_hand_are_not_read_again(
    short_rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ScoreSettings(
        rows=short_rows, model=str(GOLDEN), output=str(tmp_path / "run"), dtype="float32", device="cpu", span_tokens=16
    )
    rows, facts = open_rows(short_rows), model_facts(str(GOLDEN))
    monkeypatch.setattr("ladm.scoring.score.open_rows", None)
    monkeypatch.setattr("ladm.scoring.plan.model_facts", None)
    assert score(settings, rows=rows, facts=facts).summary.scored == 7


def test_a_plan_and_its_scorer_need_no_folder(golden: dict[str, Any]) -> None:
    settings = ScoreSettings(model=str(GOLDEN), dtype="float32", device="cpu", span_tokens=16)
    scorer = make_plan(settings).make_scorer()("cpu")
    case = next(
        case for case in golden["cases"]
        if (case["span_tokens"], case["d_afs"], case["d_cds"], case["ablation"]) == (16, 4, 4, "none")
    )  # fmt: skip
    ids = np.array([golden["input_ids"][0][: case["length"]]])
    (scored,) = scorer.score(ids)()
    assert scored.score == pytest.approx(case["cds"][0], rel=1e-5)
