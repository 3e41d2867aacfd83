"""`import ladm`: what it loads, prints and raises, and that its scores are those of the command."""

from __future__ import annotations

import concurrent.futures
import os
import re
import subprocess
import sys
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from click.testing import Result

import ladm
from ladm.api.keywords import parse_keywords, spell_path
from ladm.settings.data import PrepareSettings
from ladm.settings.runs import InspectSettings
from ladm.settings.score import ScoreSettings
from ladm.settings.selection import SelectSettings
from support.commands import run_script
from support.documents import write_corpus
from support.files import read_lines
from support.models import METHOD, SMALL
from support.paths import GOLDEN, ROOT
from support.rows import topical_rows

Command = Callable[..., Result]


def python(code: str, **more: Any) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("TRANSFORMERS_", "HF_DATA"))
    }
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, **more
    )


def test_the_import_loads_no_library_and_everything_is_there() -> None:
    done = python(
        "import sys, ladm; heavy = {'torch', 'numpy', 'pyarrow', 'datasets', 'transformers', 'click', 'yaml', 'tqdm'}; "
        "print(sorted(heavy & set(sys.modules)), set(ladm.__all__) <= set(dir(ladm))); "
        "print([getattr(ladm, name) is None for name in ladm.__all__], 'torch' in sys.modules)"
    )
    assert done.stdout.splitlines() == ["[] True", f"{[False] * len(ladm.__all__)} False"], done.stderr
    with pytest.raises(AttributeError, match="^module 'ladm' has no attribute 'nothing'$"):
        _ = ladm.nothing  # type: ignore[attr-defined]


def test_type_checkers_find_the_annotations() -> None:
    """What they find there is in typed_user.py."""
    assert (ROOT / "ladm" / "py.typed").exists()


@pytest.fixture
def mixed_rows(save_rows: Any, golden: Any) -> str:
    """Rows of two lengths, one that is too short, and one of another vocabulary."""
    rows = topical_rows(golden, [700, 512, 700, 20, 512])
    rows[4]["input_ids"] = [5] * 300 + [10**6]
    return str(save_rows(rows))


def test_the_default_span_in_memory_is_that_of_the_command(ladm: Command, save_rows: Any, tmp_path: Path) -> None:
    """A 256th of the rows' length, whatever a row before it had."""
    import ladm as front

    ids = np.random.default_rng(0).integers(0, 500, (2, 1024)).tolist()
    rows = save_rows([{"input_ids": row} for row in ids])
    command = ("score", rows, "--model", GOLDEN, "--dtype", "float32", "--output", tmp_path / "run")
    assert ladm(*command).exit_code == 0
    assert front.open_run(tmp_path / "run").identity().method.span_tokens == 4
    stored = front.open_run(tmp_path / "run").scores().sort_by("position")["score"].to_pylist()
    scorer = front.Scorer(GOLDEN, dtype="float32")
    assert scorer.score([ids[0][:512], *ids])[1].score == stored[0]
    assert [row.score for row in scorer.score(ids)] == stored


@pytest.mark.parametrize("record", ["layers", "forms"])
def test_scores_in_memory_are_those_of_the_command(ladm: Command, mixed_rows: str, tmp_path: Path, record: str) -> None:
    import ladm as front

    assert (
        ladm(
            "score", mixed_rows, *SMALL, "--signals", "cds", "--record", record, "--output", tmp_path / "run"
        ).exit_code
        == 0
    )
    table = front.open_run(tmp_path / "run").scores().sort_by("position").to_pylist()
    from datasets import load_from_disk

    ids = load_from_disk(mixed_rows)["train"]["input_ids"][:]
    scorer = front.Scorer(GOLDEN, record=record, **METHOD)
    found = scorer.score(ids)
    names = set(table[0]) - {"rank", "index", "chunked_index", "score", "meta", "num_tokens", "position"}
    assert "cds_per_layer" in names
    by_position = {row["position"]: row for row in table}
    for position, row in enumerate(found):
        if position not in by_position:
            continue
        stored = by_position[position]
        assert (row.score, row.num_tokens) == (stored["score"], stored["num_tokens"])
        assert set(row.columns) == names
        for name in names:
            # The table has float32; in memory are the decimals of the sorted file, which are the same float32.
            assert np.float32(row.columns[name]).tolist() == stored[name]
    assert len(by_position) == 3
    errors = {line["position"]: line for line in read_lines(tmp_path / "run" / "errors.jsonl")}
    assert {position: (row.error_type, row.error) for position, row in enumerate(found) if row.score is None} == {
        position: (line["error_type"], line["message"]) for position, line in errors.items()
    }
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("rows", "run")] == []


def test_a_closed_scorer_lets_go_of_its_model() -> None:
    with ladm.Scorer(GOLDEN, span_tokens=16, dtype="float32", device="cpu") as scorer:
        assert len(scorer.score([5] * 300)) == 1
        model = weakref.ref(scorer._signal)
    assert model() is None
    with pytest.raises(ladm.LadmError, match=r"^this ladm\.Scorer is closed; make another one$"):
        scorer.score([5] * 300)
    scorer.close()


def test_whatever_holds_the_ids(golden: Any) -> None:
    scorer = ladm.Scorer(GOLDEN, **METHOD)
    ids = golden["input_ids"][0][:512]
    (expected,) = scorer.score(ids)
    assert expected.score is not None
    for one in (tuple(ids), np.array(ids), np.array(ids, dtype=np.uint16), torch.tensor(ids), list(np.array(ids))):
        assert scorer.score(one) == [expected]
    for several in ([ids, ids], np.array([ids, ids]), torch.tensor([ids, ids]), [torch.tensor(ids), tuple(ids)]):
        assert scorer.score(several) == [expected, expected]
    ragged = np.array([np.array(ids), [1, 2]], dtype=object)
    assert [found.error_type for found in scorer.score(ragged)] == [None, "too_short"]
    mixed = scorer.score([None, ids, 7, "text", []])
    assert [found.error_type for found in mixed] == ["no_ids", None, "wrong_type", "wrong_type", "empty"]
    assert mixed[1].score == scorer.score(ids)[0].score
    assert scorer.score([]) == []
    kinds = {
        "wrong_type": [np.array([1.5, 2.0]), ["a"], [1, None], [True], "abc", 7],
        "too_short": [[1, 2]],
        "outside_vocabulary": [[1, -1], np.array([512])],
    }
    for kind, rows in kinds.items():
        for row in rows if kind != "wrong_type" else rows[:4]:
            assert [found.error_type for found in scorer.score([row, ids])] == [kind, None], row
    refusals = {
        "object of type int": 7,
        "object of type str": "abc",
        "array of shape (1, 1, 1)": np.zeros((1, 1, 1), dtype=int),
        "object of type NoneType": None,
        "object of type Series; give what its to_list() returns": pd.Series([ids]),
        "object of type ChunkedArray; give what its to_pylist() returns": pa.chunked_array([[ids]]),
    }
    for end, wrong in refusals.items():
        with pytest.raises(ladm.LadmError) as caught:
            scorer.score(wrong)
        assert str(caught.value) == (
            f"ladm.Scorer scores a list or an array of token ids, or several of them, not an {end}"
        )
    for size in (0, 1.5):
        with pytest.raises(ladm.LadmError, match=f"^batch_rows must be a whole number of at least 1, not {size}$"):
            ladm.Scorer.from_signal(object(), batch_rows=size)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_pipeline_prints_nothing_and_shows_progress_on_request(talking: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path)
    code = f"""
import sys
import weakref
import ladm
from ladm.api.keywords import parse_keywords, spell_path
from ladm.settings.data import PrepareSettings
from ladm.settings.score import ScoreSettings
from ladm.settings.selection import SelectSettings
def go(where, **more):
    rows = ladm.prepare("corpus/*.jsonl.gz", tokenizer={str(talking)!r}, output=where + "/rows", length=512, **more)
    run = ladm.score(rows, model={str(talking)!r}, output=where + "/run", span_tokens=16, **more)
    ladm.select(run, rows=rows, tokens="2k", output=where + "/subset")
    ladm.Scorer({str(talking)!r}, span_tokens=16).score([1] * 512)
    ladm.score(rows, model={str(talking)!r}, output=where + "/run", span_tokens=16, **more)
go("quiet")
print("now with progress", file=sys.stderr)
go("seen", progress=True)
"""
    done = python(code, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    quiet, shown = done.stderr.split("now with progress\n")
    assert quiet == ""
    for part in ("preparing: ", "method    released, spans of 16 tokens", "scoring: 100%", "seen/rows"):
        assert part in shown


def test_the_libraries_get_their_bars_back(tmp_path: Path) -> None:
    import datasets
    from transformers.utils import logging

    before = (logging.get_verbosity(), logging.is_progress_bar_enabled(), datasets.are_progress_bars_disabled())
    environment = dict(os.environ)
    logging.set_verbosity_info()
    try:
        ladm.Scorer(GOLDEN, **METHOD)
        with pytest.raises(ladm.LadmError):
            ladm.Scorer(tmp_path / "nothing")
        assert logging.get_verbosity() == logging.INFO
        assert (logging.is_progress_bar_enabled(), datasets.are_progress_bars_disabled()) == before[1:]
        assert dict(os.environ) == environment
    finally:
        logging.set_verbosity(before[0])


def test_in_threads(mixed_rows: str, golden: Any, tmp_path: Path) -> None:
    """Runs in threads that are not the main one, where Python takes no signal handlers; and one scorer for many."""
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        runs = list(
            pool.map(lambda k: ladm.score(mixed_rows, model=GOLDEN, output=tmp_path / f"run-{k}", **METHOD), range(3))
        )
        scorer = ladm.Scorer(GOLDEN, **METHOD)
        ids = [golden["input_ids"][k % 2][:512] for k in range(6)]
        found = list(pool.map(scorer.score, ids))
    tables = [run.scores() for run in runs]
    assert tables[0].num_rows == 3
    assert tables[1] == tables[0] == tables[2]
    assert found == [scorer.score(row) for row in ids]


def test_a_run_in_every_state(mixed_rows: str, tmp_path: Path) -> None:
    with pytest.raises(ladm.LadmError, match="stopped by --max-errors or --fail-fast"):
        ladm.score(mixed_rows, model=GOLDEN, output=tmp_path / "run", fail_fast=True, **METHOD)
    run = ladm.open_run(tmp_path / "run")
    assert not run.is_finished
    for ask in (run.scores, run.errors, run.summary):
        with pytest.raises(ladm.LadmError, match="is not finished"):
            ask()
    again = ladm.score(mixed_rows, model=GOLDEN, output=tmp_path / "run", **METHOD)
    assert again == run
    assert run.is_finished
    assert run.summary().scored == 3
    assert sorted((row.position, row.error_type) for row in run.errors()) == [
        (3, "too_short"),
        (4, "outside_vocabulary"),
    ]
    assert run.scores(["score"]).column_names == ["score"]
    assert run.identity().method.span_tokens == 16
    with pytest.raises(ladm.LadmError, match=r"run has no column nothing; it has score, "):
        run.scores(["nothing"])
    for misspelt, meant in (("positions", "position"), ("randm", "random"), ("media", "median")):
        with pytest.raises(ladm.LadmError, match=rf"run has no column {misspelt}; did you mean {meant}\?$"):
            run.scores([misspelt])
    for names in ("score", ("score",), iter(["score"]), np.array(["score"])):
        assert run.scores(names) == run.scores(["score"])  # type: ignore[arg-type]
    for wrong in ([None], 7):
        with pytest.raises(ladm.LadmError, match="^columns must be names such as .*, not (None|7)$"):
            run.scores(wrong)  # type: ignore[arg-type]
    for call in (run.columns, lambda **more: run.scores(["other.score"], **more)):
        with pytest.raises(ladm.LadmError) as caught:
            call(join=["other=run"])
        assert (
            str(caught.value)
            == "join must be a dictionary of runs and files, such as {'other': run2}, not ['other=run']"
        )
    with pytest.raises(ladm.LadmError):
        ladm.open_run(tmp_path)


def test_settings_that_do_not_exist_or_cannot_work(mixed_rows: str, tmp_path: Path) -> None:
    faults: list[tuple[Callable[[], Any], str]] = [
        (lambda: ladm.score(mixed_rows, model=GOLDEN, output=tmp_path / "o", span_token=16),
         "ladm.score has no setting span_token; did you mean span_tokens?"),
        (lambda: ladm.Scorer(GOLDEN, workers=2), "ladm.Scorer has no setting workers; it has "),
        *((partial(call, dry_run=True), f"ladm.{name} has no setting dry_run; call ladm.{estimate} in its place")
          for call, name, estimate in (
              (partial(ladm.score, mixed_rows, model=GOLDEN, output=tmp_path / "o"), "score", "estimate"),
              (partial(ladm.run, mixed_rows, model=GOLDEN, output=tmp_path / "o"), "run", "estimate_run"),
              (partial(ladm.check, GOLDEN, output=tmp_path / "o"), "check", "estimate_check"),
              (partial(ladm.calibrate, GOLDEN, rows=mixed_rows, output=tmp_path / "o"), "calibrate",
               "estimate_calibration"))),
        (lambda: ladm.Scorer.from_signal(3),  # type: ignore[arg-type]
         "an object of type int is no signal: it has no asynchronous, check, score (ladm.signals.scorer.SignalScorer)"),
        (lambda: ladm.Scorer(GOLDEN, reduce="max"), "--reduce 'max' is not mean or median or geometric"),
        (lambda: ladm.prepare(["x"], tokenizer=GOLDEN, output=tmp_path / "o", length=0), "--length must be at least 1"),
        (lambda: ladm.prepare([], tokenizer=GOLDEN, output=tmp_path / "o"), "there are no sources; give at least one"),
        (lambda: ladm.select([], output=tmp_path / "o", top=20), "run is empty; give at least one"),
        (lambda: ladm.prepare("", tokenizer=GOLDEN, output=tmp_path / "o"),
         "a source must be a name or a path, not an empty text"),
        (lambda: ladm.open_run(""), "folder must be a name or a path, not an empty text"),
        (lambda: ladm.score(mixed_rows, model=None, output="o"),  # type: ignore[arg-type]
         "model must be a name or a path, not None"),
        (lambda: ladm.score(mixed_rows, model=GOLDEN, output="a\0b"),
         "output must be a name or a path, not a text with a NUL character"),
        (lambda: ladm.select(None, output="o", top=20),  # type: ignore[arg-type]
         "run must be a name or a path, not None"),
        (lambda: ladm.select("run", rows=7, output="o", top=20),  # type: ignore[arg-type]
         "rows must be a name or a path, not an object of type int"),
        (lambda: ladm.select("run", tokens=["1k"], output="o"),  # type: ignore[arg-type]
         "--tokens ('1k',) is not a whole number or text or null"),
        (lambda: ladm.Scorer(GOLDEN, dtype=np.float32), "--dtype <class 'numpy.float32'> is not auto or float32 or"),
        (lambda: ladm.select("run", rows="rows", tokens="many", output="o"), "--tokens 'many' is not a number of"),
        (lambda: ladm.Scorer(GOLDEN, layers=[]), "--layers is an empty list; leave it out, or give at least one"),
        (lambda: ladm.Scorer(GOLDEN, signals=()), "--signals is an empty list; leave it out, or give at least one"),
        *((lambda call=call: call(progress=print),  # type: ignore[misc]
           "progress must be True or False, not <built-in function print>") for call in (
            partial(ladm.prepare, [{"text": "a"}], tokenizer=GOLDEN, output=tmp_path / "o"),
            partial(ladm.score, mixed_rows, model=GOLDEN, output=tmp_path / "o"),
            partial(ladm.run, mixed_rows, model=GOLDEN, output=tmp_path / "o", tokens="1k"),
            partial(ladm.estimate, mixed_rows, model=GOLDEN),
            partial(ladm.estimate_run, mixed_rows, model=GOLDEN, tokens="1k"),
            partial(ladm.check, GOLDEN, output=tmp_path / "o"),
            partial(ladm.calibrate, GOLDEN, rows=mixed_rows, output=tmp_path / "o"))),
        (lambda: ladm.Scorer(tmp_path / "nothing"), f"no such model: {tmp_path}/nothing is neither a folder"),
    ]  # fmt: skip
    for fault, message in faults:
        with pytest.raises(ladm.LadmError) as caught:
            fault()
        assert str(caught.value).startswith(message)
    assert not (tmp_path / "o").exists()


def test_numbers_of_numpy_and_torch_and_numbers_for_texts() -> None:
    found = parse_keywords(
        SelectSettings, "f", {"min_score": np.float64(0.5), "documents": np.int64(3), "top": torch.tensor(20)}
    )
    assert found == {"min_score": 0.5, "documents": 3, "top": 20}
    assert {name: type(value) for name, value in found.items()} == {"min_score": float, "documents": int, "top": int}
    assert parse_keywords(PrepareSettings, "f", {"windows": 2, "length": np.int32(8)}) == {"windows": "2", "length": 8}
    for layers in (range(3), np.arange(3), [0, 1, 2], {2, 0, 1}):
        assert parse_keywords(ScoreSettings, "f", {"layers": layers}) == {"layers": "0,1,2"}
    assert parse_keywords(ScoreSettings, "f", {"signals": {"text", "cds"}}) == {"signals": "cds,text"}
    whole = parse_keywords(SelectSettings, "f", {"tokens": 1e9, "documents": 5e3, "min_score": 1.0})
    assert {name: (value, type(value)) for name, value in whole.items()} == {
        "tokens": (10**9, int), "documents": (5000, int), "min_score": (1.0, float)
    }  # fmt: skip
    for wrong in (5.5, float("inf"), float("nan")):
        with pytest.raises(ladm.LadmError, match="is not a whole number"):
            parse_keywords(SelectSettings, "f", {"tokens": wrong})
    assert parse_keywords(ScoreSettings, "f", {"layers": 1}) == {"layers": "1"}
    for row_id in (7, np.int64(7), "7", ["7"], [7], np.array([7])):
        assert parse_keywords(InspectSettings, "f", {"id": row_id}) == {"id": ("7",)}
    assert type(spell_path(np.str_("a"), "output")) is str


@pytest.mark.parametrize(
    "given",
    [{"documents": 10**5000}, {"max_per": 10**5000}, {"quota": {"web": 10**5000}}, {"quota": {10**5000: 1}},
     {"max_per": {"rows.url": 10**5000}}, {"max_per": [-(10**5000)]}, {"max_per": {10**5000}}],
)  # fmt: skip
def test_numbers_of_more_digits_than_python_writes(given: dict[str, Any]) -> None:
    """Python writes none of 4,300 digits, so that no message can show it, nor a setting hold it as its digits."""
    name = next(iter(given)).replace("_", "-")
    with pytest.raises(ladm.LadmError, match=f"^--{name} is too large a number$"):
        ladm.select("run", tokens=1, output="subset", **given)


def test_the_examples_of_the_page_run_in_order(
    talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(tmp_path)
    (tmp_path / "org").mkdir()
    talking.rename(tmp_path / "org" / "model")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    assert len(blocks) == 10
    printed = []
    # That one takes longer, and runs in test_check_in_python.py.
    for block in (block for block in blocks if "ladm.check" not in block):
        exec(compile(block, "docs/python.md", "exec"), {"__name__": "__main__"})
        printed.append(capsys.readouterr().out.splitlines())
    assert printed[0][0] == "7 rows in rows, of 8 documents"
    assert printed[0][2] == "3 documents, 1536 tokens"
    assert printed[0][4] == "3 torch.Size([512])"
    assert printed[1][0] == "7 3584 True"
    assert printed[2] == ["3 Counter({'kept': 3}) DomainCounts(number=1, largest={'web': 3})"]
    assert printed[3][0].startswith("7 0 (")
    assert printed[4] == ["['position', 'score', 'robust', 'gzip_ratio']", "run-robust/report.html run/report.html"]
    assert printed[5] == ["['other.copy_share', 'other.sink_mass', 'other.near_share']"]
    assert (tmp_path / "subset-of-two" / "manifest.json").is_file()
    assert printed[6][0].startswith("1 ")
    assert [line for line in printed[6] if line.startswith("Pair(a='run: score', b='run-robust: score', ")]
    # No problem is printed behind it.
    assert printed[6][-1] == "7 of 7 rows, errors: {}"
    assert printed[7][2] == "too_short: 2 tokens leave no span to score"
    assert printed[7][3].startswith("600 [")
    assert printed[8] == ["--reduce 'max' is not mean or median or geometric"]


@pytest.fixture
def run_example(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Run a script of `examples/`; returns the lines that it prints."""

    def run(name: str, *arguments: Any) -> list[str]:
        run_script(ROOT / "examples" / name, *arguments)
        return capsys.readouterr().out.splitlines()

    return run


def test_the_example_in_memory(talking: Path, tmp_path: Path, run_example: Any) -> None:
    draw = np.random.default_rng(0)
    files = [tmp_path / f"{k}.txt" for k in range(3)]
    for file in files:
        file.write_text(" ".join(f"w{word}" for word in draw.integers(2, 300, 600)))
    (tmp_path / "empty.txt").touch()
    files[0].write_bytes(b"\xff " + files[0].read_bytes())
    out = run_example("score_in_python.py", talking, *files, tmp_path / "empty.txt")
    assert out.pop() == f"{tmp_path}/empty.txt\tinput_ids is empty"
    assert sorted(line.split("\t")[0] for line in out) == list(map(str, files))
    scores = [float(line.split("\t")[1]) for line in out]
    assert scores == sorted(scores, reverse=True)


def test_the_example_of_a_signal(talking: Path, mixed_rows: str, run_example: Any) -> None:
    out = run_example("own_signal.py", talking, mixed_rows)
    assert [line.split("\t")[0] for line in out] == ["0", "1", "2", "3", "4"]
    assert all(0 < float(line.split("\t")[1]) < 1 for line in out[:3])
    assert out[4].split("\t")[1].startswith("id 1000000 at token 300 is outside")


@pytest.mark.parametrize("name", ["score_in_python.py", "own_signal.py"])
def test_an_example_whose_reader_has_seen_enough_ends_quietly(
    name: str, talking: Path, mixed_rows: str, tmp_path: Path
) -> None:
    (tmp_path / "d.txt").write_text(" ".join(f"w{k}" for k in range(600)))
    last = tmp_path / "d.txt" if name == "score_in_python.py" else mixed_rows
    end, start = os.pipe()
    os.close(end)
    words = [sys.executable, ROOT / "examples" / name, talking, last]
    done = subprocess.run(words, stdout=start, stderr=subprocess.PIPE, text=True, check=False)
    os.close(start)
    assert (done.returncode, "roken" in done.stderr, "Traceback" in done.stderr) == (141, False, False), done.stderr


@pytest.mark.parametrize("name", ["score_in_python.py", "own_signal.py"])
def test_an_example_without_arguments_shows_its_usage(
    name: str, run_example: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_example(name)
    assert f"usage: {name}" in capsys.readouterr().err


@pytest.mark.slow
def test_the_example_for_slurm(mixed_rows: str, tmp_path: Path) -> None:
    """With an `srun` that starts the tasks of one node here: two share the run, one writes the results."""
    (tmp_path / "srun").write_text(
        '#!/bin/bash\n[ "$1" = --kill-on-bad-exit=0 ] || exit 9\nshift\n'
        "export SLURM_STEP_ID=0 SLURM_NTASKS=2\n"
        'SLURM_PROCID=0 SLURM_LOCALID=0 "$@" & SLURM_PROCID=1 SLURM_LOCALID=1 "$@" & wait -n && wait -n\n'
    )
    (tmp_path / "ladm").write_text(f'#!/bin/bash\nexec {sys.executable} -m ladm "$@"\n')
    for name in ("srun", "ladm"):
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    command = ["bash", ROOT / "examples" / "slurm.sbatch", mixed_rows, tmp_path / "run", *SMALL]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 rows scored") == 2
    assert ladm.open_run(tmp_path / "run").is_finished
