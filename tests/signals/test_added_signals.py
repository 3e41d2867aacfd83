"""Signals that are added to a finished run, and ProLong's score, which is always a run of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result

import ladm as front
from ladm.errors import UsageError
from ladm.modeling.facts import model_facts
from ladm.runs.columns.by_name import read_columns
from ladm.runs.folder import Run
from ladm.scoring.plan import Plan
from ladm.signals.prolong import SEGMENT_TOKENS, choose_pairs, long_dependency
from support.files import read_lines
from support.rows import topical_rows
from support.runs import results

Command = Callable[..., Result]
LENGTHS = [700, 512, 600]
"""Those of the fixture `rows`."""


def by_index(folder: Path) -> dict[int, dict[str, Any]]:
    return {line["index"]: line for line in read_lines(folder / "sorted_by_score.jsonl")}


def files(folder: Path) -> dict[str, bytes]:
    """What a run folder holds, without its added signals."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "signals" not in path.relative_to(folder).parts and not path.name.startswith(".")
    }


def test_signals_are_added_without_scoring_again(
    ladm: Command, rows: str, small: Any, run: Path, tmp_path: Path
) -> None:
    before = files(run)
    command = ("score", rows, *small, "--span-tokens", "16", "--output")
    assert ladm(*command, tmp_path / "once", "--signals", "cds,context-gain,longattn,text").exit_code == 0
    added = ladm(*command, run, "--signals", "cds,context-gain,longattn,text")
    assert added.exit_code == 0, added.stderr
    assert f"signal    context-gain, added to {run}" in added.stderr
    assert added.stdout.splitlines()[3:] == [
        "context-gain: gain, gain_positive, longfilter, key_tokens, gain_no_copy of 3 rows, in "
        f"{run}/signals/context-gain",
        f"longattn: longattn_ds, longattn_v of 3 rows, in {run}/signals/longattn",
        "text: gzip_ratio, far_rare, unigram_entropy, repeated_4grams, repeated_13grams, characters_per_token, digits "
        f"of 3 rows, in {run}/signals/text",
    ]
    assert f"next: ladm compare {run} --columns score,gain,longattn_ds,gzip_ratio\n" in added.stderr
    assert added.stderr.count("scoring: 100% of 3 rows") == 3
    assert files(run) == before
    assert sorted(path.name for path in (run / "signals").iterdir()) == ["context-gain", "longattn", "text"]
    expected = by_index(tmp_path / "once")
    for name, columns in (("context-gain", 5), ("longattn", 2), ("text", 7)):
        found = by_index(run / "signals" / name)
        assert len(found) == 3
        for index, line in found.items():
            own = {key: line[key] for key in list(line)[-columns:]}
            assert own == {key: expected[index][key] for key in own}
            assert line["score"] == next(iter(own.values()))
    once = read_columns(Run.read(tmp_path / "once"), ["gain", "longattn", "digits"]).to_pylist()
    joined = read_columns(Run.read(run), ["gain", "longattn", "digits"]).to_pylist()
    assert joined == once
    for folder in (run, run / "signals" / "text"):
        assert ladm("verify", folder, "--deep").exit_code == 0
        assert ladm("status", folder).exit_code == 0
    added_text = results(run / "signals" / "text")
    again = ladm(*command, run, "--signals", "cds,context-gain,longattn,text")
    assert again.stdout.startswith("already finished")
    assert results(run / "signals" / "text") == added_text
    unit = run / "signals" / "text" / "units" / "000000.jsonl"
    unit.write_bytes(unit.read_bytes().replace(b"digits", b"dogits", 1))
    damaged = ladm("verify", run)
    assert damaged.exit_code == 74
    assert str(unit) in damaged.stdout


def test_a_command_that_adds_says_nothing_of_the_method(ladm: Command, rows: str, small: Any, run: Path) -> None:
    """Without `cds` among its signals the run's own settings are not compared; with it they are."""
    refused = ladm("score", rows, *small, "--signals", "cds,longattn", "--output", run)
    assert refused.exit_code == 1
    assert "something else (--span-tokens);" in refused.stderr
    assert not (run / "signals").exists()
    assert ladm("score", rows, *small, "--signals", "longattn", "--output", run).exit_code == 0
    assert (run / "signals" / "longattn" / "scores.parquet").exists()
    other = ladm("score", rows, *small, "--signals", "context-gain", "--limit", "2", "--output", run)
    assert other.exit_code == 1
    assert f"{run} was scored with other rows or another model:\n  the rows.rows: 3 before, 2 now" in other.stderr


def test_an_added_signal_that_was_stopped_goes_on(ladm: Command, rows: str, small: Any, run: Path) -> None:
    command = ("score", rows, *small, "--signals", "text", "--output", run)
    assert ladm(*command).exit_code == 0
    folder = run / "signals" / "text"
    whole = results(folder)
    sealed = folder / "units" / "000000.jsonl"
    first = sealed.read_bytes().splitlines(keepends=True)[0]
    sealed.unlink()
    (folder / "sorted_by_score.jsonl").unlink()
    (folder / "units" / "000000.open").write_bytes(first + b'{"position": 1, "sta')
    assert json.loads(ladm("status", folder, "--json").stdout)["done"] == 1
    assert ladm(*command).exit_code == 0
    assert results(folder) == whole


def test_another_form_of_an_added_signal_is_refused_without_a_way_to_lose_the_run(
    ladm: Command, rows: str, small: Any, run: Path
) -> None:
    command = ("score", rows, *small, "--output", run, "--signals", "context-gain")
    assert ladm(*command).exit_code == 0
    folder, before = run / "signals" / "context-gain", files(run)
    result = ladm(*command, "--context-gain", "blocks")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-2:] == [
        f"ladm: {folder} was started with something else (--context-gain); give what it was started with, or remove "
        f"{folder} to compute the signal again:",
        '  signals.context-gain.scheme: "suffix" before, "blocks" now',
    ]
    assert files(run) == before
    shutil.rmtree(folder)
    assert ladm(*command, "--context-gain", "blocks").exit_code == 0


def test_cds_cannot_be_added(ladm: Command, rows: str, small: Any, tmp_path: Path) -> None:
    run = tmp_path / "text"
    assert ladm("score", rows, *small, "--signals", "text", "--output", run).exit_code == 0
    result = ladm("score", rows, *small, "--signals", "cds,text", "--output", run)
    assert result.exit_code == 1
    assert f"{run} was scored without cds, which cannot be added to a run; give another --output" in result.stderr


def test_overwrite_removes_added_signals_and_nothing_else(ladm: Command, rows: str, small: Any, run: Path) -> None:
    assert ladm("score", rows, *small, "--signals", "text", "--output", run).exit_code == 0
    command = ("score", rows, *small, "--span-tokens", "16", "--signals", "cds", "--overwrite", "--output", run)
    mine = run / "signals" / "text" / "mine.txt"
    mine.write_text("kept")
    refused = ladm(*command)
    assert refused.exit_code == 1
    assert f"{run} holds more than a run (mine.txt); move that away" in refused.stderr
    mine.unlink()
    (run / "signals" / "notes").write_text("kept")
    assert f"{run} holds more than a run (signals/notes)" in ladm(*command).stderr
    (run / "signals" / "notes").unlink()
    # What a removal that was stopped leaves behind: a folder of a signal without its identity.
    (run / "signals" / "text" / "run.json").unlink()
    assert ladm(*command).exit_code == 0
    assert not (run / "signals").exists()
    assert (run / "scores.parquet").exists()


def test_prolong_is_that_of_plain_perplexities(
    ladm: Command, rows: str, small: Any, golden: Any, golden_lm: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    run = tmp_path / "run"
    result = ladm("score", rows, *small, "--signals", "prolong", "--output", run)
    assert result.exit_code == 0, result.stderr
    # Segments 5 + 4 + 4, pairs 10 + 6 + 6, each of 256 tokens, beside 1,812 tokens of the rows.
    assert (
        "prolong   13 segments and 22 pairs of them: 4.0 times the tokens of the rows go through the model; "
        "--prolong-pairs N samples"
    ) in result.stderr
    model = AutoModelForCausalLM.from_pretrained(golden_lm, dtype=torch.float32, attn_implementation="eager").eval()

    def perplexity(ids: list[int]) -> float:
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0, -SEGMENT_TOKENS:-1]
        return torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1 - SEGMENT_TOKENS :])).exp().item()

    for index, line in by_index(run).items():
        ids = topical_rows(golden, LENGTHS)[index]["input_ids"]
        parts = [ids[k : k + SEGMENT_TOKENS] for k in range(0, len(ids) - SEGMENT_TOKENS + 1, SEGMENT_TOKENS)]
        pairs = choose_pairs(len(parts), most=None, seed=0)
        alone = np.array([perplexity(part) for part in parts])
        given = np.array([perplexity(parts[j] + parts[i]) for j, i in pairs])
        expected = long_dependency(alone, pairs, given)
        assert (line["prolong"], line["prolong_pairs"]) == (pytest.approx(expected.score, rel=1e-3), len(pairs))
        assert line["prolong_per_pair"] == pytest.approx(expected.per_pair, rel=1e-3)
        assert line["score"] == line["prolong"]


def test_prolong_cuts_a_row_without_its_bos(golden_lm: Path, golden: Any) -> None:
    scorer = front.Scorer(golden_lm, signals="prolong", dtype="float32", device="cpu")
    bos = json.loads((golden_lm / "config.json").read_text())["bos_token_id"]
    ids = [k for k in topical_rows(golden, [700])[0]["input_ids"] if k != bos][:513]
    plain, with_bos, short = scorer.score([ids, [bos, *ids], [bos, *ids[:255]]])
    assert with_bos.columns == plain.columns
    assert short.error == "255 tokens without BOS are fewer than two segments of 128"


def test_prolong_beside_other_signals_is_a_run_of_its_own(ladm: Command, rows: str, small: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ("score", rows, *small, "--signals", "prolong,text", "--prolong-pairs", "3", "--output", run)
    assert ladm(*command).exit_code == 0
    assert "prolong" not in by_index(run)[0]
    assert by_index(run / "signals" / "prolong")[0]["prolong_pairs"] == 3
    stored = json.loads((run / "signals" / "prolong" / "run.json").read_text())
    assert stored["signals"] == {"prolong": {"pairs": "3"}}
    other = ladm(*command[:-4], "--prolong-pairs", "4", "--output", run)
    assert "something else (--prolong-pairs);" in other.stderr


@pytest.mark.slow
def test_worker_processes_score_an_added_signal_too(ladm: Command, rows: str, small: Any, tmp_path: Path) -> None:
    """One after the other for the run and for the signal, each with the plan of its own."""
    run = tmp_path / "run"
    command = ("score", rows, *small, "--signals", "text,longattn", "--workers", "1", "--output", run)
    assert ladm(*command).exit_code == 0
    more = ladm(*command[:-5], "text,longattn,prolong", "--prolong-pairs", "2", "--workers", "1", "--output", run)
    assert more.exit_code == 0, more.stderr
    assert len(by_index(run / "signals" / "prolong")) == 3


def test_rows_of_less_than_two_segments_have_no_prolong(
    ladm: Command, save_rows: Any, golden: Any, small: Any, tmp_path: Path
) -> None:
    rows = save_rows(topical_rows(golden, [255, 256]))
    assert ladm("score", rows, *small, "--signals", "prolong", "--output", tmp_path / "run").exit_code == 0
    (error,) = read_lines(tmp_path / "run" / "errors.jsonl")
    assert (error["error_type"], error["message"]) == ("too_short", "255 tokens are fewer than two segments of 128")


def test_commands_that_need_cds_refuse_a_run_without(ladm: Command, rows: str, small: Any, tmp_path: Path) -> None:
    run = tmp_path / "text"
    assert ladm("score", rows, *small, "--signals", "text", "--output", run).exit_code == 0
    for command in (
        ("rescore", run, "--reduce", "median", "--output", tmp_path / "other"),
        ("inspect", run, "--id", "0"),
    ):
        result = ladm(*command)
        assert result.exit_code == 1, command
        assert "a run of text alone has no CDS; score its rows with --signals cds" in result.stderr
    assert ladm("select", run, "--rows", rows, "--tokens", "600", "--output", tmp_path / "subset").exit_code == 0


def test_a_dry_run_of_any_signals(ladm: Command, rows: str, small: Any) -> None:
    for signals in ("text", "cds,context-gain", "prolong", "cds,prolong"):
        result = ladm("score", rows, *small, "--signals", signals, "--dry-run")
        assert result.exit_code == 0, result.stderr
        assert "results: about" in result.stdout
        assert "timing    at most 3 rows of " in result.stderr


def test_a_dry_run_times_what_is_added_to_a_run_and_nothing_else(
    ladm: Command, rows: str, small: Any, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = []

    def note_signals(plan: Plan, *_: Any, **__: Any) -> tuple[dict[int, float], float]:
        timed.append(plan.signals)
        return {512: 2.0, 700: 3.0}, 10.0

    monkeypatch.setattr("ladm.scoring.dry_run._time", note_signals)
    one = ladm("score", rows, *small, "--signals", "text,longattn", "--output", run, "--dry-run")
    both = ladm("score", rows, *small, "--signals", "cds,prolong", "--span-tokens", "16", "--dry-run")
    assert timed == [("longattn",), ("text",), ("cds",), ("prolong",)]
    for result in (one, both):
        assert "a row of 512 tokens: 4 s\na row of 700 tokens: 6 s\n" in result.stdout
        # Two passes of three rows, two of them of the lengths that were timed, 600 tokens in between.
        assert f"hours on 1 device: {2 * (2 + 3 + 2 + 88 / 188) / 3600:.3g} (14 s)\n" in result.stdout
        assert "results: about 0.000172 MiB" in result.stdout

    # Of a corpus: no exponent.
    monkeypatch.setattr("ladm.scoring.dry_run._time", lambda *_, **__: ({512: 2.4e6, 700: 2.4e6}, 10.0))
    long = ladm("score", rows, *small, "--dry-run")
    assert "a row of 512 tokens: 2,400,000 s\n" in long.stdout
    assert "hours on 1 device: 2,000\n" in long.stdout


def test_a_dry_run_without_a_run_folder_does_not_take_the_working_folder_for_it(
    ladm: Command, rows: str, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("score", rows, *small, "--signals")
    there = ladm(*command, "text,prolong", "--prolong-pairs", "2", "--output", tmp_path / "run")
    assert there.exit_code == 0, there.stderr
    timed = []

    def note_signals(plan: Plan, *_: Any, **__: Any) -> tuple[dict[int, float], float]:
        timed.append(plan.signals)
        return {512: 2.0}, 10.0

    monkeypatch.setattr("ladm.scoring.dry_run._time", note_signals)
    monkeypatch.chdir(tmp_path / "run")
    result = ladm(*command, "cds,text,prolong", "--prolong-pairs", "3", "--span-tokens", "16", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert timed == [("cds", "text"), ("prolong",)]


def test_a_dry_run_of_signals_that_the_run_itself_has(ladm: Command, rows: str, small: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ("score", rows, *small, "--span-tokens", "16", "--output", run, "--signals")
    assert ladm(*command, "cds,text").exit_code == 0
    result = ladm(*command, "text", "--dry-run")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        1, f"ladm: {run} has text already: nothing is left to score",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("signals", "expected"), [("text", {}), ("prolong", {"too_short": 2}), ("cds", {"too_long": 1, "too_short": 2})]
)
def test_a_dry_run_refuses_what_the_signals_refuse(
    ladm: Command,
    save_rows: Any,
    golden: Any,
    small: Any,
    golden_lm: Path,
    signals: str,
    expected: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A row of 8,192 tokens and all its pairs of segments take long.
    monkeypatch.setattr("ladm.scoring.dry_run._time", lambda *_, **__: ({512: 2.0}, 10.0))
    limit = model_facts(str(golden_lm)).max_tokens
    assert limit is not None
    lengths = [10, 100, 512, limit + 1]
    ids = [np.resize(golden["input_ids"][0], n).tolist() for n in lengths]
    rows = save_rows([{"input_ids": each, "index": k} for k, each in enumerate(ids)])
    command = ("score", rows, *small, "--signals", signals, "--span-tokens", "16", "--dry-run")
    result = ladm(*command)
    assert result.exit_code == 0, result.stderr
    found = dict(line.removeprefix("no score: ").split() for line in result.stdout.splitlines() if "no score" in line)
    assert {kind: int(count) for kind, count in found.items()} == expected


def test_signals_are_added_from_python(rows: str, golden_lm: Path, run: Path) -> None:
    scored = front.score(rows, model=golden_lm, output=run, dtype="float32", device="cpu", signals="text")
    assert scored.folder == run
    assert (run / "signals" / "text" / "scores.parquet").exists()


def test_signals_other_than_cds_do_not_mind_windowed_layers(ladm: Command, rows: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, Qwen2ForCausalLM

    model = tmp_path / "windowed"
    config = AutoConfig.for_model(
        "qwen2", vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=1024, use_sliding_window=True, sliding_window=64,
        layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(model)
    common = ("score", rows, "--model", model, "--dtype", "float32", "--device", "cpu", "--signals")
    for signals in ("text", "prolong", "context-gain"):
        result = ladm(*common, signals, "--output", tmp_path / signals)
        assert result.exit_code == 0, result.stderr
        assert len(by_index(tmp_path / signals)) == 3
    refused = ladm(*common, "cds", "--output", tmp_path / "cds")
    assert "layer 0 of this qwen2 model sees only a window" in refused.stderr
    refused = ladm(*common, "longattn", "--output", tmp_path / "longattn")
    assert refused.exit_code == 1
    assert refused.stderr.endswith(
        "layer 0 of this qwen2 model sees only a window, which the focus score does not model; longattn needs its "
        "attention too: leave it out of --signals\n"
    )


def test_the_summary_says_where_added_columns_are_also_when_they_were_there(
    ladm: Command, save_rows: Any, golden: Any, small: Any, tmp_path: Path
) -> None:
    # Two tokens are too few for context-gain, and enough for nothing else.
    rows = save_rows(topical_rows(golden, [512, 2]))
    run = tmp_path / "run"
    assert ladm("score", rows, *small, "--span-tokens", "16", "--signals", "text", "--output", run).exit_code == 0
    command = ("score", rows, *small, "--signals", "text,context-gain", "--output", run, "--json")
    for _ in range(2):
        result = ladm(*command)
        assert result.exit_code == 0, result.output
        (signal,) = json.loads(result.stdout)["added"]
        assert (signal["name"], signal["folder"]) == ("context-gain", f"{run}/signals/context-gain")
        assert (signal["columns"][0], signal["rows"], signal["failed"]) == ("gain", 1, 1)
    assert "of 1 row, 1 without, in " in ladm(*command[:-1]).stdout
    (error,) = read_lines(run / "signals" / "context-gain" / "errors.jsonl")
    assert error["message"] == "2 tokens are too few for context-gain and longattn, which need at least 16"


def test_a_rescored_run_says_which_added_signals_it_lacks(
    ladm: Command, rows: str, small: Any, run: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other run"
    command = ("rescore", run, "--reduce", "median", "--output", other)
    assert "note" not in ladm(*command).stderr
    assert ladm("score", rows, *small, "--signals", "longattn,text", "--output", run).exit_code == 0
    result = ladm(*command)
    copying = f"mkdir -p '{other}/signals' && cp -r {run}/signals/longattn {run}/signals/text '{other}/signals'"
    assert result.stderr.startswith(
        f"note      {other} lacks longattn, text, which {run} has as added signals; to copy them: {copying}\n"
    )
    assert ladm("select", other, "--top", "50%", "--by", "gzip_ratio", "--dry-run").exit_code == 2
    subprocess.run(copying, shell=True, check=True)
    assert "note" not in ladm(*command).stderr
    names = ["longattn", "gzip_ratio", "length"]
    had, found = (read_columns(Run.read(folder), names).sort_by("position") for folder in (run, other))
    assert had.equals(found)
    for folder in (other, other / "signals/text"):
        assert ladm("verify", folder).exit_code == 0


def test_a_column_that_a_run_lacks_comes_with_the_command_that_computes_it(
    ladm: Command, rows: str, small: Any, run: Path, tmp_path: Path
) -> None:
    score = f"ladm score {rows} --model {small[1]} --signals context-gain -o {run}"
    of = {"gain": score, "gzip_ratio": f"ladm annotate {run}"}
    assert ladm("rescore", run, "--reduce", "median", "-o", tmp_path / "other").exit_code == 0
    for column, command in of.items():
        for words in (
            ("select", run, "--top", "50%", "--by", f"rank({column})", "--dry-run"),
            ("select", run, "--top", "50%", "--within", f"{column}:0-", "--dry-run"),
            ("select", tmp_path / "other", "--top", "50%", "--join", f"a={run}", "--by", f"a.{column}", "--dry-run"),
            ("top", run, "--by", column),
            ("report", run, "--by", column, "--output", tmp_path / "page.html"),
            ("compare", run, "--columns", f"score,{column}"),
        ):
            refused = ladm(*words)
            assert (refused.exit_code, refused.stderr) == (
                2, f"ladm: {run} has no column {column}; to compute it: {command}\n"
            )  # fmt: skip
        with pytest.raises(UsageError) as error:
            front.open_run(run).scores([column])
        assert str(error.value) == f"{run} has no column {column}; to compute it: {command}"
    for column, command in of.items():
        done = ladm(*command.split()[1:], *(() if column == "gzip_ratio" else small[2:]))
        assert done.exit_code == 0, done.output
        assert ladm("top", run, "--by", column).exit_code == 0


def test_a_column_that_cannot_be_added_comes_with_its_signal(
    ladm: Command, rows: str, small: Any, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    assert ladm("score", rows, *small, "--signals", "text", "--output", bare).exit_code == 0
    for column, signal, both in (("robust", "cds", "cds,text"), ("longattn", "longattn", "longattn,text")):
        refused = ladm("top", bare, "--by", column)
        assert refused.stderr == (
            f"ladm: {bare} has no column {column}, which is of the signal {signal}; score the rows with --signals "
            f"{both} and another --output\n"
        )
