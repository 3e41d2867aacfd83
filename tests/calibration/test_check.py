"""`ladm check`: figure 2, the verdict in words, and the picture."""

from __future__ import annotations

import dataclasses
import json
import resource
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from ladm.calibration import check_rows, contrast
from ladm.calibration.check_result import CheckResult, draw_check
from ladm.calibration.contrast_scores import RELEASED, count_baselines
from ladm.calibration.estimates import Estimate
from ladm.calibration.result import LayerResult
from ladm.errors import StorageError
from ladm.modeling.facts import model_facts
from support.paths import GOLDEN

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    """20 documents of 256 tokens, each with a vocabulary and a rhythm of its own."""
    from datasets import Dataset

    draw = np.random.default_rng(0)
    ids = [np.resize(draw.integers(0, 500, size=30 + k), 256).tolist() for k in range(20)]
    folder = tmp_path_factory.mktemp("check") / "rows"
    Dataset.from_dict({"input_ids": ids, "index": list(range(20))}).save_to_disk(str(folder))
    return str(folder)


def test_a_dry_run_shows_what_a_check_takes(
    ladm: Run, rows: str, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("check", "--model", str(GOLDEN), "--span-tokens", "8", "--dtype", "float32")
    result = ladm(*command, "--rows", rows, "--lists", rows, "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    # Eight rows of each of 20 documents (all are of one package), the documents again with other spans, and 20 lists.
    assert (found["rows_by_length"], found["refused"]) == ({"256": 200}, {})
    assert found["seconds"] == pytest.approx(200 * found["seconds_by_length"]["256"])
    packaged = ("check", "--model", str(talking), "--span-tokens", "8", "--dtype", "float32", "--length", "256")
    result = ladm(*packaged, "--dry-run")
    assert result.exit_code == 0, result.output
    # The 22 coherent documents that come with the package, without real lists.
    assert result.stdout.splitlines()[1].split() == ["256", "198"]
    assert result.stderr.splitlines()[-1] == f"next: ladm {' '.join(packaged)}"
    assert [path.name for path in tmp_path.iterdir()] == ["talking"]
    few = ladm(*command, "--rows", rows, "--documents", "8", "--dry-run")
    assert (few.exit_code, few.stdout) == (2, "")


def test_check_on_rows(ladm: Run, rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []

    def count(scored: list[Any]) -> dict[str, Any]:
        counted.append(len(scored))
        return count_baselines(scored)

    monkeypatch.setattr("ladm.calibration.contrast_scores.count_baselines", count)
    out = tmp_path / "check"
    command = ("check", "--model", GOLDEN, "--rows", rows, "--output", out, "--span-tokens", "8", "--dtype", "float32")
    command += ("--lists", rows)
    result = ladm(*command)
    assert result.exit_code == 0, result.output
    # Not of the rows with other spans, whose counts nothing reads.
    assert len(counted) == 1
    words = ["ladm", "calibrate", "--model", GOLDEN, "--rows", rows, "--lists", rows, "-o", "profile.yaml"]
    assert result.stderr.splitlines()[-1] == f"next: {shlex.join(map(str, words))}"
    assert (out / "check.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((out / "check.json").read_text())
    assert list(record["long_range"]) == ["intact", "2 pieces", "4 pieces", "8 pieces"]
    assert record["long_range"]["intact"] > 0
    assert record["verdict"][-1] in result.stdout or record["verdict"][-2] in result.stdout
    assert "F:        share of rare words that occurred far back, no model\ngzip:     gzip ratio" in result.stdout
    forms = ["released", "median", "robust", "no sigma", "value-weighted", "value-weighted, no sigma"]
    kinds = ["2 pieces", "4 pieces", "8 pieces", "shuffled", "repeated T/16", "repeated T/5", "made list", "real list"]
    assert list(record["auc"]) == [*kinds, "worst kind"]
    for kind, by_score in record["auc"].items():
        assert list(by_score) == [*forms, "F", "gzip"]
        # Six scores stand beside each other, the others in a second table.
        lines = [line for line in result.stdout.splitlines() if line.startswith(f"{kind:<23} ") and line.endswith(")")]
        assert len(lines) == 2
        for k, (value, low, high) in enumerate(by_score.values()):
            assert low <= value <= high
            assert f"{value:.3f} (" in lines[k // 6]
    assert record["spans"] == [8, 4]
    assert list(record["spearman"]) == forms
    assert all(-1 <= low <= value <= high <= 1 for value, low, high in record["spearman"].values())
    assert list(record["sink_mass"]) == list(record["sink_words"]) == ["0", "1", "2"]
    assert all(0 < mass <= 1 for mass in record["sink_mass"].values())
    # The model has no tokenizer, so the words are ids.
    assert all(word.isdigit() for words in record["sink_words"].values() for word in words)
    assert (
        "absent    4 pieces, same package: no package has 4 documents in one half; see --package-key\n" in result.stderr
    )
    assert f"picture: {out}/check.png\n" in result.stdout
    # The folder is a contrast run like any other: every column of it can be compared by kind.
    compared = ladm("compare", out / "run", "--kinds", "kind", "--cluster", "package", "--columns", "score", "--json")
    assert compared.exit_code == 0, compared.output
    found = {
        kind["kind"]: kind["by_column"]["score"]["value"] for kind in json.loads(compared.stdout)["kinds"]["kinds"]
    }
    assert found == pytest.approx({kind: record["auc"][kind]["released"][0] for kind in kinds}, abs=1e-3)
    again = ladm(*command)
    assert again.exit_code == 0
    assert json.loads((out / "check.json").read_text()) == record


PERFECT, FAIR, CHANCE = Estimate(1.0, 0.95, 1.0), Estimate(0.8, 0.7, 0.9), Estimate(0.5, 0.4, 0.6)


def kinds(**found: Estimate) -> dict[str, dict[str, Estimate]]:
    """AUC of the named scores, the same against every kind; chance for those not named."""
    scores = dict.fromkeys(("released", "median", "robust", "F", "gzip"), CHANCE) | found
    return {kind: dict(scores) for kind in ("4 pieces", "shuffled", "worst kind")}


@pytest.fixture
def perfect_check() -> CheckResult:
    """The released score separates perfectly; tests change one field or another."""
    return CheckResult(
        facts=model_facts(str(GOLDEN)),
        length_tokens=4096,
        documents=20,
        long_range={"intact": 4.0, "2 pieces": 3.0, "4 pieces": 2.0, "8 pieces": 1.0},
        rows=None,
        sink_mass={0: 0.1, 1: 0.2},
        sink_words={0: ["'a'"], 1: ["'b'"]},
        spans=(16, 128),
        spearman=dict.fromkeys(("released", "median", "robust"), FAIR),
        layers=[],
        kinds=kinds(released=PERFECT),
    )


def test_a_full_disk_is_reported_with_the_picture_that_does_not_fit(perfect_check: CheckResult, tmp_path: Path) -> None:
    layer = LayerResult(name="0", forms={RELEASED: PERFECT}, cost=1.0)
    result = dataclasses.replace(perfect_check, layers=[layer], sink_mass={0: 0.1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StorageError, match=rf"^cannot write {tmp_path}/check.png: File too large$"):
            draw_check(result, tmp_path / "check.png")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def verdict(result: CheckResult, **changes: Any) -> list[str]:
    """The lines after that on positions."""
    return list(dataclasses.replace(result, **changes).verdict())[1:]


def test_the_verdict_recommends_a_score(perfect_check: CheckResult) -> None:
    fit = "verdict: fit to be a calculator; "
    assert verdict(perfect_check) == [
        "figure 2: long-range attention falls each time the pieces are halved, as expected",
        "sinks: none; no layer has a sink mass above 0.20",
        "spans: every score ranks the documents alike with spans of 16 and of 128 tokens",
        fit + "score as released",
        "worst kind: 4 pieces, AUC 1.00 with the released score",
    ]
    assert verdict(
        perfect_check,
        kinds=kinds(robust=PERFECT),
        long_range={"intact": 4.0, "2 pieces": 2.0, "4 pieces": 3.0, "8 pieces": 1.0},
    )[0:5:3] + verdict(perfect_check, kinds=kinds(robust=PERFECT))[4:5] == [
        "figure 2: intact documents have the most long-range attention, but the pieces are out of order",
        fit + "score with --score robust",
        "warning: the released score, the mean over layers, is significantly worse",
    ]
    weak = verdict(perfect_check, kinds=kinds(median=FAIR), long_range={"intact": 1.0, "2 pieces": 2.0})
    assert weak[0] == (
        "figure 2: pasted documents have as much long-range attention as intact ones, so structure is not seen"
    )
    assert weak[3] == (
        "verdict: weak: it separates intact from pasted documents, but not reliably; score with --reduce median"
    )
    undecided = "verdict: undecided: 20 documents are too few to decide; give more with --rows"
    assert undecided in verdict(perfect_check, kinds=kinds(), rows=None)
    # It was advised to whoever had given a thousand rows, of which the default takes 24 documents.
    more = "verdict: undecided: 20 documents are too few to decide; raise --documents, or give --rows that have more"
    assert more in verdict(perfect_check, kinds=kinds(), rows="rows")
    narrow = dict.fromkeys(("released", "median", "robust"), Estimate(0.5, 0.45, 0.55))
    assert "verdict: unfit: no score separates intact from pasted documents" in verdict(
        perfect_check, kinds=kinds(**narrow)
    )
    flat = verdict(perfect_check, long_range=dict.fromkeys(perfect_check.long_range, 0.0))
    assert flat[0].endswith("structure is not seen")


def test_the_verdict_in_a_word_is_that_of_its_text(perfect_check: CheckResult) -> None:
    narrow = dict.fromkeys(("released", "median", "robust"), Estimate(0.5, 0.45, 0.55))
    for found, fitness, recommended in (
        (kinds(robust=PERFECT), "fit", "robust"),
        (kinds(median=FAIR), "weak", "median"),
        (kinds(), "undecided", "released"),
        (kinds(**narrow), "unfit", "released"),
    ):
        check = dataclasses.replace(perfect_check, kinds=found)
        assert (check.fitness, check.recommended) == (fitness, recommended)
        assert [line for line in check.verdict() if line.startswith(f"verdict: {fitness}")]


def test_the_verdict_names_sinks_spans_counts_and_the_worst_kind(perfect_check: CheckResult) -> None:
    found = kinds(released=PERFECT, F=PERFECT)
    found["shuffled"]["released"] = Estimate(0.1, 0.0, 0.2)
    lines = verdict(
        perfect_check,
        sink_mass={0: 0.1, 3: 0.6, 4: 0.75},
        sink_words={0: ["'x'"], 3: ["'y'"], 4: ["' the'", "' of'"]},
        spearman={"released": CHANCE, "median": FAIR, "robust": FAIR},
        kinds=found,
    )
    assert lines[1:] == [
        "sinks: layers 3-4, up to 75% of the distant attention on 6 of 1,024 tokens, such as ' the', ' of'",
        "spans: with spans of 16 and of 128 tokens the ranks differ, so they depend on the span length: released 0.50",
        "verdict: fit to be a calculator; score as released",
        "warning: counting rare words without a model (F) separates the pasted rows as well: 1.00 against 1.00 for the "
        "worst of them",
        "worst kind: shuffled, AUC 0.10 with the released score; guard the selection (ladm select --within), or "
        "calibrate signed heads (ladm calibrate)",
    ]
    assert not any(line.startswith("spans") for line in verdict(perfect_check, spans=None))


def test_the_verdict_reports_the_positions_of_the_model(perfect_check: CheckResult) -> None:
    free = dataclasses.replace(perfect_check.facts, max_tokens=None)
    bound = dataclasses.replace(perfect_check.facts, max_tokens=8192)
    far = dataclasses.replace(perfect_check.facts, max_tokens=32768)
    lines = [next(dataclasses.replace(perfect_check, facts=facts).verdict()) for facts in (free, bound, far)]
    assert lines == [
        "positions: the model sets no limit; tested with 4,096 tokens",
        "positions: made for 8,192 tokens, tested with 4,096; longer rows are refused",
        "positions: made for 32,768 tokens, tested with 4,096; longer rows are not tested",
    ]


def test_the_help_says_how_many_documents_are_needed(ladm: Run) -> None:
    for command, least in (("check", check_rows.MIN_DOCUMENTS), ("calibrate", contrast.MIN_DOCUMENTS)):
        assert f"at least {least} are needed" in " ".join(ladm(command, "--help").stdout.split())


def test_error_messages_of_check(ladm: Run, rows: str, tmp_path: Path) -> None:
    out = ("--output", tmp_path / "check")
    for arguments, code, message in (
        (("--rows", rows, *out, "--documents", "15"), 2, "--documents 15 is too few; at least 16 are needed"),
        (("--rows", rows, *out, "--length", "128"), 2,
         "--length has no effect with --rows, which have a length already"),
        (("--rows", tmp_path / "no", *out), 1,
         f"no such data set: {tmp_path / 'no'} is neither a folder nor a Hub id such as org/name"),
        (out, 1, f"*{GOLDEN}"),
    ):  # fmt: skip
        result = ladm("check", "--model", GOLDEN, *arguments)
        assert result.exit_code == code
        if message.startswith("*"):
            assert result.stderr.startswith("ladm: ")
            assert message[1:] in result.stderr
        else:
            assert result.stderr == f"ladm: {message}\n"
