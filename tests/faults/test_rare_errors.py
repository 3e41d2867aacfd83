"""Errors that need a damaged file, a full standard error, or a model of another kind: the line and the exit code."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from ladm.errors import LadmError
from ladm.runs.lines import encode_object
from ladm.scoring.background import in_background
from support.files import read_object
from support.models import SMALL
from support.paths import GOLDEN
from support.rows import topical_rows

Command = Callable[..., Result]


@pytest.fixture
def run(score_once: Callable[..., Path], save_rows: Any, golden: Any, tmp_path: Path) -> Path:
    """A run of four rows, two of each of two domains, with the ids d0 to d3."""
    rows = topical_rows(golden, [512, 600, 512, 700])
    return score_once(save_rows([row | {"id": f"d{k}"} for k, row in enumerate(rows)]), output=tmp_path / "run")


def rewrite(run: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write `scores.parquet` again with other content, as a program that knows nothing of its checksum would."""
    table = pq.read_table(run / "scores.parquet")
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), run / "scores.parquet")


def with_list(table: pa.Table, change: Callable[[list[float]], list[float]]) -> pa.Table:
    """The table with another list of CDS in its first row."""
    place = table.schema.get_field_index("cds_per_layer")
    first, *others = table["cds_per_layer"].to_pylist()
    return table.set_column(place, "cds_per_layer", pa.array([change(first), *others], table.schema.field(place).type))


RESCORE = ("rescore", "RUN", "--reduce", "median", "-o", "RUN2")
SELECT = ("select", "RUN", "--documents", "2", "-o", "RUN2")


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        (lambda t: t.take([3, 2, 1, 0]), SELECT, "RUN is damaged: its scores are not in order"),
        (lambda t: t.slice(0, 2), RESCORE, "RUN/sorted_by_score.jsonl is damaged: it has more lines than "
         "scores.parquet has rows"),
        (lambda t: with_list(t, lambda cds: cds[1:]), RESCORE, "RUN/scores.parquet is damaged: rows with different "
         "numbers of layers"),
        (lambda t: with_list(t, lambda cds: [float("nan"), *cds[1:]]), RESCORE, "RUN/scores.parquet is damaged: a "
         "row's numbers do not make a score"),
    ],
)  # fmt: skip
def test_results_that_another_program_wrote(
    ladm: Command, run: Path, change: Callable[[pa.Table], pa.Table], words: tuple[str, ...], message: str
) -> None:
    rewrite(run, change)
    result = ladm(*(word.replace("RUN", str(run)) for word in words))
    assert (result.exit_code, result.stderr) == (74, f"ladm: {message.replace('RUN', str(run))}\n")
    assert not Path(f"{run}2", "run.json").exists()


def test_scores_that_are_texts(ladm: Command, run: Path) -> None:
    def as_texts(table: pa.Table) -> pa.Table:
        return table.set_column(table.schema.get_field_index("score"), "score", table["score"].cast(pa.string()))

    rewrite(run, as_texts)
    result = ladm("verify", run)
    assert (result.exit_code, result.stdout) == (
        74, f"{run / 'scores.parquet'} is damaged: its column score holds string\n"
    )  # fmt: skip


def test_results_without_digests(ladm: Command, run: Path) -> None:
    """Of an early version: nothing else notices what is wrong with their lines."""
    table = pq.read_table(run / "scores.parquet")
    pq.write_table(table.replace_schema_metadata({}), run / "scores.parquet")
    (run / "errors.jsonl").write_text('{"x": 1}\n')
    result = ladm("report", run)
    assert (result.exit_code, result.stderr) == (
        74, f"ladm: {run}/errors.jsonl is damaged; remove it, and rerun the command that made the run to write it "
        "again\n",
    )  # fmt: skip
    sorted_file = run / "sorted_by_score.jsonl"
    sorted_file.write_bytes(b"\xff" + sorted_file.read_bytes())
    result = ladm("rescore", run, "--reduce", "median", "-o", f"{run}2")
    assert (result.exit_code, result.stderr) == (74, f"ladm: {sorted_file} is damaged: a line is not UTF-8\n")
    assert f"{sorted_file}, line 1, and row 1 of scores.parquet differ" in ladm("verify", run).stdout


@pytest.mark.parametrize(
    ("edit", "command", "problem"),
    [
        (lambda lines: lines[1:], "status", ": 3 rows of 4"),
        (lambda lines: lines[1:], "verify", ": 3 rows of 4"),
        (lambda lines: [encode_object({"position": 0}), *lines[1:]], "verify", " at byte 0: the line does not hold a "
         "row"),
    ],
)  # fmt: skip
def test_a_unit_that_lacks_a_row(
    ladm: Command, run: Path, edit: Callable[[list[bytes]], list[bytes]], command: str, problem: str
) -> None:
    unit = run / "units" / "000000.jsonl"
    unit.write_bytes(b"".join(edit(unit.read_bytes().splitlines(keepends=True))))
    result = ladm(command, run)
    assert result.exit_code == 74
    assert result.output.splitlines()[0].removeprefix("ladm: ") == (
        f"{unit} is damaged{problem}; remove it and sorted_by_score.jsonl, and rerun the command that made the run to "
        "score its rows again"
    )


def test_an_added_signal_that_does_not_belong_to_its_run(
    ladm: Command, score_once: Callable[..., Path], short_rows: str, tmp_path: Path
) -> None:
    run = score_once(short_rows, "--signals", "cds", output=tmp_path / "run")
    assert ladm("annotate", run).exit_code == 0
    signal, identity = run / "signals" / "text", run / "signals" / "text" / "run.json"
    whole, content = identity.read_bytes(), read_object(identity)
    content["model"]["sha256"]["config.json"] = "0" * 64
    identity.write_text(json.dumps(content))
    result = ladm("verify", run)
    assert (result.exit_code, result.stdout) == (1, f"{signal} was made with another model than {run}; remove it\n")
    identity.write_text("{")
    result = ladm("verify", run)
    assert (result.exit_code, result.stdout) == (
        74, f"{identity} is damaged: line 1 is not JSON; restore it from a copy, or remove {signal} and score the rows "
        "again\n",
    )  # fmt: skip
    identity.write_bytes(whole)
    table = pq.read_table(signal / "scores.parquet")
    place = table.schema.get_field_index("position")
    positions = pa.array([99, *table["position"].to_pylist()[1:]], table.schema.field(place).type)
    pq.write_table(table.set_column(place, "position", positions), signal / "scores.parquet")
    result = ladm("top", run, "--by", "gzip_ratio")
    assert (result.exit_code, result.stderr) == (
        74, f"ladm: {signal}/scores.parquet is damaged: it has rows that the run does not have\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("top RUN --by log(0-score)", "RUN: no document has a value of log(0-score)"),
        ("top RUN --join o=FILE --by o.q --domain A", "RUN: no document of the domain A has a value of o.q"),
        ("select RUN --documents 2 --by log(0-score) -o RUN2", "no document has a value of log(0-score)"),
        ("select RUN --min-score 99 -o RUN2", "no document has at least --min-score 99 of score"),
    ],
)
def test_no_document_has_a_value(ladm: Command, run: Path, tmp_path: Path, words: str, message: str) -> None:
    (tmp_path / "q.jsonl").write_text("".join(json.dumps({"id": f"d{k}", "q": k}) + "\n" for k in (1, 3)))
    words = words.replace(" A", " domain@0").replace("FILE", str(tmp_path / "q.jsonl")).replace("RUN", str(run))
    result = ladm(*(word.replace("@", " ") for word in words.split()))
    expected = message.replace("domain A", "domain domain 0").replace("RUN", str(run))
    assert (result.exit_code, result.stderr) == (1, f"ladm: {expected}\n")


def test_a_plus_in_front_changes_nothing(ladm: Command, run: Path) -> None:
    with_plus, without = (ladm("top", run, "--by", by).stdout.splitlines() for by in ("+score", "score"))
    assert len(without) > 4
    assert with_plus[-4:] == without[-4:]


def test_another_score_costs_no_scoring(ladm: Command, run: Path, tmp_path: Path) -> None:
    """The advice is `ladm rescore`, not to delete the run, and names each flag once."""
    result = ladm("score", tmp_path / "rows", *SMALL, "--reduce", "median", "-o", run)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-3] == (
        f"ladm: {run} was started with something else (--score, --layers, --reduce or --profile); for another score of "
        f"a finished run: ladm rescore {run} --score NAME -o RUN2; else give another --output:"
    )
    result = ladm("score", tmp_path / "rows", *SMALL, "--layers", "0", "-o", run)
    assert "something else (--score, --layers, --reduce or --profile); give what it was" in result.stderr


def test_a_rescored_run_does_not_grow(ladm: Command, run: Path, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    assert ladm("rescore", run, "--reduce", "median", "-o", tmp_path / "run2").exit_code == 0
    rows = [row | {"id": f"d{k}"} for k, row in enumerate(topical_rows(golden, [512, 600, 512, 700, 512]))]
    result = ladm("score", save_rows(rows, "more"), *SMALL, "--reduce", "median", "-o", tmp_path / "run2")
    *before, last = result.stderr.splitlines()
    assert (result.exit_code, last) == (
        1, f"ladm: {tmp_path}/run2 was made by ladm rescore; add the rows to the run that it was made from"
    )  # fmt: skip
    assert not any(line.startswith("adding") for line in before)


@pytest.mark.parametrize(
    ("words", "code"),
    [("status nothing", 1), ("select", 2), ("top --nope", 2), ("", 2), ("score ROWS", 74)],
)
def test_a_full_standard_error_changes_no_exit_code(
    ladm: Command, short_rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, code: int
) -> None:
    """The log of a job on a full disk."""

    def echo(*_: Any, err: bool = False, **__: Any) -> None:
        if err:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(click, "echo", echo)
    more = (*SMALL, "-o", tmp_path / "run") if "ROWS" in words else ()
    assert ladm(*words.replace("ROWS", short_rows).split(), *more).exit_code == code


def test_ladm_debug_shows_where_an_error_comes_from(ladm: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LADM_DEBUG", "1")
    with pytest.raises(LadmError, match="no such run: nothing does not exist"):
        ladm("status", "nothing")


def test_a_file_of_settings_is_never_cut(ladm: Command, short_rows: str, tmp_path: Path) -> None:
    """A limit in characters would read half of a file of two-byte letters, and leave the flags at its end out."""
    config = tmp_path / "c.yaml"
    config.write_text("#" + "é" * 600_000 + "\nspan_tokens: 16\n", encoding="utf-8")
    result = ladm("score", short_rows, "--model", GOLDEN, "--config", config, "-o", tmp_path / "run")
    assert (result.exit_code, result.stderr) == (
        2, f"ladm: --config {config} is larger than 1,000,000 bytes; is it the right file?\n"
    )  # fmt: skip


def model(folder: Path, content: Any) -> Path:
    """The golden model with another config.json."""
    shutil.copytree(GOLDEN, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content if "model_type" in content else config | content))
    return folder


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model_type": "t5"}, "t5 is an encoder and a decoder, not a decoder alone; use another model"),
        ({"model_type": "vit"}, "vit is not a decoder of text; use another model"),
        ({"attn_logit_softcapping": 30.0}, "llama caps its logits (softcap), which the focus score does not model; use "
         "another model"),
        ({"num_hidden_layers": 0}, "config.json gives 0 layers and a vocabulary of 512"),
        ({"vocab_size": 0}, "config.json gives 3 layers and a vocabulary of 0"),
    ],
)  # fmt: skip
def test_a_model_of_another_kind(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    from ladm.modeling.facts import model_facts

    folder = model(tmp_path / "m", content)
    with pytest.raises(LadmError) as caught:
        model_facts(str(folder))
    assert str(caught.value) == f"{folder}: {message}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model_type": "t5"}, " is not a causal language model but of the type t5; use another model"),
        ({"hidden_size": 32}, ": the safetensors do not match config.json: "),
        ({"model_type": "odd", "auto_map": {"AutoConfig": "x.y"}}, ": this model needs its own code (auto_map in "
         "config.json), which ladm never runs"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_trained_or_evaluated(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    import torch

    from ladm.modeling.causal_lm import load_causal

    folder = model(tmp_path / "m", content)
    with pytest.raises(LadmError) as caught:
        load_causal(str(folder), dtype=torch.float32, attention="sdpa")
    assert str(caught.value).startswith(f"{folder}{message}")


def test_training_refuses_a_model_that_is_no_language_model() -> None:
    from transformers import ViTConfig

    from ladm.training.batches import Batches, memory_estimate

    batches = Batches(length=8, devices=1, rows_at_once=1, accumulate=1, steps=1)
    with pytest.raises(LadmError) as caught:
        memory_estimate(ViTConfig(), batches, checkpointing=True, half=False, liger=False, sharded=False)
    assert str(caught.value) == "--model is not a causal language model but of the type vit; use another model"


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"base_model_name_or_path": 3}'])
def test_an_adapter_that_does_not_name_its_model(tmp_path: Path, content: str) -> None:
    from ladm.modeling.model_files import model_folder

    (tmp_path / "adapter_config.json").write_text(content)
    (tmp_path / "adapter_model.safetensors").write_text("")
    with pytest.raises(LadmError, match=": this is an adapter, not a whole model; merge it into its base model"):
        model_folder(str(tmp_path))


def test_a_tokenizer_that_is_not_fast(tmp_path: Path) -> None:
    """Also where a tokenizer.json lies beside it, of which this class makes no use."""
    from ladm.corpus.preparation.tokenization import TokenizerError, plain_tokenizer

    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "CanineTokenizer"}')
    with pytest.raises(TokenizerError) as caught:
        plain_tokenizer(str(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path}: CanineTokenizer is not a fast tokenizer; use a model whose tokenizer has a tokenizer.json"
    )


def test_inspecting_without_a_tokenizer_that_loads(ladm: Command, run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN, tmp_path / "m"))
    (folder / "tokenizer.json").write_text("{")
    result = ladm("inspect", run, "--model", folder, "--top", "1")
    assert result.exit_code == 0, result.output
    assert "warning   positions will be shown without their text: no such tokenizer: " in result.stderr


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ladm.errors import StorageError
    from ladm.storage.locks import locked

    def flock(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(StorageError) as caught, locked(tmp_path):
        pass
    assert str(caught.value) == (
        f"cannot lock {tmp_path / '.lock'}: No locks available; use a folder on another file system"
    )


@pytest.mark.parametrize(("lines", "reason"), [("", "the sources have none"), ("not JSON\n" * 3, "3 not_json")])
def test_a_job_without_a_document(ladm: Command, talking_model: Path, tmp_path: Path, lines: str, reason: str) -> None:
    file = tmp_path / "d.jsonl"
    file.write_text(lines)
    result = ladm("run", file, "--model", talking_model, "--tokens", "500", "-o", tmp_path / "job")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, f"ladm: no document could be read: {reason}")


def test_every_domain_is_excluded(ladm: Command, talking_model: Path, tmp_path: Path) -> None:
    """The dry run refuses what the run would refuse after its rows are made."""
    documents = [{"text": f"w{k} The magic number " * 300, "domain": "ab"[k % 2]} for k in range(4)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(each) + "\n" for each in documents))
    words = ("run", tmp_path / "d.jsonl", "--model", talking_model, *SMALL[2:], "--length", "512", "--tokens", "512")
    flags = ("--exclude-domain", "a", "--exclude-domain", "b", "-o", tmp_path / "job")
    for more in ((), ("--dry-run",)):
        result = ladm(*words, *flags, *more)
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (
            1, "ladm: --exclude-domain leaves no row; exclude fewer domains"
        )  # fmt: skip


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"_data_files": 3}'])
def test_a_saved_data_set_with_a_damaged_state(
    ladm: Command, talking_model: Path, tmp_path: Path, content: str
) -> None:
    from datasets import Dataset

    Dataset.from_dict({"text": ["The magic number"]}).save_to_disk(str(tmp_path / "d"))
    (tmp_path / "d" / "state.json").write_text(content)
    result = ladm("prepare", tmp_path / "d", "--tokenizer", talking_model, "--length", "64", "-o", tmp_path / "rows")
    assert result.exit_code == 74
    problem = f"cannot read {tmp_path / 'd'}, which is damaged or incomplete: "
    assert result.stderr.startswith(f"ladm: {problem}")
    result = ladm(
        "run", tmp_path / "d", "--model", talking_model, "--length", "64", "--tokens", "500", "-o", tmp_path / "job"
    )
    assert result.exit_code == 74
    assert result.stderr.splitlines()[-1].startswith(f"ladm: no document could be read: {problem}")


def test_a_split_of_a_single_data_set(ladm: Command, talking_model: Path, tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_dict({"text": ["The magic number"]}).save_to_disk(str(tmp_path / "d"))
    words = ("prepare", tmp_path / "d", "--split", "test", "--tokenizer", talking_model, "--length", "64")
    result = ladm(*words, "-o", tmp_path / "rows")
    assert (result.exit_code, result.stderr) == (
        1, f"ladm: {tmp_path / 'd'} has no split test: it is a single data set, not several\n"
    )  # fmt: skip


class Stream:
    """What another library hands over as a stream of Arrow."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        def batches() -> Any:
            yield pa.record_batch({"text": ["The magic number"]})
            raise RuntimeError("gone")

        reader = pa.RecordBatchReader.from_batches(pa.schema({"text": pa.string()}), batches())
        return reader.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        (pa.table([["a"], ["b"]], names=["text", "text"]), "documents in memory have 2 columns named text"),
        (Stream(), "cannot read documents in memory: Unknown error: gone."),
    ],
)
def test_documents_in_memory_that_cannot_be_read(
    talking_model: Path, tmp_path: Path, documents: Any, message: str
) -> None:
    import ladm

    with pytest.raises(LadmError) as caught:
        ladm.prepare(documents, tokenizer=talking_model, length=64, domain="x", output=tmp_path / "rows")
    assert str(caught.value) == message


def test_the_number_columns_of_a_file(tmp_path: Path) -> None:
    from ladm.corpus.ids.value_readers import number_columns

    table = pa.table({"id": ["a"], "q": [1.0], "name": ["x"], "empty": pa.array([None], pa.float64())})
    pq.write_table(table, tmp_path / "v.parquet")
    assert number_columns(str(tmp_path / "v.parquet")) == ["q"]
    for name, text in (("v.jsonl", ""), ("v.csv", "id,name\na,x\n")):
        (tmp_path / name).write_text(text)
        assert number_columns(str(tmp_path / name)) == []


def test_an_error_in_the_background_is_raised_by_who_waits() -> None:
    def fail() -> None:
        raise LadmError("gone")

    with pytest.raises(LadmError, match="^gone$"):
        in_background(fail)()
