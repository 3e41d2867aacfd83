"""What can be done with a run from Python beside reading it: the same files as those of the commands, and warnings."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

import ladm
from ladm.runs.status import describe
from support.documents import write_corpus
from support.models import METHOD
from support.paths import GOLDEN
from support.rows import topical_rows

Command = Callable[..., Result]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, talking_model: Path) -> tuple[Path, ladm.FinishedJob]:
    """A folder with a small corpus, a model and a job of both, and what `ladm.run` returned; `whole` is a copy."""
    folder = tmp_path_factory.mktemp("made") / "used"
    shutil.copytree(talking_model, folder / "talking")
    write_corpus(folder)
    with contextlib.chdir(folder):
        job = run_job(folder / "talking")
    shutil.copytree(folder, folder.parent / "whole")
    return folder, job


@pytest.fixture
def job(made: tuple[Path, ladm.FinishedJob], monkeypatch: pytest.MonkeyPatch) -> ladm.FinishedJob:
    """What `ladm.run` makes of a small corpus, in the working folder, beside the model `talking`."""
    folder, job = made
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "whole", folder)
    monkeypatch.chdir(folder)
    return job


def run_job(model: Path, **settings: Any) -> ladm.FinishedJob:
    return ladm.run("corpus/*.jsonl.gz", model=model, output="job", tokens="2k", length=512, span_tokens=16, **settings)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_job_in_one_call_and_its_repetition(job: ladm.FinishedJob, capsys: pytest.CaptureFixture[str]) -> None:
    talking = Path.cwd() / "talking"
    assert (job.folder, job.rows, job.page) == (Path("job"), Path("job/rows"), Path("job/report.html"))
    assert job.page.is_file()
    assert job.run == ladm.open_run("job/scores")
    assert job.run.summary().scored == 7
    assert job.subset.folder == Path("job/subset")
    assert job.subset.manifest.taken_tokens == 1536
    # The result stands for its folder, like those of the other functions.
    assert ladm.open_run(job) == job.run
    assert ladm.verify(job) == ladm.verify(job.folder) == []
    assert repr(job.subset) == "Subset(folder='job/subset', taken_documents=3, taken_tokens=1536)"
    before = contents(job.folder)
    assert run_job(talking) == job
    assert contents(job.folder) == before
    assert capsys.readouterr() == ("", "")
    run_job(talking, progress=True)
    assert "job was started before; resuming it" in capsys.readouterr().err


def test_the_job_is_that_of_the_command(job: ladm.FinishedJob, ladm: Command) -> None:
    talking = Path.cwd() / "talking"
    command = ("run", "corpus/*.jsonl.gz", "--model", talking, "--tokens", "2k", "--length", 512, "--span-tokens", 16)
    assert ladm(*command, "--output", "other").exit_code == 0
    for name in ("scores/sorted_by_score.jsonl", "scores/scores.parquet", "rows/dropped.jsonl"):
        assert (Path("other") / name).read_bytes() == (job.folder / name).read_bytes()
    assert ladm(*command, "--output", job.folder).exit_code == 0


def test_settings_of_a_job_that_do_not_exist_or_cannot_work(talking: Path, tmp_path: Path) -> None:
    faults: list[tuple[dict[str, Any], str]] = [
        ({"token": "2k"}, "ladm.run has no setting token; did you mean tokens?"),
        ({"tokens": "2k", "dry_run": True}, "ladm.run has no setting dry_run"),
        ({"tokens": "2k", "sources": []}, "there are no sources; give at least one"),
        ({"tokens": "2k", "model": ""}, "model must be a name or a path, not an empty text"),
        ({"tokens": "2k", "domain": ""}, "--domain is an empty text; leave it out, or give a name"),
        ({}, "how much to select is missing; give --tokens, --documents, --top or --min-score"),
    ]
    for settings, message in faults:
        given = {"sources": "corpus", "model": talking, "output": tmp_path / "o"} | settings
        with pytest.raises(ladm.LadmError) as caught:
            ladm.run(**given)
        assert str(caught.value).startswith(message)
    assert not (tmp_path / "o").exists()


def test_a_share_that_may_have_been_meant_as_a_tenth_is_warned_of(
    talking: Path, ladm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ladm as front

    write_corpus(tmp_path)
    monkeypatch.chdir(tmp_path)
    settings = {"model": talking, "output": "job", "length": 512, "span_tokens": 16}
    with pytest.warns(front.LadmWarning, match="^--top 0.5 is 0.5 %; if 50 % is meant, write 50%$"):
        front.run("corpus/*.jsonl.gz", top=0.5, **settings)
    done = ladm("run", "corpus/*.jsonl.gz", "--model", talking, "--top", "0.5", "-o", "job2", "--dry-run")
    assert "warning   --top 0.5 is 0.5 %; if 50 % is meant, write 50%\n" in done.stderr


def test_a_run_is_annotated_and_its_columns_are_read_together(job: ladm.FinishedJob, ladm: Command) -> None:
    """Stored, added and derived columns in one table, each row with its own values."""
    import ladm as front

    scores = front.score("job/rows", model=GOLDEN, output="cds", signals="cds", allow_other_tokenizer=True, **METHOD)
    assert "gzip_ratio" not in scores.columns()
    with pytest.raises(front.LadmError, match="cds has no column gzip_ratio"):
        scores.scores(["gzip_ratio"])
    assert scores.annotate(num_proc=1) == scores
    names = ["gzip_ratio", "position", "robust", "score", "cds_per_layer", "length", "meta"]
    assert set(names) <= set(scores.columns())
    table = scores.scores(names)
    assert table.column_names == names
    assert table["score"].to_pylist() == scores.scores()["score"].to_pylist()
    # The same statistics, stored by a run that computed them itself.
    own = {row["position"]: row["gzip_ratio"] for row in job.run.scores(["position", "gzip_ratio"]).to_pylist()}
    assert [row["gzip_ratio"] for row in table.to_pylist()] == [own[k] for k in table["position"].to_pylist()]
    assert set(table["length"].to_pylist()) == {512.0}
    assert ladm("annotate", "cds").exit_code == 0


def test_a_run_is_rescored_inspected_and_reported(job: ladm.FinishedJob) -> None:
    robust = job.run.rescore(output="robust", score="robust")
    assert robust.is_finished
    assert robust.scores(["position", "score"]).to_pylist() == [
        {"position": row["position"], "score": pytest.approx(row["robust"], rel=1e-6)}
        for row in sorted(
            job.run.scores(["position", "robust"]).to_pylist(), key=lambda row: row["robust"], reverse=True
        )
    ]
    files = job.run.inspect(top=2)
    assert [file.parent for file in files] == [Path("job/scores/inspected")] * 2
    assert all(file.is_file() for file in files)
    page = job.run.report(subset=job.subset, output="page.html")
    assert page == Path("page.html")
    assert "in the subset" in page.read_text()
    assert job.run.report() == Path("job/scores/report.html")


def test_the_documents_columns_and_state_of_a_run(
    job: ladm.FinishedJob, ladm: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same as from the commands, as objects."""
    of_command = {
        name: json.loads(ladm(name, "job", *words, "--json").stdout)
        for name, words in (
            ("top", ["-n", "2", "--worst", "--by", "length-robust"]), ("status", ()),
            ("compare", ["--columns", "score,robust", "--top", "50%", "-o", "command.html"]),
        )
    }  # fmt: skip
    capsys.readouterr()
    worst = job.run.top(2, by="length-robust", worst=True)
    assert [vars(document) for document in worst] == of_command["top"]["documents"]
    assert len(job.run.top()) == 7
    assert worst[0].beginning.startswith(worst[0].first_line[:50])
    assert worst[0].first_line.startswith("w")
    found = job.run.compare(columns=["score", "robust"], top="50%", output="page.html")
    assert json.loads(json.dumps(asdict(found))) | {"page": "command.html"} == of_command["compare"]
    assert Path("page.html").read_bytes() == Path("command.html").read_bytes()
    assert repr(found) == "Comparison(runs=['job/scores'], documents=7, columns=['score', 'robust'])"
    robust = job.run.rescore(output="robust", score="robust")
    (pair,) = job.run.compare(robust).pairs
    assert (pair.a, pair.b) == ("scores: score", "robust: score")
    assert pair.spearman == pytest.approx(found.pairs[0].spearman)
    status = job.run.status()
    assert describe(status) == of_command["status"]
    assert (status.finished, status.done, status.errors) == (True, 7, {})
    assert job.run.verify() == job.run.verify(deep=True) == robust.verify() == []
    assert job.run.verify(deep=np.bool_(True)) == []
    sealed = Path("job/scores/units/000000.jsonl")
    sealed.write_bytes(sealed.read_bytes().replace(b'"score": ', b'"score":  ', 1))
    (problem,) = job.run.verify()
    assert problem.is_damage
    assert problem.text.startswith(f"{sealed} is damaged")
    assert capsys.readouterr() == ("", "")


def test_what_a_list_of_the_best_lacks_is_a_warning(save_rows: Any, golden: Any, tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "text"} for row in topical_rows(golden, [700, 512])]
    run = ladm.score(save_rows(rows), model=GOLDEN, output=tmp_path / "run", signals="cds", limit=1, **METHOD)
    with pytest.warns(ladm.LadmWarning) as warned:
        (document,) = run.top()
    assert (document.first_line, document.beginning) == ("", "")
    partial = "only the first 1 of 2 rows were scored; to add the others, run ladm score without --limit"
    assert [str(each.message) for each in warned] == [
        f"{tmp_path}/rows has no column text, so no texts are shown", partial
    ]  # fmt: skip
    with pytest.warns(ladm.LadmWarning, match=f"^{partial}$"):
        run.compare(columns="score,robust")


def test_a_run_that_is_not_finished_has_a_status_and_is_verified(save_rows: Any, golden: Any, tmp_path: Path) -> None:
    rows = topical_rows(golden, [512, 512, 20])
    with pytest.raises(ladm.LadmError, match="stopped by --max-errors or --fail-fast"):
        ladm.score(save_rows(rows), model=GOLDEN, output=tmp_path / "run", fail_fast=True, **METHOD)
    run = ladm.open_run(tmp_path / "run")
    status = run.status()
    assert (status.finished, status.running, status.rows, dict(status.errors)) == (False, False, 3, {"too_short": 1})
    assert run.verify() == []
    for call in (run.top, run.compare):
        with pytest.raises(ladm.LadmError, match="is not finished"):
            call()


def test_faults_of_the_methods_of_a_run(job: ladm.FinishedJob) -> None:
    faults: list[tuple[Callable[[], Any], str]] = [
        (lambda: job.run.rescore(output="o"), "nothing to change: give --score, --profile, --reduce or --layers"),
        (lambda: job.run.rescore(output="o", run="x"), "rescore has no setting run; it has so_far, score, profile"),
        (lambda: job.run.rescore(output="", score="robust"), "output must be a name or a path, not an empty text"),
        (lambda: job.run.annotate(rows="nothing"), "no such data set: nothing is neither"),
        (lambda: job.run.inspect(id="nobody"), "no document of job/scores with the id or index 'nobody'"),
        (lambda: job.run.report(subset="corpus"), "corpus is not a subset of ladm select: it has no manifest.json"),
        (lambda: ladm.ScoredRun(Path("corpus")).report(), "corpus is not a run: it has no run.json"),
        (lambda: job.run.top(0), "--number must be at least 1"),
        (lambda: job.run.top(by="nothing"), "job/scores has no column nothing"),
        (lambda: job.run.top(domain="nowhere"), "no document of job/scores has the domain nowhere; the domains are"),
        (lambda: job.run.compare("nothing"), "no such run: nothing does not exist"),
        (lambda: job.run.compare(other=7), "other must be a name or a path, not an object of type int"),
        (lambda: job.run.compare(all_pairs=True), "compare has no setting all_pairs; it has "),
        (lambda: job.run.compare(output="corpus"), "cannot write corpus: it is a folder"),
        (lambda: job.run.verify(deep="yes"), "--deep 'yes' is not true or false"),  # type: ignore[arg-type]
        (lambda: ladm.ScoredRun(Path("corpus")).status(), "corpus is not a run: it has no run.json"),
        (lambda: ladm.ScoredRun(Path("corpus")).verify(), "corpus is not a run: it has no run.json"),
    ]
    for fault, message in faults:
        with pytest.raises(ladm.LadmError) as caught:
            fault()
        assert str(caught.value).startswith(message), str(caught.value)
    assert not Path("o").exists()


def test_warnings_of_the_command_are_warnings_of_python(save_rows: Any, golden: Any, tmp_path: Path) -> None:
    """They name the line of the caller, and come without progress too."""
    rows = save_rows(topical_rows(golden, [700, 20]))
    with pytest.warns(ladm.LadmWarning, match="^1 of 2 rows will have no score: too_short 1$") as caught:
        run = ladm.score(rows, model=GOLDEN, output=tmp_path / "run", **METHOD)
    assert {warning.filename for warning in caught} == {__file__}
    with pytest.warns(ladm.LadmWarning, match="^no document has meta.nothing, so all are one domain; give --domain-k"):
        run.report(domain_key="meta.nothing")


def test_a_warning_that_is_an_error_ends_the_call_and_the_next_one_resumes(
    save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    import warnings

    rows = save_rows(topical_rows(golden, [700, 20]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ladm.LadmWarning):
            ladm.score(rows, model=GOLDEN, output=tmp_path / "run", **METHOD)
    assert ladm.score(rows, model=GOLDEN, output=tmp_path / "run", **METHOD).summary().scored == 1


def test_prepare_and_select_take_the_yaml_file_of_the_command(talking: Path, tmp_path: Path) -> None:
    of_rows, of_subset = tmp_path / "rows.yaml", tmp_path / "subset.yaml"
    of_rows.write_text("length: 64\nkeep_duplicates: true\ndomain: web\n")
    of_subset.write_text("tokens: 256\nby: length\n")
    documents = [{"text": "w100 w101 " * 60} for _ in range(6)]
    rows = ladm.prepare(documents, tokenizer=talking, output=tmp_path / "rows", config=of_rows, domain="books")
    run = ladm.score(rows, model=talking, output=tmp_path / "run", span_tokens=1, dtype="float32", device="cpu")
    subset = ladm.select(run, rows=rows, output=tmp_path / "subset", config=of_subset)
    assert (rows.rows, subset.manifest.taken_tokens, subset.manifest.by) == (6, 256, "length")
    assert list(subset.manifest.domains) == ["books"]
    of_rows.write_text("lenght: 64\n")
    with pytest.raises(ladm.LadmError, match="unknown key 'lenght'"):
        ladm.prepare(documents, tokenizer=talking, output=tmp_path / "other", config=of_rows)


def test_a_run_in_which_no_row_has_a_score_is_a_warning(save_rows: Any, golden: Any, tmp_path: Path) -> None:
    """Also where the run was finished before; the run has the reasons."""
    rows = topical_rows(golden, [512, 512])
    for row in rows:
        row["input_ids"][-1] = 5000
    saved = save_rows(rows)
    for _ in range(2):
        with pytest.warns(ladm.LadmWarning) as warned:
            run = ladm.score(saved, model=GOLDEN, output=tmp_path / "run", **METHOD)
        assert [str(each.message) for each in warned] == [
            f"no document has a score; {tmp_path / 'run'}/errors.jsonl says why"
        ]
    assert [row.error_type for row in run.errors()] == ["outside_vocabulary"] * 2
    for fault in (
        lambda: run.rescore(output=tmp_path / "robust", score="robust"),
        lambda: run.scores(["robust"]),
        lambda: ladm.select(run, tokens=512, by="gain", output=tmp_path / "subset"),
    ):
        with pytest.raises(ladm.LadmError) as caught:
            fault()
        assert str(caught.value) == f"{run.folder}: no document has a score; its errors.jsonl has the reasons"


def test_an_estimate_writes_nothing_and_counts_refused_rows(save_rows: Any, golden: Any, tmp_path: Path) -> None:
    rows = save_rows(topical_rows(golden, [700, 512, 700, 20]))
    before = contents(tmp_path)
    with pytest.warns(ladm.LadmWarning, match="^1 of 4 rows will have no score: too_short 1$"):
        found = ladm.estimate(rows, model=GOLDEN, **METHOD)
    assert contents(tmp_path) == before
    assert (found.rows_by_length, found.refused) == ({20: 1, 512: 1, 700: 2}, {"too_short": 1})
    assert found.seconds == pytest.approx(found.seconds_by_length[512] + 2 * found.seconds_by_length[700])
    assert found.hours[1] == found.seconds / 3600
    with pytest.raises(ladm.LadmError, match="^ladm.estimate has no setting dry_run"):
        ladm.estimate(rows, model=GOLDEN, dry_run=True)
    with pytest.raises(ladm.LadmError, match="^no such data set: nothing is neither a folder"):
        ladm.estimate("nothing", model=GOLDEN)


def test_an_estimate_of_a_job_is_that_of_the_command(
    talking: Path, ladm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ladm as front

    write_corpus(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    words = ("corpus/*.jsonl.gz", "--model", talking, "--tokens", "1M", "--length", 512, "--span-tokens", 16)
    of_command = json.loads(ladm("run", *words, "--dry-run", "--json").stdout)
    capsys.readouterr()
    arguments: dict[str, Any] = {"model": talking, "length": 512, "span_tokens": 16}
    found = front.estimate_run("corpus/*.jsonl.gz", tokens="1M", **arguments)
    assert capsys.readouterr() == ("", "")
    assert contents(tmp_path) == before
    for name in ("is_exact", "length", "rows", "tokens", "selectable_rows", "fills_budget"):
        assert getattr(found, name) == of_command[name], name
    assert (found.rows, found.tokens, found.fills_budget) == (7, 7 * 512, False)
    assert found.documents is not None
    assert dict(found.documents.prepared.counts) == of_command["counts"]
    assert found.scoring.rows_by_length == {512: 7}
    assert found.rows_hours is not None
    assert found.hours == {count: found.rows_hours + hours for count, hours in found.scoring.hours.items()}
    assert repr(found).startswith("Forecast(is_exact=True, rows=7, tokens=3584, fills_budget=False, hours={1: ")
    config = tmp_path / "job.yaml"
    config.write_text("tokens: 2k\n")
    assert front.estimate_run("corpus/*.jsonl.gz", config=config, **arguments).fills_budget
    faults: list[tuple[dict[str, Any], str]] = [
        ({}, "how much to select is missing; give --tokens, --documents, --top or --min-score"),
        ({"tokens": "2k", "dry_run": True}, "ladm.estimate_run has no setting dry_run"),
        ({"tokens": "2k", "sources": [{"text": "in memory"}]}, "ladm.run reads its documents again when it resumes"),
        ({"tokens": "2k", "sources": "nothing"}, "no such data set: nothing is neither a folder"),
    ]
    for more, message in faults:
        with pytest.raises(front.LadmError) as caught:
            front.estimate_run(**{"sources": "corpus/*.jsonl.gz"} | arguments | more)
        assert str(caught.value).startswith(message), str(caught.value)
