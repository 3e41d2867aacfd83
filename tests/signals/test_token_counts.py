"""Token counts that are given to a run with text statistics: computed again without a model, and read instead."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

import ladm as front
from ladm.annotation import annotate as module
from ladm.runs.columns.by_name import column_names, read_columns
from ladm.runs.folder import Run
from ladm.settings.runs import AnnotateSettings
from support.models import SMALL
from support.rows import topical_rows
from support.runs import results

Command = Callable[..., Result]
LENGTHS = [512, 400, 450, 480, 700, 480, 512, 490] * 3


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path]:
    """Every token is rare; every token is common but those after the first 100."""
    rare, mixed = tmp_path / "rare.npy", tmp_path / "mixed.npy"
    np.save(rare, np.ones(5000, dtype=np.int64))
    np.save(mixed, np.r_[np.full(100, 10_000), np.zeros(412, dtype=np.int64)])
    return rare, mixed


@pytest.fixture
def rows(save_rows: Any, golden: Any) -> str:
    return str(save_rows(topical_rows(golden, LENGTHS)))


@pytest.fixture
def run(score_once: Any, rows: str, tmp_path: Path) -> Path:
    """A run that was scored with text statistics, in several units."""
    return Path(score_once(rows, output=tmp_path / "run"))


def files(folder: Path) -> dict[str, bytes]:
    """What a run folder holds, without its added signals."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "signals" not in path.relative_to(folder).parts and not path.name.startswith(".")
    }


def far_rare(run: Path) -> dict[int, float]:
    found = read_columns(Run.read(run), ["far_rare"])
    return dict(zip(found["position"].to_pylist(), found["far_rare"].to_pylist(), strict=True))


def annotated(ladm: Command, run: Path, *flags: object) -> Result:
    result = ladm("annotate", run, "--num-proc", "1", *flags)
    assert result.exit_code == 0, result.output
    return result


def test_another_table_counts_instead_of_that_of_the_run(
    ladm: Command, score_once: Any, rows: str, run: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    before, own, names = files(run), far_rare(run), column_names(Run.read(run))
    result = annotated(ladm, run, "--unigrams", tables[0])
    text = run / "signals" / "text"
    assert result.stdout.splitlines()[2] == f"token counts: {text}/unigrams.npy, instead of {run}/unigrams.npy"
    assert files(run) == before
    assert column_names(Run.read(run)) == names
    # The same values as those of a run that was given the table when it was scored.
    bare = tmp_path / "bare"
    score_once(rows, "--signals", "cds", output=bare)
    annotated(ladm, bare, "--unigrams", tables[0])
    assert far_rare(run) == far_rare(bare) != own
    # Nothing else differs, least of all what does not depend on the counts.
    others = ["score", "gzip_ratio", "unigram_entropy", "digits", "random"]
    assert read_columns(Run.read(run), others).equals(read_columns(Run.read(bare), others))
    finished = results(text)
    for flags in (("--unigrams", tables[0]), ("--unigrams", text / "unigrams.npy"), ()):
        again = json.loads(annotated(ladm, run, *flags, "--json").stdout)
        assert again["unigrams"] == f"{text}/unigrams.npy"
        assert results(text) == finished
    assert ladm("verify", run).stdout.startswith(f"{run} is sound")
    best = max(far_rare(run).values())
    for command in (("top", run, "--by", "far_rare", "-n", "1"), ("compare", run, "--columns", "score,far_rare")):
        shown = json.loads(ladm(*command, "--json").stdout)
        assert shown, command
        if command[0] == "top":
            assert shown["documents"][0]["value"] == pytest.approx(best)
    assert ladm("report", run).exit_code == 0
    opened = front.open_run(run)
    named = opened.scores(["position", "far_rare", "score"]).to_pydict()
    assert dict(zip(named["position"], named["far_rare"], strict=True)) == far_rare(run)
    stored = opened.scores().to_pydict()
    assert dict(zip(stored["position"], stored["far_rare"], strict=True)) == own


def test_the_table_given_last_wins(ladm: Command, run: Path, tables: tuple[Path, Path]) -> None:
    own, text = far_rare(run), run / "signals" / "text"
    # That of the run itself is in use already.
    kept = annotated(ladm, run, "--unigrams", run / "unigrams.npy")
    assert kept.stdout.startswith("has the text statistics already")
    assert not text.exists()
    found = []
    for table in (*tables, run / "unigrams.npy"):
        annotated(ladm, run, "--unigrams", table)
        found.append(far_rare(run))
        assert ladm("verify", run).exit_code == 0
    assert found[0] != found[1]
    assert found[2] == own
    result = annotated(ladm, run, "--unigrams", tables[1])
    message = f"replacing the text statistics in {text}, which were made with other token counts"
    assert message in result.stderr.splitlines()
    assert far_rare(run) == found[1]


def test_a_stopped_replacement_goes_on(ladm: Command, run: Path, tables: tuple[Path, Path]) -> None:
    annotated(ladm, run, "--unigrams", tables[1])
    text, own = run / "signals" / "text", read_columns(Run.read(run), ["far_rare"])
    whole = results(text)
    annotated(ladm, run, "--unigrams", tables[0])

    class Stop:
        def start(self, **_: int) -> None:
            pass

        def advance(self, **_: int) -> None:
            raise KeyboardInterrupt

        def close(self) -> None:
            pass

    settings = AnnotateSettings(run=str(run), unigrams=str(tables[1]), num_proc=1)
    with pytest.raises(KeyboardInterrupt):
        module.annotate(settings, echo=lambda _: None, progress=Stop())
    assert not Run.read(text).is_finished
    # Until then neither the numbers of the run nor those of the table before count in silence.
    assert "far_rare" not in column_names(Run.read(run))
    result = ladm("select", run, "--tokens", "1k", "--by", "far_rare", "-o", run / "subset")
    assert result.exit_code == 3
    assert f"far_rare is computed again in {text}, which is not finished; to finish it: ladm annotate" in result.stderr
    # Whichever way the command is repeated; no model and no other table is needed.
    annotated(ladm, run)
    assert results(text) == whole
    assert read_columns(Run.read(run), ["far_rare"]).equals(own)


def test_a_removal_that_was_killed_goes_on(
    ladm: Command, run: Path, tables: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ladm.runs import reset

    annotated(ladm, run, "--unigrams", tables[1])
    text = run / "signals" / "text"
    whole = results(text)
    annotated(ladm, run, "--unigrams", tables[0])

    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reset, "_delete_files", killed)
    settings = AnnotateSettings(run=str(run), unigrams=str(tables[1]), num_proc=1)
    with pytest.raises(KeyboardInterrupt):
        module.annotate(settings, echo=lambda _: None)
    monkeypatch.undo()
    assert not Run.read(text).is_finished
    annotated(ladm, run, "--unigrams", tables[1])
    assert results(text) == whole


def test_a_grown_run_does_not_go_back_to_its_own_counts(
    ladm: Command, rows: str, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert ladm("score", rows, *SMALL, "--limit", "18", "--output", run).exit_code == 0
    annotated(ladm, run, "--unigrams", tables[0])
    before = far_rare(run)
    grown = ladm("score", rows, *SMALL, "--output", run)
    assert grown.exit_code == 0
    refused = ladm("select", run, "--by", "far_rare", "--documents", "3", "--dry-run")
    message = f"{run}/signals/text has 18 of the 24 rows of {run}; add the others: ladm annotate {run}"
    assert (refused.exit_code, refused.stderr) == (1, f"ladm: {message}\n")
    assert f"warning   {message}" in grown.stderr.splitlines()
    with pytest.raises(front.LadmError) as caught:
        front.open_run(run).scores(["far_rare"])
    assert str(caught.value) == message
    # What has no added column needs none.
    assert ladm("select", run, "--by", "score", "--documents", "3", "--dry-run").exit_code == 0
    assert ladm("report", run).exit_code == 0
    result = annotated(ladm, run)
    assert "adding 6 rows to the 18 of the run" in result.stderr
    after = far_rare(run)
    assert len(after) == 24
    assert before.items() <= after.items()
    assert ladm("verify", run).exit_code == 0


def test_overwrite_and_rescore(ladm: Command, rows: str, run: Path, tables: tuple[Path, Path], tmp_path: Path) -> None:
    own = far_rare(run)
    annotated(ladm, run, "--unigrams", tables[0])
    # As of any added signal: the new run has its own, and a line says how to have the others.
    other = tmp_path / "other"
    result = ladm("rescore", run, "--reduce", "median", "--output", other)
    assert f"{other} lacks text, which {run} has as added signals" in result.stderr
    assert f"warning   {other} has text as {run} was scored, not as computed again" in result.stderr
    assert far_rare(other) == own
    shutil.copytree(run / "signals", other / "signals")
    assert far_rare(other) == far_rare(run)
    assert ladm("score", rows, *SMALL, "--output", run, "--overwrite").exit_code == 0
    assert not (run / "signals").exists()
    assert far_rare(run) == own


def test_a_run_of_text_alone_keeps_its_score(
    ladm: Command, score_once: Any, rows: str, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    score_once(rows, "--signals", "text", output=run)
    annotated(ladm, run, "--unigrams", tables[0])
    command = ("select", run, "--documents", "3", "--by", "score", "--within", "far_rare:-80%")
    assert ladm(*command, "--output", tmp_path / "subset").exit_code == 0
    manifest = json.loads((tmp_path / "subset" / "manifest.json").read_text())
    added = Run.read(run / "signals" / "text").identity.signals["text"]
    assert manifest["run"]["signals"]["text"] == added != Run.read(run).identity.signals["text"]


def test_one_table_for_several_runs_before_they_are_scored(
    ladm: Command, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    """The way that the documentation shows: the table of the first rows, made without weights, for all."""
    shards = [save_rows(topical_rows(golden, LENGTHS[k : k + 4]), f"shard{k}") for k in (0, 4)]
    table = tmp_path / "counts" / "unigrams.npy"
    assert ladm("score", shards[0], *SMALL, "--signals", "text", "--output", table.parent).exit_code == 0
    runs = [tmp_path / "run0", tmp_path / "run4"]
    for shard, each in zip(shards, runs, strict=True):
        assert ladm("score", shard, *SMALL, "--unigrams", table, "--output", each).exit_code == 0
    result = ladm("select", *runs, "--by", "far_rare", "--documents", "2", "--dry-run")
    assert (result.exit_code, "far_rare depends" in result.stderr) == (0, False)


def test_score_with_another_table_names_the_command_that_needs_no_model(
    ladm: Command, score_once: Any, rows: str, run: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    table = tables[1]
    refused = ladm("score", rows, *SMALL, "--signals", "text", "--unigrams", table, "--output", run)
    assert (refused.exit_code, refused.stderr.splitlines()[-1]) == (
        2, f"ladm: --unigrams has no effect: {run} has text already; to compute it again with these counts, without a "
        f"model: ladm annotate {run} --unigrams {table}",
    )  # fmt: skip
    bare = tmp_path / "bare"
    score_once(rows, "--signals", "cds", output=bare)
    annotated(ladm, bare)
    for folder, signals, started in ((run, "cds,text", run), (bare, "text", bare / "signals" / "text")):
        before = files(folder)
        refused = ladm("score", rows, *SMALL, "--signals", signals, "--unigrams", table, "--output", folder)
        assert refused.exit_code == 1
        assert (
            f"ladm: {started} was started with something else (--unigrams); give what it was started with; once it is "
            f"finished, other counts: ladm annotate {folder} --unigrams FILE:"
        ) in refused.stderr.splitlines()
        assert files(folder) == before


def test_a_damaged_table_of_a_run_is_not_given_to_another(
    ladm: Command, score_once: Any, rows: str, run: Path, tmp_path: Path
) -> None:
    table = run / "unigrams.npy"
    whole = table.read_bytes()
    table.write_bytes(whole[:-8] + b"\1" + whole[-7:])
    bare = tmp_path / "bare"
    score_once(rows, "--signals", "cds", output=bare)
    score = ("score", rows, *SMALL, "--unigrams", table, "--output", tmp_path / "new")
    for command in (("annotate", run, "--unigrams", table), ("annotate", bare, "--unigrams", table), score):
        result = ladm(*command)
        assert result.exit_code == 74, result.output
        assert f"{table} is damaged: it is not the table that the run was started with" in result.stderr
    assert not (run / "signals").exists()
