"""Scores by name: `--score` of `ladm score` and `ladm rescore`, and the warning that names the robust one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import Result

from ladm.errors import UsageError
from ladm.explain.decompose import Decomposer
from ladm.method.grid import Method
from ladm.method.reduction import Reduction
from ladm.runs.folder import Run
from ladm.scoring.sink_warning import sink_warning
from ladm.settings.config_file import score_settings
from ladm.settings.runs import RescoreSettings
from ladm.signals.layer_cds import layer_cds
from support.files import read_lines, read_object
from support.models import SMALL
from support.paths import DATA, ROOT
from support.rows import topical_rows
from support.runs import results

Command = Callable[..., Result]


@pytest.fixture
def rows(save_rows: Any, golden: dict[str, Any]) -> str:
    return str(save_rows(topical_rows(golden, [700, 512, 650, 600])))


@pytest.fixture
def run(score_once: Any, rows: str, tmp_path: Path) -> Path:
    return Path(score_once(rows, output=tmp_path / "run"))


def test_robust_is_the_mean_of_the_later_layers_of_its_column_and_rescoring_gives_the_same(
    ladm: Command, rows: str, run: Path, tmp_path: Path
) -> None:
    scored = ladm("score", rows, *SMALL, "--score", "robust", "--output", tmp_path / "robust")
    assert scored.exit_code == 0, scored.output
    assert "ablation none, layers 0-2 stored\n" in scored.stderr
    assert "score     robust: value-weighted, without sigma, mean over layers 1-2\n" in scored.stderr
    for line in read_lines(tmp_path / "robust" / "sorted_by_score.jsonl"):
        stored = np.array(line["value_cds_per_layer_no_std"], dtype=np.float32).astype(float)
        assert line["score"] == pytest.approx(stored[1:].mean(), rel=1e-12)
    identity = read_object(tmp_path / "robust" / "run.json")
    assert (identity["score"]["focus"], identity["score"]["form"]) == ("value", "no-std")
    assert identity["score"]["layers"] == [1, 2]
    assert identity["settings"] == read_object(run / "run.json")["settings"]
    # From a run of another score, and back: the numbers are the same in each run.
    assert ladm("rescore", run, "--score", "robust", "--output", tmp_path / "again").exit_code == 0
    assert results(tmp_path / "again") == results(tmp_path / "robust")
    assert ladm("rescore", tmp_path / "robust", "--score", "released", "--output", tmp_path / "back").exit_code == 0
    assert results(tmp_path / "back") == results(run)
    median = ladm("rescore", tmp_path / "again", "--reduce", "median", "--output", tmp_path / "median")
    assert median.exit_code == 0
    for line in read_lines(tmp_path / "median" / "sorted_by_score.jsonl"):
        stored = np.array(line["value_cds_per_layer_no_std"], dtype=np.float32).astype(float)
        assert line["score"] == stored[1:].mean()


def test_released_is_the_default_and_paper_its_variant(ladm: Command, rows: str, run: Path) -> None:
    again = ladm("score", rows, *SMALL, "--score", "released", "--output", run)
    assert again.stdout.startswith("already finished: ")
    given = {"rows": "rows", "output": "run"}
    paper = score_settings(None, given | {"score": "paper"})
    assert paper.method == score_settings(None, given | {"variant": "paper"}).method
    profile = ROOT / "configs" / "profiles" / "smollm2-135m.yaml"
    assert score_settings(None, given | {"score": str(profile)}) == score_settings(
        None, given | {"profile": str(profile)}
    )


def test_contradictions_of_a_named_score() -> None:
    given: dict[str, Any] = {"rows": "rows", "output": "run"}
    goes = "--score {} needs --{} {}, but --{} {} was given; leave one of them out"
    two = "--score {} and --profile p.yaml are two scores; give one of them"
    for flags, message in (
        ({"score": "best"},
         "--score 'best' is neither released, paper, robust nor a .yaml file written by ladm calibrate"),
        ({"score": "paper", "variant": "released"}, goes.format("paper", "variant", "paper", "variant", "released")),
        ({"score": "robust", "reduce": "median"}, goes.format("robust", "reduce", "mean", "reduce", "median")),
        ({"score": "robust", "ablation": "no-std"}, goes.format("robust", "ablation", "none", "ablation", "no-std")),
        ({"score": "robust", "profile": "p.yaml"}, two.format("robust")),
        ({"score": "q.yaml", "profile": "p.yaml"}, two.format("q.yaml")),
    ):  # fmt: skip
        with pytest.raises(UsageError) as caught:
            score_settings(None, given | flags)
        assert str(caught.value) == message
    for flags, message in (
        ({"score": "robust", "profile": "p.yaml"}, two.format("robust")),
        ({"score": "robust", "reduce": "mean"}, "--score robust is a mean over layers; leave --reduce out"),
        ({"score": "p.yaml", "layers": "1"},
         "--score p.yaml sets the layers and the reduction; leave --reduce and --layers out"),
    ):  # fmt: skip
        with pytest.raises(UsageError) as caught:
            RescoreSettings(run="run", output="out", **flags)
        assert str(caught.value) == message


def test_a_run_that_cannot_give_a_named_score(ladm: Command, rows: str, run: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(DATA / "run_format_3", old)
    out = ("--output", tmp_path / "out")
    result = ladm("rescore", old, "--score", "robust", *out)
    assert result.stderr == (
        f"ladm: {old} did not store value_cds_per_layer_no_std; score it again with this version of ladm\n"
    )
    assert ladm("rescore", run, "--score", "paper", *out).stderr == (
        f"ladm: --score paper needs the variant paper, but {run} was scored with released\n"
    )
    ladm("score", rows, *SMALL, "--ablation", "no-length", "--output", tmp_path / "no-length")
    assert ladm("rescore", tmp_path / "no-length", "--score", "robust", *out).stderr == (
        f"ladm: --score robust cannot be made from {tmp_path / 'no-length'}, which was scored with no-length\n"
    )
    # With --record forms CDS without sigma are stored beside any ablation.
    ladm("score", rows, *SMALL, "--ablation", "no-length", "--record", "forms", "--output", tmp_path / "forms")
    assert ladm("rescore", tmp_path / "forms", "--score", "robust", *out).exit_code == 0
    assert ladm("rescore", run, "--score", "robust", "--output", tmp_path / "robust").exit_code == 0
    ours, theirs = (read_lines(tmp_path / name / "sorted_by_score.jsonl") for name in ("out", "robust"))
    assert [line["score"] for line in ours] == [line["score"] for line in theirs]
    shutil.rmtree(tmp_path / "out")
    ladm("score", rows, *SMALL, "--ablation", "no-std", "--output", tmp_path / "no-std")
    assert ladm("rescore", tmp_path / "no-std", "--score", "robust", *out).exit_code == 0


def test_a_robust_score_is_decomposed(golden_observer: Any, golden: dict[str, Any]) -> None:
    ids, grid = torch.tensor([golden["input_ids"][0][:512]]), Method(span_tokens=16).grid(512)
    decomposer = Decomposer(
        observer=golden_observer, reduction=Reduction(layers=golden_observer.layers, focus="value"), ablation="no-std",
        backend="torch", most_pairs=4,
    )  # fmt: skip
    found = decomposer.decompose(ids, grid)
    stored = layer_cds(golden_observer, ids, grid, ablation="none", backend="torch")["value_cds_per_layer_no_std"]
    assert found.score == pytest.approx(stored.mean().item(), rel=1e-5)
    assert found.part_JN.sum().item() == pytest.approx(found.score, rel=1e-5)
    for (row, i), part_ll in zip(found.pairs, found.token_parts, strict=True):
        assert part_ll.sum().item() == pytest.approx(found.part_JN[row, i].item(), rel=1e-4)


def test_a_full_disk_is_not_blamed_on_the_run_that_is_rescored(
    ladm: Command, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("Error writing bytes to file. Detail: [errno 28] No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
    result = ladm("rescore", run, "--score", "robust", "--output", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (
        74,
        f"ladm: cannot sort in {tmp_path / 'out'}: Error writing bytes to file. Detail: [errno 28] No space left on "
        "device\n",
    )


def test_a_robust_run_is_inspected_and_reported(ladm: Command, run: Path, tmp_path: Path) -> None:
    robust = tmp_path / "robust"
    assert ladm("rescore", run, "--score", "robust", "--output", robust).exit_code == 0
    inspected = ladm("inspect", robust, "--device", "cpu", "--top", "1")
    assert inspected.exit_code == 0, inspected.output
    assert ladm("report", robust).exit_code == 0
    page = (robust / "report.html").read_text()
    assert "mean over layers 1-2, no-std, value-weighted" in page
    assert "by the norms of the earlier span" in page


def test_a_plain_mean_over_sink_layers_is_warned_of(run: Path) -> None:
    assert sink_warning(Run.read(run)) is None
    _with_sink_masses(run, [0.1, 0.7, 0.6])
    assert sink_warning(Run.read(run)) == (
        "in layers 1-2 a few tokens receive up to 70% of the distant attention, and a plain mean over layers depends "
        f"on where those tokens are; try ladm rescore {run} --score robust --output {run}-robust"
    )
    identity = read_object(run / "run.json")
    for change in ({"layers": [0]}, {"reduce": "median"}, {"focus": "value"}):
        (run / "run.json").write_text(json.dumps(identity | {"score": identity["score"] | change}))
        assert sink_warning(Run.read(run)) is None


def test_sinks_in_the_later_half_of_the_layers_are_warned_of(ladm: Command, run: Path, tmp_path: Path) -> None:
    _with_sink_masses(run, [0.1, 0.7, 0.2])
    warning = (
        "in layer 1 a few tokens receive up to 70% of the distant attention, and a {}mean over layers depends on "
        f"where those tokens are; try ladm rescore {run} --score robust --layers after-sinks --output {run}-robust"
    )
    assert sink_warning(Run.read(run)) == warning.format("plain ")
    identity = read_object(run / "run.json")
    (run / "run.json").write_text(json.dumps(identity | {"score": identity["score"] | {"focus": "value"}}))
    assert sink_warning(Run.read(run)) == warning.format("")
    (run / "run.json").write_text(json.dumps(identity))
    again = ladm("rescore", run, "--score", "robust", "--layers", "after-sinks", "--output", tmp_path / "after")
    assert again.exit_code == 0, again.output
    assert again.stderr.splitlines()[0] == "layers    2 of 0-2, those after the last one with attention sinks"
    assert read_object(tmp_path / "after" / "run.json")["score"]["layers"] == [2]
    robust = ladm("rescore", run, "--score", "robust", "--output", tmp_path / "robust")
    assert robust.stderr.splitlines()[0] == "layers    1-2 of 0-2"
    _with_sink_masses(run, [0.1, 0.7, 0.8])
    everything = ladm("rescore", run, "--layers", "after-sinks", "--output", tmp_path / "all")
    assert everything.stderr.splitlines()[0] == (
        "layers    0-2 of 0-2, all of the run: no layer has attention sinks, or none comes after the last one with "
        "sinks"
    )
    assert sink_warning(Run.read(tmp_path / "after")) is None


def test_select_warns_of_a_plain_mean_over_sink_layers(ladm: Command, run: Path, tmp_path: Path) -> None:
    _with_sink_masses(run, [0.1, 0.7, 0.2])
    later = ladm("select", run, "--top", "50%", "-o", tmp_path / "out", "--dry-run")
    assert f"try ladm rescore {run} --score robust --layers after-sinks --output {run}-robust" in later.stderr
    _with_sink_masses(run, [0.1, 0.7, 0.6])
    problem = (
        "warning   in layers 1-2 a few tokens receive up to 70% of the distant attention, and a plain mean over layers "
        "depends on where those tokens are: try --by robust"
    )
    command = ("select", run, "--top", "50%", "-o", tmp_path / "out", "--dry-run")
    for flags in ((), ("--by", "released")):
        assert problem + " --within pool (docs/selection.md)" in ladm(*command, *flags).stderr.splitlines()
    guarded = ladm(*command, "--within", "gzip_ratio:10%-")
    assert problem + " (docs/selection.md)" in guarded.stderr.splitlines()
    for by in ("robust", "median", "length", "rank(score)+rank(robust)"):
        result = ladm(*command, "--by", by)
        assert (result.exit_code, "plain mean" in result.stderr) == (0, False)


def test_select_warns_of_robust_without_a_guard(
    score_once: Any, ladm: Command, short_rows: str, tmp_path: Path
) -> None:
    released, robust = tmp_path / "released", tmp_path / "robust"
    score_once(short_rows, output=released)
    assert ladm("rescore", released, "--score", "robust", "--output", robust).exit_code == 0
    warning = (
        "warning   robust ranks shuffled text, repeated text and lists above real documents, and no guard drops any: "
        "try --within pool (docs/selection.md)\n"
    )
    for run, flags, expected in [
        (robust, (), warning),
        (released, ("--by", "robust"), warning),
        (robust, ("--within", "robust:-80%"), ""),
        (robust, ("--within", "pool"), ""),
        (robust, ("--by", "released"), ""),
        (robust, ("--by", "-robust"), ""),
        (released, (), ""),
    ]:
        result = ladm("select", run, "--documents", "3", *flags, "--dry-run", "--output", tmp_path / "subset")
        assert (result.exit_code, result.stderr) == (0, expected)


def test_without_statistics_of_texts_the_warning_names_the_other_guards(
    ladm: Command, short_rows: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    scored = ladm("score", short_rows, *SMALL, "--signals", "cds", "--score", "robust", "--output", run)
    assert scored.stderr.splitlines()[-1] == f"next: ladm select {run} --tokens N -o subset"
    result = ladm("select", run, "--documents", "3", "--dry-run", "--output", tmp_path / "subset")
    assert (result.exit_code, result.stderr) == (
        0,
        "warning   robust ranks shuffled text, repeated text and lists above real documents, and no guard drops any: "
        "try --within robust:-80% --within copy_share:-95% (docs/selection.md)\n",
    )


def test_a_ranking_by_the_score_of_a_run_of_texts_alone_is_warned_of(
    score_once: Any, ladm: Command, short_rows: str, golden_lm: Path, tmp_path: Path
) -> None:
    run, select = tmp_path / "run", ("--documents", "3", "--dry-run", "--output", tmp_path / "subset")
    score_once(short_rows, "--signals", "text", output=run)
    warning = (
        "warning   the score of this run is gzip_ratio, which ranks random characters and tables of numbers first: try "
        "--by far_rare --within far_rare:-80%/domain --within gzip_ratio:10%-/domain (docs/selection.md)\n"
    )
    for flags in [(), ("--within", "length:0-"), ("--by", "score")]:
        assert ladm("select", run, *select, *flags).stderr == warning
    # A baseline given by its name.
    for by in ("gzip_ratio", "far_rare", "random"):
        assert ladm("select", run, *select, "--by", by).stderr == ""
    gain = tmp_path / "gain"
    flags = ("--model", golden_lm, "--signals", "context-gain,text", "--output", gain)
    scored = ladm("score", short_rows, *flags)
    assert "score (gain): best " in scored.stdout
    assert scored.stderr.splitlines()[-1] == f"next: ladm select {gain} --tokens N -o subset"
    assert ladm("select", gain, *select).stderr == ""


def test_the_guards_of_the_pool_are_those_that_they_stand_for(
    score_once: Any, ladm: Command, short_rows: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    scored = ladm("score", short_rows, *SMALL, "--score", "robust", "--output", run)
    assert scored.stderr.splitlines()[-1] == f"next: ladm select {run} --tokens N --within pool -o subset"
    guards = ["robust:-80%", "copy_share:-95%", "gzip_ratio:10%-"]
    manifests = []
    for name, texts in [("short", ["pool"]), ("long", guards), ("more", ["length:0-", "pool"])]:
        flags = [word for text in texts for word in ("--within", text)]
        result = ladm("select", run, "--top", "100%", *flags, "--output", tmp_path / name)
        assert result.exit_code == 0, result.stderr
        manifests.append(read_object(tmp_path / name / "manifest.json"))
    assert [guard["given"] for guard in manifests[0]["guards"]] == guards
    assert manifests[0]["guards"] == manifests[1]["guards"]
    assert [guard["given"] for guard in manifests[2]["guards"]] == ["length:0-", *guards]
    plain = ladm("select", run, "--top", "100%", "--within", "robust:-80", "--dry-run", "--output", tmp_path / "none")
    line = "dropped by --within robust:-80: 0, keeping robust of at most 80; a quantile has a %, such as 80%"
    assert line in plain.stdout.splitlines()
    none = ladm("select", run, "--top", "100%", "--within", "robust:80-", "--dry-run", "--output", tmp_path / "none")
    words = "leaves no document; give it wider limits; a quantile has a %, such as 80%"
    assert none.stderr == f"ladm: --within robust:80- {words}\n"
    released = tmp_path / "released"
    score_once(short_rows, "--signals", "longattn", output=released)
    result = ladm("select", released, "--top", "9%", "--by", "longattn", "--within", "pool", "--output", tmp_path / "x")
    more = "which is of the signal cds; score the rows with --signals cds,longattn and another --output"
    assert (result.exit_code, result.stderr) == (2, f"ladm: {released} has no column robust, {more}\n")


def test_layers_after_sinks_need_the_stored_sink_mass(ladm: Command, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(DATA / "run_format_3", old)
    result = ladm("rescore", old, "--layers", "after-sinks", "--output", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (
        1, f"ladm: {old} did not store sink_mass_per_layer; score it again with this version of ladm\n"
    )  # fmt: skip


def _with_sink_masses(run: Path, masses: list[float]) -> None:
    """Replace the stored sink masses; the median over the rows is `masses`, and one row differs from it."""
    path = run / "scores.parquet"
    table = pq.read_table(path)
    place = table.schema.names.index("sink_mass_per_layer")
    column = pa.array([masses] * 3 + [[0.9, 0.4, 0.6]], pa.list_(pa.float32()))
    pq.write_table(table.set_column(place, "sink_mass_per_layer", column), path, write_page_checksum=True)
