"""`ladm score --signals`: several signals from one pass, each against a plain computation, and what a run records."""

from __future__ import annotations

import functools
import json
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
from ladm.modeling.observer import load_observer
from ladm.settings.signals import COLUMNS_OF, CONTEXT_GAIN
from ladm.signals.context_gain import continues_earlier_bigram, gain_columns, windows
from ladm.signals.gain_losses import gain_losses
from ladm.signals.text_statistics import COLUMNS as TEXT_COLUMNS
from ladm.signals.text_statistics import UnigramTable, text_statistics
from support.files import read_lines
from support.paths import GOLDEN
from support.rows import topical_rows

Command = Callable[..., Result]
LENGTHS = [700, 512, 700, 650]


@pytest.fixture
def small(golden_lm: Path) -> tuple[str, ...]:
    return ("--model", str(golden_lm), "--dtype", "float32", "--device", "cpu", "--span-tokens", "16")


@pytest.fixture
def rows(save_rows: Any, golden: Any) -> str:
    return str(save_rows(topical_rows(golden, LENGTHS)))


def by_index(folder: Path) -> dict[int, dict[str, Any]]:
    return {line["index"]: line for line in read_lines(folder / "sorted_by_score.jsonl")}


@functools.lru_cache(maxsize=1)
def plain_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def plain_losses(folder: Path, ids: list[int]) -> torch.Tensor:
    """-ln p of every token but the first, by transformers alone."""
    with torch.inference_mode():
        logits = plain_model(folder)(torch.tensor([ids])).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")


@pytest.mark.parametrize("scheme", ["suffix", "blocks"])
def test_losses_are_those_of_transformers(golden: Any, golden_lm: Path, scheme: Any) -> None:
    """Of every scored token, with long and with short context, to a relative 1e-5."""
    observer = load_observer(
        model_facts(str(golden_lm)), layers=(), dtype=torch.float32, device=torch.device("cpu"), head=True
    )
    ids = golden["input_ids"][0][:700]
    ids_BT = torch.tensor([ids, ids[::-1]])
    hidden = observer.observe(ids_BT, None, to_end=True)
    assert hidden is not None
    found = gain_losses(observer, ids_BT, ids_BT, hidden, scheme=scheme)
    for row, long, short in zip(ids_BT.tolist(), found.long_BW, found.short_BW, strict=True):
        expected = [
            plain_losses(golden_lm, row[w.start : w.stop])[w.first - w.start - 1 :] for w in windows(700, scheme)
        ]
        torch.testing.assert_close(long, plain_losses(golden_lm, row)[found.first - 1 :], rtol=1e-5, atol=0)
        torch.testing.assert_close(short, torch.cat(expected), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("signals", "scheme"),
    [
        ("cds,context-gain", "suffix"), ("cds,context-gain", "blocks"), ("context-gain", "suffix"),
        pytest.param("context-gain", "blocks", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_context_gain_is_that_of_plain_losses(
    ladm: Command, rows: str, small: Any, golden: Any, golden_lm: Path, tmp_path: Path, scheme: Any, signals: str
) -> None:
    run = tmp_path / "run"
    result = ladm("score", rows, *small, "--signals", signals, "--context-gain", scheme, "--output", run)
    assert result.exit_code == 0, result.stderr
    for index, line in by_index(run).items():
        ids = topical_rows(golden, LENGTHS)[index]["input_ids"]
        long = plain_losses(golden_lm, ids)
        found = windows(len(ids), scheme)
        first = found[0].first
        short = [plain_losses(golden_lm, ids[w.start : w.stop])[w.first - w.start - 1 :] for w in found]
        copied = continues_earlier_bigram(torch.tensor(ids))[first:]
        expected = gain_columns(long[None, first - 1 :], torch.cat(short)[None], copied[None])
        for name in COLUMNS_OF[CONTEXT_GAIN]:
            # The golden model has random weights, so a mean of differences is small; it is the losses that agree.
            assert line[name] == pytest.approx(expected[name].item(), rel=1e-5, abs=1e-5 * long.mean().item()), name
        if signals == "context-gain":
            assert line["score"] == line["gain"]
            assert "cds_per_layer" not in line


def test_other_signals_change_no_bit_of_cds(ladm: Command, rows: str, small: Any, tmp_path: Path) -> None:
    alone, both = tmp_path / "alone", tmp_path / "both"
    assert ladm("score", rows, *small, "--signals", "cds", "--output", alone).exit_code == 0
    signals = "cds,context-gain,longattn,text"
    assert ladm("score", rows, *small, "--signals", signals, "--output", both).exit_code == 0
    assert "signals" not in json.loads((alone / "run.json").read_text())
    before, after = by_index(alone), by_index(both)
    for index, line in before.items():
        assert {name: after[index][name] for name in line} == line
        more = [name for name in after[index] if name not in line]
        assert more == [*COLUMNS_OF[CONTEXT_GAIN], "longattn_ds", "longattn_v", *TEXT_COLUMNS]


@pytest.mark.parametrize(
    ("signals", "layers"),
    [
        ("longattn", ()),
        ("cds,longattn", ()),
        ("cds,longattn", ("--layers", "0")),
        ("cds,longattn", ("--layers", "1-2")),
    ],
)
def test_longattn_is_that_of_whole_attention(
    ladm: Command, rows: str, small: Any, golden: Any, golden_lm: Path, tmp_path: Path, signals: str, layers: Any
) -> None:
    from transformers import AutoModel

    run = tmp_path / "run"
    assert ladm("score", rows, *small, "--signals", signals, *layers, "--output", run).exit_code == 0
    model = AutoModel.from_pretrained(golden_lm, dtype=torch.float32, attn_implementation="eager").eval()
    for index, line in by_index(run).items():
        ids = topical_rows(golden, LENGTHS)[index]["input_ids"]
        with torch.inference_mode():
            weights = model(torch.tensor([ids]), output_attentions=True).attentions[0][0].double()
        T = len(ids)
        t = torch.arange(T)
        far = t[:, None] - t[None] >= T // 4
        assert line["longattn_ds"] == pytest.approx((weights * far).sum(dim=(1, 2)).mean().item() / T, rel=1e-4)
        variance = weights[:, far].var(dim=1, unbiased=False).mean().item()
        assert line["longattn_v"] == pytest.approx(variance, rel=1e-3)


def test_text_statistics_are_a_default(ladm: Command, rows: str, small: Any, golden: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert ladm("score", rows, *small, "--output", run).exit_code == 0
    data = topical_rows(golden, LENGTHS)
    ids = [np.array(row["input_ids"]) for row in data]
    table = UnigramTable.count(ids, vocab_size=512)
    assert np.load(run / "unigrams.npy").tolist() == np.bincount(np.concatenate(ids), minlength=512).tolist()
    stored = json.loads((run / "run.json").read_text())["signals"]
    assert stored == {"cds": {}, "text": {"unigrams": table.digest(), "of": "text"}}
    for index, line in by_index(run).items():
        expected = text_statistics(ids[index], data[index]["text"], unigrams=table).columns()
        assert {name: line[name] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_text_alone_needs_no_weights_and_a_table_may_be_given(
    ladm: Command, rows: str, small: Any, tmp_path: Path, golden_lm: Path
) -> None:
    assert ladm("score", rows, *small, "--signals", "text", "--output", tmp_path / "a").exit_code == 0
    unigrams = tmp_path / "a" / "unigrams.npy"
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in golden_lm.iterdir():
        (bare / path.name).write_bytes(b"" if path.suffix == ".safetensors" else path.read_bytes())
    command = ("score", rows, "--model", bare, "--signals", "text", "--unigrams", unigrams, "--output", tmp_path / "b")
    assert ladm(*command).exit_code == 0
    first, second = by_index(tmp_path / "a"), by_index(tmp_path / "b")
    assert first == {index: line | {"rank": first[index]["rank"]} for index, line in second.items()}
    assert all(line["score"] == line["gzip_ratio"] for line in first.values())


def test_rows_whose_text_is_null_have_the_same_columns(
    ladm: Command, small: Any, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    data = topical_rows(golden, LENGTHS)
    data[1]["text"] = None
    assert ladm("score", save_rows(data), *small, "--output", tmp_path / "run").exit_code == 0
    lines = by_index(tmp_path / "run")
    assert (lines[1]["characters_per_token"], lines[1]["digits"]) == (0.0, 0.0)
    assert lines[0]["characters_per_token"] > 0


def test_rows_without_text_get_the_statistics_of_their_ids(
    ladm: Command, small: Any, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    data = [{"input_ids": row["input_ids"]} for row in topical_rows(golden, LENGTHS)]
    assert ladm("score", save_rows(data), *small, "--output", tmp_path / "run").exit_code == 0
    line = by_index(tmp_path / "run")[0]
    assert [name for name in TEXT_COLUMNS if name in line] == list(TEXT_COLUMNS[:5])


def test_a_resume_with_other_signals_is_refused(ladm: Command, rows: str, small: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert ladm("score", rows, *small, "--signals", "cds,context-gain", "--output", run).exit_code == 0
    for name in ("sorted_by_score.jsonl", "units/000000.jsonl"):
        (run / name).unlink()
    result = ladm("score", rows, *small, "--signals", "cds,longattn", "--output", run)
    assert result.exit_code == 1
    assert "something else (--signals);" in result.stderr
    other = ladm("score", rows, *small, "--signals", "cds,context-gain", "--context-gain", "blocks", "--output", run)
    assert "something else (--context-gain);" in other.stderr
    # Without the flag the run goes on as it was started.
    assert ladm("score", rows, *small, "--output", run).exit_code == 0
    assert {"gain", "cds_per_layer"} <= set(by_index(run)[0])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("cds,gain", "--signals 'gain' is not one of cds, context-gain, longattn, text, prolong"),
        ("cds,longatn", "--signals 'longatn' is not one of cds, context-gain, longattn, text, prolong; did you mean"),
        (",", "--signals is empty; choose from cds, context-gain, longattn, text, prolong"),
    ],
)
def test_signals_that_do_not_exist(
    ladm: Command, rows: str, small: Any, tmp_path: Path, value: str, message: str
) -> None:
    result = ladm("score", rows, *small, "--signals", value, "--output", tmp_path / "run")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"ladm: {message}")


def test_tables_of_unigrams_that_cannot_be_used(ladm: Command, rows: str, small: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "short.npy", np.arange(5))
    np.save(tmp_path / "text.npy", np.array(["a"]))
    (tmp_path / "torn.npy").write_bytes(b"no")
    messages = {
        "absent.npy": (2, "does not exist"),
        "short.npy": (1, "has 5 tokens, but the model's vocabulary has 512"),
        "text.npy": (1, "is not a list of counts, one for each token id"),
        "torn.npy": (1, "is not a file of token counts, such as the unigrams.npy of a run"),
    }
    for name, (code, message) in messages.items():
        path = tmp_path / name
        result = ladm("score", rows, *small, "--unigrams", path, "--output", tmp_path / "run")
        assert (result.exit_code, f"{path} {message}" in result.stderr) == (code, True), result.stderr


def test_a_model_without_a_head_has_no_context_gain(ladm: Command, rows: str, tmp_path: Path) -> None:
    result = ladm("score", rows, "--model", GOLDEN, "--signals", "context-gain", "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert "the safetensors lack 1 weight of a language model, such as lm_head.weight" in result.stderr


def test_signals_in_memory(golden: Any, golden_lm: Path, ladm: Command, rows: str, small: Any, tmp_path: Path) -> None:
    signals = "cds,context-gain,longattn"
    assert ladm("score", rows, *small, "--signals", signals, "--output", tmp_path / "run").exit_code == 0
    stored = by_index(tmp_path / "run")[1]
    scorer = front.Scorer(golden_lm, dtype="float32", device="cpu", span_tokens=16, signals=signals)
    (found,) = scorer.score(topical_rows(golden, LENGTHS)[1]["input_ids"])
    assert found.score == stored["score"]
    assert {name: stored[name] for name in found.columns} == found.columns
    assert set(COLUMNS_OF[CONTEXT_GAIN]) <= set(found.columns)
    scorer = front.Scorer(golden_lm, dtype="float32", device="cpu", span_tokens=16, signals="text")
    (text,) = scorer.score(topical_rows(golden, LENGTHS)[1]["input_ids"])
    with pytest.raises(UsageError, match="prolong cannot be computed together with other signals"):
        front.Scorer(golden_lm, signals=["cds", "prolong"])
    # How common a token is, is not known of rows in memory.
    assert "far_rare" not in text.columns
    assert text.score == text.columns["gzip_ratio"]


def test_a_run_that_gets_more_rows_keeps_its_table_of_unigrams(
    ladm: Command, rows: str, small: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert ladm("score", rows, *small, "--signals", "text", "--limit", "2", "--output", run).exit_code == 0
    table, before = (run / "unigrams.npy").read_bytes(), by_index(run)
    assert ladm("score", rows, *small, "--signals", "text", "--output", run).exit_code == 0
    after = by_index(run)
    assert (run / "unigrams.npy").read_bytes() == table
    assert sorted(after) == [0, 1, 2, 3]
    assert all(after[k]["far_rare"] == line["far_rare"] for k, line in before.items())


def test_a_start_that_failed_leaves_no_table_behind_for_other_rows(
    ladm: Command, rows: str, save_rows: Any, golden: Any, small: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    # The head is missing, which shows only when the model loads: after the table is written.
    failed = ladm("score", rows, "--model", GOLDEN, "--signals", "context-gain,text", "--output", run)
    assert failed.exit_code == 1
    assert not (run / "run.json").exists()
    other = topical_rows(golden, [512])
    assert ladm("score", save_rows(other, "other"), *small, "--output", run).exit_code == 0
    assert np.load(run / "unigrams.npy").sum() == 512
