"""Commands that judge a model or rows refuse, warn and choose a span as `ladm score` does, and leave nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from tokenizers import Tokenizer

from ladm.corpus.rows.reading import open_rows
from ladm.modeling.facts import model_facts
from ladm.scoring.row_checks import require_tokenizer
from support.models import SMALL
from support.paths import GOLDEN

Command = Callable[..., Result]
GOLDEN_FLAGS = ("--model", str(GOLDEN), "--dtype", "float32", "--device", "cpu")


def rows_of_lengths(lengths: list[int], **more: Any) -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    return [
        {"input_ids": np.resize(draw.integers(0, 500, size=40 + k), length).tolist(), "index": k}
        | {name: value(length) for name, value in more.items()}
        for k, length in enumerate(lengths)
    ]


def judge(ladm: Command, command: str, rows: Any, folder: Path, *more: Any) -> Result:
    """`check` or `calibrate` of rows, with everything that it writes below `folder`."""
    output = folder / ("p.yaml" if command == "calibrate" else "check")
    return ladm(command, *GOLDEN_FLAGS, "--rows", rows, "--output", output, *more)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("command", ["check", "calibrate"])
@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.zst", "d.parquet", "d.txt", "folder"])
def test_documents_in_the_place_of_rows_name_prepare(
    ladm: Command, save_rows: Any, tmp_path: Path, out: Path, command: str, name: str
) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    (path / "d.jsonl" if name == "folder" else path).write_text(json.dumps({"text": "a b c"}) + "\n")
    good = save_rows(rows_of_lengths([256] * 40))
    for arguments in ((path,), (good, out, "--lists", path)):
        result = judge(ladm, command, arguments[0], out, *arguments[2:])
        assert result.exit_code == 2
        assert f"not rows of token ids; make rows of them first: ladm prepare {path} " in result.stderr
        assert list(out.iterdir()) == []


@pytest.mark.parametrize("command", ["check", "calibrate"])
@pytest.mark.parametrize("existing", [False, True])
def test_whatever_is_refused_leaves_nothing(
    ladm: Command, save_rows: Any, tmp_path: Path, out: Path, command: str, existing: bool
) -> None:
    rows = save_rows(rows_of_lengths([256] * 40))
    few = save_rows(rows_of_lengths([256] * 9), "few")
    work = out / ("p.calibration" if command == "calibrate" else "check")
    if existing:
        work.mkdir()
    faults = [
        (GOLDEN, (), f"{GOLDEN} is a model, not rows"),
        (tmp_path / "absent", (), "no such data set"),
        (few, (), "9 documents of 256 tokens, and at least"),
        (rows, ("--documents", "5"), "--documents 5 is too few; at least"),
        (rows, ("--span-tokens", "64"), "documents of 256 tokens have no span to score with spans of 64 tokens"),
        (rows, ("--package-key", "site"), "--package-key site: no row of"),
        (rows, ("--span-tokens", "8", "--device", "cuda:9"), "cuda"),
    ]
    for name, flags, message in faults:
        result = judge(ladm, command, name, out, *flags)
        assert result.exit_code in (1, 2), (flags, result.output)
        assert message in result.stderr
        assert list(out.rglob("*")) == ([work] if existing else [])


@pytest.mark.parametrize("existing", [False, True])
def test_a_check_of_the_documents_of_the_package_leaves_nothing(
    ladm: Command, talking: Path, out: Path, existing: bool
) -> None:
    work = out / "check"
    if existing:
        work.mkdir()
    flags = ("--dtype", "float32", "--device", "cpu", "--output", work)
    for model, more, message in [
        (GOLDEN, (), str(GOLDEN)),
        (talking, ("--length", "1000000"), "no document has 8,192 tokens"),
        (talking, ("--length", "300", "--span-tokens", "200"), "have no span to score with spans of 200 tokens"),
    ]:
        result = ladm("check", "--model", model, *flags, *more)
        assert result.exit_code in (1, 2), result.output
        assert message in result.stderr
        assert list(out.rglob("*")) == ([work] if existing else [])


def test_rows_of_another_tokenizer_are_refused(ladm: Command, talking: Path, tmp_path: Path, out: Path) -> None:
    documents, other = tmp_path / "d.jsonl", tmp_path / "other"
    line = json.dumps({"text": " ".join(f"w{k % 300}" for k in range(300)), "meta": {"pile_set_name": "A"}})
    documents.write_text(f"{line}\n" * 40)
    other.mkdir()
    for path in talking.iterdir():
        (other / path.name).write_bytes(path.read_bytes().replace(b'"w299"', b'"v299"'))
    rows, flags = tmp_path / "rows", ("--tokenizer", talking, "--length", "256", "--keep-duplicates")
    assert ladm("prepare", documents, *flags, "-o", rows).exit_code == 0
    for command in ("check", "calibrate"):
        result = judge(ladm, command, rows, out, "--model", other)
        assert (result.exit_code, "was made with the tokenizer of" in result.stderr) == (2, True), result.output
        assert list(out.iterdir()) == []
    # Padding that was saved with a tokenizer makes it no other one.
    backend = Tokenizer.from_file(str(talking / "tokenizer.json"))
    backend.enable_padding(length=700, pad_id=1, pad_token="w1")
    backend.enable_truncation(9)
    backend.save(str(talking / "tokenizer.json"))
    require_tokenizer(open_rows(str(rows)), model_facts(str(talking)), allow_other=False)


@pytest.mark.parametrize("command", ["check", "calibrate"])
def test_padding_packing_and_lengths_are_reported(
    ladm: Command, save_rows: Any, out: Path, command: str
) -> None:  # fmt: skip
    odd = {"attention_mask": lambda T: [1] * (T - 9) + [0] * 9, "position_ids": lambda T: [*range(T - 50), *range(50)]}
    rows = save_rows(rows_of_lengths([256] * 30 + [300] * 3, **odd))
    # The last refusal before any work, so that nothing has to be scored for the lines.
    result = judge(ladm, command, rows, out, "--device", "cuda:9")
    lines = result.stderr.splitlines()
    assert "spans     1 token: 1/256 of the commonest length, 256 tokens" in lines
    assert (
        "lengths   256 to 300 tokens, 30 rows have 256; scores can be compared only between rows of the same length"
        in lines
    )
    assert any(line.startswith("warning   padding: attention_mask has zeros in 33 of the 33 rows") for line in lines)
    assert any(line.startswith("warning   packed rows: the column position_ids shows several") for line in lines)


@pytest.mark.parametrize(
    ("lengths", "span", "common"),
    [
        # The commonest length is that of fewer than half of the rows, and neither the shortest nor the longest.
        ([*range(520, 560), *[600] * 20, *range(700, 740)], 2, 600),
        pytest.param([*[1100] * 30, *[1300] * 35, *[1024] * 34], 5, 1300, marks=pytest.mark.slow),
        ([512] * 40, 2, 512),
    ],
)
def test_every_command_takes_the_same_default_span(
    ladm: Command, save_rows: Any, tmp_path: Path, out: Path, lengths: list[int], span: int, common: int
) -> None:
    rows = save_rows(rows_of_lengths(lengths))
    line = f"spans     {span} tokens: 1/256 of the commonest length, {common:,} tokens"
    dry = ladm("score", rows, *GOLDEN_FLAGS, "--dry-run", "-o", tmp_path / "run")
    assert line in dry.stderr.splitlines(), dry.output
    score = ladm("score", rows, *GOLDEN_FLAGS, "--limit", "1", "-o", tmp_path / "run", "--signals", "cds")
    assert score.exit_code == 0, score.output
    for command in ("check", "calibrate"):
        result = judge(ladm, command, rows, out, "--device", "cuda:9")
        assert line in result.stderr.splitlines(), result.output


def test_the_default_span_is_of_rows_that_the_model_can_read(
    ladm: Command, save_rows: Any, tmp_path: Path, out: Path
) -> None:
    from support.models import model

    small = model(tmp_path / "m", "llama", max_position_embeddings=768)
    rows = save_rows(rows_of_lengths([1024] * 50 + [512] * 40))
    line = "spans     2 tokens: 1/256 of the commonest length, 512 tokens"
    for result in (
        ladm("score", rows, *GOLDEN_FLAGS, "--model", small, "--dry-run", "-o", tmp_path / "run"),
        judge(ladm, "check", rows, out, "--model", small, "--device", "cuda:9"),
        judge(ladm, "calibrate", rows, out, "--model", small, "--device", "cuda:9"),
    ):
        assert line in result.stderr.splitlines(), result.output


def test_a_dry_run_counts_ids_outside_the_vocabulary(
    ladm: Command, save_rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = rows_of_lengths([320] * 40 + [40])
    for k in range(0, 40, 2):
        made[k]["input_ids"][k] = 1_000_000
    made[39]["input_ids"] = []
    made[1]["input_ids"][0] = -1
    rows = save_rows(made)
    result = ladm("score", rows, *SMALL, "--dry-run", "--json", "-o", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["refused"] == {"outside_vocabulary": 21, "empty": 1, "too_short": 1}
    # The same as the run finds.
    scored = ladm("score", rows, *SMALL, "--signals", "cds", "-o", tmp_path / "run")
    assert scored.exit_code == 0, scored.output
    kinds = [json.loads(line)["error_type"] for line in (tmp_path / "run/errors.jsonl").read_text().splitlines()]
    assert {kind: kinds.count(kind) for kind in kinds} == json.loads(result.stdout)["refused"]
    # Of large data a part is looked at, and counted in proportion.
    monkeypatch.setattr("ladm.scoring.row_lengths.MOST_ROWS", 20)
    result = ladm("score", rows, *SMALL, "--dry-run", "--json", "-o", tmp_path / "run")
    assert 14 <= json.loads(result.stdout)["refused"]["outside_vocabulary"] <= 28


def test_a_dry_run_refuses_what_the_run_in_the_folder_was_not_started_with(
    ladm: Command, save_rows: Any, golden_lm: Path, tmp_path: Path
) -> None:
    words = ("score", save_rows(rows_of_lengths([512] * 2)), *SMALL, "--model", golden_lm, "-o", tmp_path / "run")
    assert ladm(*words, "--signals", "cds,context-gain").exit_code == 0
    assert ladm(*words, "--dry-run").exit_code == 0
    for flag, value, changed in (
        ("--reduce", "median", "--score, --layers, --reduce or --profile"),
        ("--context-gain", "blocks", "--context-gain"),
    ):
        dry, real = (ladm(*words, flag, value, *more) for more in (["--dry-run"], []))
        assert dry.exit_code == real.exit_code == 1, dry.output
        assert dry.stderr.startswith(f"ladm: {tmp_path}/run was started with something else ({changed})")
        assert real.stderr.endswith(dry.stderr)
    assert ladm(*words, "--reduce", "median", "--dry-run", "--overwrite").exit_code == 0


def test_a_dry_run_without_a_row_that_can_be_scored(ladm: Command, save_rows: Any, tmp_path: Path) -> None:
    made = rows_of_lengths([512] * 3)
    for row in made:
        row["input_ids"][7] = 1_000_000
    rows = save_rows(made)
    result = ladm("score", rows, *SMALL, "--dry-run", "-o", tmp_path / "run")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"ladm: no row of {rows} can be scored: outside_vocabulary 3"
