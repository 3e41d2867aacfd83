"""`ladm calibrate` from start to end."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import Result

from ladm.calibration.contrast import INTACT, contrast_set
from ladm.calibration.contrast_rows import contrast_notes
from ladm.calibration.estimates import auc
from ladm.calibration.packages import split_by_package
from ladm.calibration.sample import DocumentSample, _included, packages_of, sample_documents
from ladm.corpus.rows.reading import open_rows
from ladm.errors import LadmError, UsageError
from ladm.modeling.facts import model_facts
from ladm.runs.folder import Run
from ladm.settings.common import DOMAIN_KEY
from ladm.settings.profiles import read_profile
from support.files import read_lines
from support.packages import own_packages
from support.paths import GOLDEN

Command = Callable[..., Result]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    """36 documents of 256 tokens in two domains, and one that is longer."""
    from datasets import Dataset

    draw = np.random.default_rng(0)
    ids = [np.resize(draw.integers(0, 500, size=40 + k), 256 + 100 * (k == 3)).tolist() for k in range(40)]
    meta = [{"pile_set_name": "lists" if k >= 36 else "books"} for k in range(40)]
    folder = tmp_path_factory.mktemp("calibration") / "rows"
    Dataset.from_dict({"input_ids": ids, "meta": meta, "index": list(range(40))}).save_to_disk(str(folder))
    return str(folder)


COMMON = ("--model", str(GOLDEN), "--dtype", "float32", "--span-tokens", "8")


def test_a_dry_run_shows_what_a_calibration_takes(
    ladm: Command, rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("calibrate", *COMMON, "--rows", rows, "--exclude-domain", "lists", "--lists", rows, "--dry-run")
    result = ladm(*command, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    # Ten rows of each of 36 documents, and all 40 rows as real lists.
    assert (found["rows_by_length"], found["refused"]) == ({"256": 400}, {})
    assert found["seconds"] == pytest.approx(400 * found["seconds_by_length"]["256"])
    assert list(tmp_path.iterdir()) == []
    result = ladm(*command)
    assert result.stderr.splitlines()[-1] == f"next: ladm {' '.join(map(str, command[:-1]))} -o profile.yaml"
    result = ladm(*command, "--documents", "20")
    assert (result.exit_code, result.stdout) == (2, "")


# A quick one, with its messages: the page's example in test_check_in_python.py.
@pytest.mark.slow
@pytest.mark.parametrize(
    "search",
    ["layers", "heads", "signed"],
)
def test_calibrate_then_score_with_the_profile(ladm: Command, rows: str, tmp_path: Path, search: str) -> None:
    profile = tmp_path / "p.yaml"
    command = ("calibrate", *COMMON, "--rows", rows, "--output", profile, "--exclude-domain", "lists")
    command += ("--search", search, "--lists", rows)
    result = ladm(*command)
    assert result.exit_code == 0, result.output
    assert "from 36 documents, stored in " in result.stderr
    assert "only 36 documents: the intervals will be wide; use at least 100" in result.stderr
    assert "warning   too few packages (1) to hold out whole ones, so single documents are held out" in result.stderr
    for words in ("cost of stopping there", "gain of the worst kind over robust", "AUC against", "recommended: "):
        assert words in result.stdout
    # A model with random weights cannot separate every kind, and the report must not hide that.
    summary = yaml.safe_load(profile.read_text())["found"]
    name = "profile" if summary["recommended"] == "the calibrated score" else "robust"
    weak = [kind for kind, by_score in summary["auc"].items() if kind != "worst kind" and by_score[name][1] <= 0.5]
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("not separated by it")]
    assert weak
    assert re.findall(r"[:;] ([^:;]+?) \d\.\d{3} \(", line) == weak
    kinds = Counter(line["meta"]["kind"] for line in read_lines(tmp_path / "p.calibration/run/sorted_by_score.jsonl"))
    assert kinds["intact"] == kinds["16 pieces"] == kinds["repeated T/5"] == 36
    assert kinds["real list"] == 40
    found = read_profile(profile)
    assert found.length_tokens == 256
    assert found.method.span_tokens == 8
    assert {"score", "released", "median", "robust", "copy_share", "sink_mass", "near_share"} <= set(found.band)
    assert all(low <= middle <= high for low, middle, high in found.band.values())
    run = tmp_path / "p.calibration" / "run"
    assert found.band_layers == Run.read(run).identity.layers
    assert bool(found.score_layers_band) == (found.reduction.layers != found.band_layers)
    result = ladm("score", rows, *COMMON, "--profile", profile, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    chosen = ladm("select", tmp_path / "run", "--within", "profile", "--top", "50%", "--dry-run")
    assert "keeping copy_share of at most" in chosen.output
    assert json.loads((tmp_path / "run" / "run.json").read_text())["score"] == found.reduction.identity()
    before = profile.read_bytes()
    # Given again, as after a stop behind its last line, it ends as it did.
    for _ in range(2):
        again = ladm(*command)
        assert again.exit_code == 0
        assert profile.read_bytes() == before
        profile.unlink(missing_ok=True)
    # A profile of another command, and one whose work files are gone, are refused.
    profile.write_bytes(before.replace(b"format: 1", b"format:  1"))
    other = f"ladm: {profile} exists already and holds another profile; give another --output\n"
    assert ladm(*command).stderr.endswith(other)
    shutil.rmtree(tmp_path / "p.calibration")
    assert ladm(*command).stderr == f"ladm: {profile} exists already; give another --output\n"


@pytest.mark.parametrize(
    ("packages", "why"),
    [
        (["a"] * 40, "too few packages (1) to hold out whole ones"),
        (["a"] * 31 + list("bcdefghij"), "31 of 40 documents are from one package, too many to hold it out"),
    ],
)
def test_documents_are_held_out_where_packages_cannot_be(packages: list[str], why: str) -> None:
    sample = DocumentSample(
        ids=[np.arange(4)] * 40, groups=[str(k) for k in range(40)], packages=packages, length_tokens=4
    )
    halves = split_by_package(packages, sample.groups, seed=0)
    warnings = [line for line in contrast_notes(sample, halves, [], ()) if line.startswith("warning")]
    assert warnings == [
        "warning   only 40 documents: the intervals will be wide; use at least 100",
        f"warning   {why}, so single documents are held out; see --package-key",
    ]


def test_a_place_without_room_for_a_profile_is_refused_before_the_scoring(
    ladm: Command, rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ladm.calibration.calibrate.run_score", lambda *_, **__: pytest.fail("rows were scored"))
    (tmp_path / "file").touch()
    flags = ("--work", tmp_path / "work", "--output", tmp_path / "file" / "p.yaml")
    result = ladm("calibrate", *COMMON, "--rows", rows, *flags)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        74, f"ladm: cannot write {tmp_path}/file/p.yaml: {tmp_path}/file is not a writable folder",
    )  # fmt: skip
    assert not (tmp_path / "work").exists()


def test_domains_of_a_sample_are_those_of_select(tmp_path: Path) -> None:
    from datasets import Dataset

    # The second row's meta has no domain, so that its column counts, as in `ladm select`.
    rows = {
        "input_ids": [[1, 2]] * 3, "meta": [{"pile_set_name": "code"}, {"pile_set_name": None}, None],
        "domain": ["x", "books", None], "site": ["a", None, "b"],
    }  # fmt: skip
    Dataset.from_dict(rows).save_to_disk(str(tmp_path / "rows"))
    opened = open_rows(str(tmp_path / "rows"))
    assert packages_of(opened, None, otherwise=DOMAIN_KEY) == ["code", "books", None]
    assert packages_of(opened, "site", otherwise=DOMAIN_KEY) == ["a", None, "b"]
    with pytest.raises(UsageError, match=r"^--package-key absent: no row of .* has it$"):
        packages_of(opened, "absent", otherwise=DOMAIN_KEY)
    assert _included(opened, DOMAIN_KEY, ("books",)).tolist() == [True, False, True]
    Dataset.from_dict({"input_ids": [[1, 2]], "domain": ["books"]}).save_to_disk(str(tmp_path / "plain"))
    assert packages_of(open_rows(str(tmp_path / "plain")), None, otherwise=DOMAIN_KEY) == ["books"]
    Dataset.from_dict({"input_ids": [[1, 2]]}).save_to_disk(str(tmp_path / "none"))
    assert packages_of(open_rows(str(tmp_path / "none")), None, otherwise=DOMAIN_KEY) == [None]


def test_of_the_windows_of_a_document_one_is_drawn(tmp_path: Path) -> None:
    """`ladm prepare` counts rows in `index`; published rows repeat the index in all parts of a book.

    Windows were drawn as documents of their own: rows pasted from one book counted as bad, and the intervals of three
    books with sixty windows had no width.
    """
    from datasets import Dataset

    rows = {
        "input_ids": [[k, 1, 2, 3] for k in range(6)], "meta": [{"pile_set_name": "books"}] * 6,
        "index": list(range(6)), "chunked_index": [0, 1, 0, 1, 2, 0], "document": [0, 0, 3, 3, 3, 7],
    }  # fmt: skip
    published = {name: rows[name] for name in ("input_ids", "meta", "chunked_index")} | {"index": rows["document"]}
    others = rows | {"document": ["a text"] * 6}
    for name, columns, groups in (
        ("prepared", rows, ["0", "3", "7"]),
        ("published", published, ["0", "3", "7"]),
        ("others", others, list("012345")),
        # Two data sets put together, which both have a document 0; and a row without a number.
        ("two sets", rows | {"meta": [{"pile_set_name": text} for text in "abaaaa"]}, ["0", "0", "3", "7"]),
        ("no number", rows | {"document": [0, 0, 3, 3, None, 7]}, ["0", "3", "4", "7"]),
        ("no windows", {name: rows[name] for name in ("input_ids", "meta", "index", "document")}, list("012345")),
    ):
        Dataset.from_dict(columns).save_to_disk(str(tmp_path / name))
        found = sample_documents(
            open_rows(str(tmp_path / name)), facts=model_facts(str(GOLDEN)), documents=6, seed=0,
            domain_key=DOMAIN_KEY, min_documents=1,
        )  # fmt: skip
        assert found.groups == groups, name
    with pytest.raises(
        LadmError, match=r"prepared: 3 documents of 4 tokens, and at least 4 are needed; windows of one "
    ):
        sample_documents(
            open_rows(str(tmp_path / "prepared")), facts=model_facts(str(GOLDEN)), documents=6, seed=0,
            domain_key=DOMAIN_KEY, min_documents=4,
        )  # fmt: skip


def test_error_messages_of_calibrate(ladm: Command, rows: str, tmp_path: Path) -> None:
    out = ("--output", tmp_path / "p.yaml")
    for arguments, code, message in (
        (("--rows", rows, *out, "--objective", "cost", "--max-cost", "1.5"), 2,
         "--max-cost must be above 0 and at most 1, not 1.5"),
        (("--rows", rows, *out, "--max-cost", "0.5"), 2, "--max-cost needs --objective cost"),
        (("--rows", rows, *out, "--objective", "cost", "--max-cost", "0.1"), 2,
         "no layer can be reached within 0.1 of a forward pass; raise --max-cost"),
        (("--rows", rows, *out, "--seed", "-1"), 2, "--seed must be at least 0, not -1"),
        (("--rows", rows, *out, "--span-tokens", "64"), 2,
         "documents of 256 tokens have no span to score with spans of 64 tokens; give a smaller --span-tokens or "
         "longer documents"),
        (("--rows", rows, "--output", tmp_path / "p.yaml", "--work", Path(rows).parent), 1,
         f"{Path(rows).parent} contains the rows {rows}; give another folder for the work files"),
        (("--rows", rows, *out, "--work", GOLDEN), 1,
         f"{GOLDEN} belongs to something else (it holds config.json); give an empty folder for the work files"),
        (("--rows", rows, *out, "--span-tokens", "0"), 2, "--span-tokens must be at least 1, not 0"),
        (("--rows", rows, *out, "--exclude-domain", "poems"), 2,
         f"--exclude-domain poems: {rows} has no row of that domain; the domains are books, lists"),
        (("--rows", rows, *out, "--package-key", "meta.site"), 2,
         f"--package-key meta.site: no row of {rows} has it"),
        (("--rows", rows, *out, "--search", "best"), 2,
         "--search 'best' is not signed or layers or heads"),
        (("--rows", rows, *out, "--exclude-domain", "books"), 1,
         f"{rows}: 4 documents of 256 tokens, and at least 32 are needed"),
        (("--rows", rows, *out, "--documents", "8"), 2,
         "--documents 8 is too few; at least 32 are needed"),
        (("--rows", tmp_path / "no", *out), 1,
         f"no such data set: {tmp_path / 'no'} is neither a folder nor a Hub id such as org/name"),
    ):  # fmt: skip
        result = ladm("calibrate", "--model", GOLDEN, *arguments)
        assert (result.exit_code, result.stderr) == (code, f"ladm: {message}\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_stopped_calibration_resumes(
    ladm: Command, rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(name: str) -> tuple[str, ...]:
        return ("calibrate", *COMMON, "--rows", rows, "--output", str(tmp_path / name), "--batch-size", "4")

    assert ladm(*command("whole.yaml")).exit_code == 0
    advanced: list[int] = []

    def advance(_self: Any, *, rows: int, tokens: int) -> None:
        advanced.append(rows)
        if sum(advanced) > 60 and tokens:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ladm.progress_bars.ScoringBar.advance", advance)
        assert ladm(*command("stopped.yaml")).exit_code == 130
    assert not (tmp_path / "stopped.yaml").exists()
    safe = ladm("status", tmp_path / "stopped.calibration" / "run", "--json")
    assert 60 < json.loads(safe.stdout)["done"] < 120
    contrast = tmp_path / "stopped.calibration" / "contrast"
    (path,) = contrast.glob("*.arrow")
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    damaged = ladm(*command("stopped.yaml"))
    assert (damaged.exit_code, damaged.stderr.splitlines()[-1]) == (
        74, f"ladm: {path} is damaged or missing: it does not match its digest in digests.json; remove "
        f"{contrast}, and run the same command again to recreate it"
    )  # fmt: skip
    shutil.rmtree(contrast)
    assert ladm(*command("stopped.yaml")).exit_code == 0
    assert (tmp_path / "stopped.yaml").read_bytes() == (tmp_path / "whole.yaml").read_bytes()


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model whose middle layer sees only a window."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    folder = str(tmp_path_factory.mktemp("windowed") / "model")
    config = Qwen2Config(
        vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, use_sliding_window=True, sliding_window=64,
        layer_types=["full_attention", "sliding_attention", "full_attention"],
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_layers_with_a_window_are_left_out(ladm: Command, rows: str, windowed: str, tmp_path: Path) -> None:
    common = ("--model", windowed, "--rows", rows, "--span-tokens", "8", "--dtype", "float32")
    result = ladm("calibrate", *common, "--output", tmp_path / "p.yaml")
    assert result.exit_code == 1
    assert "layer 1 of this qwen2 model sees only a window" in result.stderr
    result = ladm("calibrate", *common, "--output", tmp_path / "p.yaml", "--layers", "0,2")
    assert result.exit_code == 0, result.output
    assert set(read_profile(tmp_path / "p.yaml").reduction.layers) <= {0, 2}
    result = ladm("check", *common, "--output", tmp_path / "check")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "check" / "run" / "run.json").read_text())["layers"] == [0, 2]


@pytest.mark.slow
def test_a_profile_separates_new_documents_of_the_kind_it_was_calibrated_on(ladm: Command, tmp_path: Path) -> None:
    """From documents to AUC by the commands alone: repeated tunes, calibrated on some and judged on others.

    The golden model's weights are random, and yet attention finds a tune that repeats, which is enough.
    """
    from datasets import Dataset

    draw = np.random.default_rng(3)
    tunes = [np.resize(draw.integers(0, 500, size=24), 512) for _ in range(80)]
    Dataset.from_dict({"input_ids": tunes[:40], "index": list(range(40))}).save_to_disk(str(tmp_path / "known"))
    halves = dataclasses.replace(
        split_by_package(own_packages(40), own_packages(40), seed=0), of_documents=np.zeros(40, dtype=np.int64)
    )
    made = contrast_set(tunes[40:], halves, span_tokens=8, seed=5)
    wanted = [row for row in made if row.kind in (INTACT, "8 pieces")]
    Dataset.from_dict(
        {"input_ids": [row.ids for row in wanted], "meta": [{"kind": row.kind} for row in wanted]}
    ).save_to_disk(str(tmp_path / "other"))
    profile = tmp_path / "p.yaml"
    assert (
        ladm("calibrate", *COMMON, "--rows", tmp_path / "known", "--search", "layers", "--output", profile).exit_code
        == 0
    )
    assert ladm("score", tmp_path / "other", *COMMON, "--profile", profile, "--output", tmp_path / "run").exit_code == 0
    lines = read_lines(tmp_path / "run" / "sorted_by_score.jsonl")
    scores = {kind: np.array([x["score"] for x in lines if x["meta"]["kind"] == kind]) for kind in (INTACT, "8 pieces")}
    found = yaml.safe_load(profile.read_text())["found"]["auc"]["8 pieces"]["profile"]
    value = auc(scores[INTACT], scores["8 pieces"])
    assert found[1] - 0.1 <= value <= found[2] + 0.1


def test_a_share_of_the_pass_that_ends_with_a_layer_includes_that_layer() -> None:
    """0.29 of 100 layers is 28.999999999999996."""
    from ladm.calibration.calibrate import _require_layer_within_cost
    from ladm.settings.calibration import CalibrateSettings

    facts = dataclasses.replace(model_facts(str(GOLDEN)), num_layers=100)
    settings = CalibrateSettings(
        model="m", rows="r", output="o", layers="28-99", search="layers", objective="cost", max_cost=0.29
    )
    _require_layer_within_cost(settings, facts)
    with pytest.raises(UsageError, match="^no layer can be reached within 0.28 of a forward pass; raise --max-cost$"):
        _require_layer_within_cost(dataclasses.replace(settings, max_cost=0.28), facts)
