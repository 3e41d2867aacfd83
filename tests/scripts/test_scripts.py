"""The scripts beside the package: the independent reference, the comparison, and the two launchers on stand-ins."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from support.commands import run_script
from support.files import read_lines
from support.paths import DATA, GOLDEN, ROOT
from support.rows import topical_rows

SCRIPTS = ROOT / "scripts"


def python(script: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def shell(script: str, *arguments: Any, **environment: Any) -> subprocess.CompletedProcess[str]:
    """Run a launcher with this interpreter's environment in place of the one that it would make."""
    own = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "VENV": "none"}
    own |= {name: str(value) for name, value in environment.items()}
    command = ["bash", str(ROOT / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | own, cwd="/")


@pytest.mark.parametrize("number", [9, pytest.param(11, marks=pytest.mark.slow)])
def test_reference_equals_the_released_code(
    save_rows: Any, golden: dict[str, Any], tmp_path: Path, number: int
) -> None:
    case = golden["cases"][number]
    rows = save_rows(topical_rows(golden, [case["length"]] * 4))
    with pytest.raises(SystemExit) as ended:
        run_script(
            SCRIPTS / "reference.py", rows, "--model", GOLDEN, "--span-tokens", case["span_tokens"],
            "--d-afs", case["d_afs"], "--d-cds", case["d_cds"], "--output", tmp_path / "scores.json", "--layers",
        )  # fmt: skip
    assert ended.value.code == 0
    for line, cds, layers in zip(read_lines(tmp_path / "scores.json"), case["cds"], case["cds_per_layer"], strict=True):
        assert line["score"] == pytest.approx(cds, rel=1e-5)
        assert line["cds_per_layer"] == pytest.approx(layers, rel=1e-5)


def test_reference_imports_neither_the_package_nor_transformers() -> None:
    source = (SCRIPTS / "reference.py").read_text()
    assert "import ladm" not in source
    assert "from ladm" not in source
    assert "import transformers" not in source
    assert "from transformers" not in source


def write_run(folder: Path, scores: dict[int, float]) -> Path:
    folder.mkdir(exist_ok=True)
    lines = [{"index": k, "chunked_index": None, "score": score} for k, score in scores.items()]
    (folder / "sorted_by_score.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


EXPECTED = {0: 1.0, 1: 2.0, 2: 2.001, 3: 3.0}


@pytest.mark.parametrize(
    ("ours", "code", "message"),
    [
        (EXPECTED, 0, "4 scores against"),
        ({0: 1.0005, 1: 2.0, 2: 2.001, 3: 3.0}, 0, "largest relative difference 0.0005"),
        ({0: 1.0, 1: 2.0012, 2: 2.001, 3: 3.0}, 0, "rank correlation 0.8000"),
        ({0: 1.0, 1: 2.0, 2: 2.001, 3: 3.02}, 1, "DIFFERS  row 3: 3.02, expected 3 (relative 0.0067)"),
        ({0: float("nan"), 1: 2.0, 2: 2.001, 3: 3.0}, 1, "DIFFERS  row 0: nan"),
        ({0: 1.0, 1: 2.0, 2: 2.001}, 1, "not the same rows: 1 of the 4 expected are missing, 0 are not expected"),
    ],
)
def test_scores_are_compared_row_by_row(tmp_path: Path, ours: dict[int, float], code: int, message: str) -> None:
    (tmp_path / "expected.json").write_text((write_run(tmp_path / "e", EXPECTED) / "sorted_by_score.jsonl").read_text())
    run = write_run(tmp_path / "run", ours)
    done = python("compare_scores.py", run, tmp_path / "expected.json", "--relative", "1e-3", "--same-order")
    assert (done.returncode, message in done.stdout + done.stderr) == (code, True), done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_row_given_twice_and_an_expected_score_of_0(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {0: 0.0, 1: 2.0})
    expected = tmp_path / "expected.json"
    text = (run / "sorted_by_score.jsonl").read_text()
    expected.write_text(text)
    flags = ("--relative", "1e-3", "--same-order")
    assert python("compare_scores.py", run, expected, *flags).returncode == 0
    expected.write_text(text + '{"index": 1, "chunked_index": null, "score": 9.0}\n')
    done = python("compare_scores.py", run, expected, *flags)
    assert (done.returncode, done.stderr) == (1, f"{expected} has 3 scores of 2 rows\n")
    expected.write_text(text)
    write_run(tmp_path / "run", {0: 0.5, 1: 2.0})
    done = python("compare_scores.py", run, expected, *flags)
    assert (done.returncode, "DIFFERS  row 0: 0.5, expected 0 (relative inf)" in done.stdout) == (1, True)


def test_ranking_that_differs_by_more_than_a_tie_is_reported(tmp_path: Path) -> None:
    expected = write_run(tmp_path / "e", {0: 1.0, 1: 1.01, 2: 5.0}) / "sorted_by_score.jsonl"
    run = write_run(tmp_path / "run", {0: 1.012, 1: 1.009, 2: 5.0})
    done = python("compare_scores.py", run, expected, "--relative", "2e-2", "--same-order")
    assert done.returncode == 0, "inside the tolerance a swap is a tie"
    expected = write_run(tmp_path / "f", {0: 1.0, 1: 1.05, 2: 5.0}) / "sorted_by_score.jsonl"
    done = python("compare_scores.py", run, expected, "--relative", "4.5e-2", "--same-order")
    assert done.returncode == 1
    assert "DIFFERS  row 1 is ranked below row 0, expected above" in done.stdout
    done = python("compare_scores.py", run, expected, "--relative", "0.5", "--spearman", "0.99")
    assert "DIFFERS  rank correlation 0.5000, expected at least 0.99" in done.stdout


@pytest.fixture
def stand_in(save_rows: Any, golden: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Small rows, a small model and CPU settings in place of the real ones on the Hub."""
    (tmp_path / "cpu.yaml").write_text("span_tokens: 16\ndtype: float32\ndevice: cpu\n")
    return {
        "ROWS": save_rows(topical_rows(golden, [2048] * 4)),
        "MODEL": GOLDEN,
        "CONFIG": tmp_path / "cpu.yaml",
        "OUTPUT": tmp_path / "out",
    }


def test_a_toy_that_was_stopped_while_it_removed_a_finished_job_goes_on(tmp_path: Path) -> None:
    for name in ("launch_toy.sh", "scripts/env.sh", "bin/ladm", "bin/python"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("#!/bin/sh\n" if name.startswith("bin") else (ROOT / name).read_text())
        (tmp_path / name).chmod(0o755)
    # Rows and scores are gone already.
    (tmp_path / "runs" / "toy" / "subset").mkdir(parents=True)
    (tmp_path / "runs" / "toy" / "subset" / "manifest.json").touch()
    done = subprocess.run(
        ["bash", str(tmp_path / "launch_toy.sh")], capture_output=True, text=True, check=False,
        env=os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "VENV": "none"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "runs" / "toy" / "subset").exists()


@pytest.mark.slow
def test_published_scores_are_compared_with_a_run(
    stand_in: dict[str, Any], golden: dict[str, Any], tmp_path: Path
) -> None:
    """The script's own code on local folders; with the real data and model it needs the Hub and a GPU."""
    expected = write_run(tmp_path / "e", dict(enumerate(golden["cases"][9]["cds"]))) / "sorted_by_score.jsonl"
    named = {f"LADM_{name}": value for name, value in stand_in.items()}
    done = shell("launch_toy.sh", "--published", **named, LADM_EXPECTED=expected)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"4 scores against {expected}: largest relative difference ")
    off = write_run(tmp_path / "o", dict(enumerate(x * 1.03 for x in golden["cases"][9]["cds"])))
    done = shell("launch_toy.sh", "--published", **named, LADM_EXPECTED=off / "sorted_by_score.jsonl")
    assert done.returncode == 1
    assert done.stdout.count("DIFFERS") == 4


def test_published_settings_are_those_of_the_paper_in_float16() -> None:
    from ladm.settings.config_file import score_settings

    published = score_settings(str(ROOT / "configs" / "published.yaml"), {"rows": "rows", "output": "run"})
    paper = score_settings(str(ROOT / "configs" / "paper.yaml"), {"rows": "rows", "output": "run"})
    assert (published.method, published.reduce, published.record) == (paper.method, paper.reduce, paper.record)
    assert (published.dtype, published.device) == ("float16", "cuda")
    expected = read_lines(DATA / "published_toy_scores.jsonl")
    assert len(expected) == 32
    assert all({"index", "chunked_index", "score", "meta"} == set(line) for line in expected)


def test_a_file_of_settings_is_found_from_the_folder_of_the_call(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "ladm").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "ladm").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    # `shell` calls from the root of the file system.
    mine = f"{tmp_path}/mine.yaml"
    for given, used in ((mine[1:], mine), ("configs/toy.yaml", "configs/toy.yaml")):
        done = shell("launch.sh", "org/rows", tmp_path / "out", PATH=path, CONFIG=given)
        assert f" --config {used} " in done.stdout, done.stderr


@pytest.mark.slow
def test_full_run_scores_and_selects(stand_in: dict[str, Any]) -> None:
    done = shell("launch.sh", stand_in["ROWS"], stand_in["OUTPUT"], stand_in["MODEL"], "4k",
                 CONFIG=stand_in["CONFIG"], DEVICE="cpu")  # fmt: skip
    assert done.returncode == 0, done.stderr
    manifest = json.loads((stand_in["OUTPUT"] / "subset" / "manifest.json").read_text())
    assert manifest["taken_tokens"] <= 4000
    again = shell("launch.sh", **stand_in, TOKENS="4k", DEVICE="cpu")
    assert again.returncode == 0
    assert f"{stand_in['OUTPUT']} was started before; resuming it" in again.stderr
    assert again.stdout == done.stdout
    other = shell("launch.sh", **stand_in, TOKENS="5k", DEVICE="cpu")
    assert other.returncode == 1
    assert other.stderr.endswith("  --tokens: 4000 before, 5000 now\n")


def test_launchers_print_their_usage() -> None:
    done = shell("launch.sh")
    assert done.returncode == 2
    assert "./launch.sh ROWS OUTPUT [MODEL] [TOKENS]" in done.stderr
    done = shell("launch_toy.sh", "--fast")
    assert (done.returncode, done.stderr) == (2, "usage: ./launch_toy.sh [--published]\n")


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_toy_run_from_start_to_end() -> None:
    """About ten minutes on two idle cores, and a wheel of 93 MB to fetch."""
    done = shell("launch_toy.sh")
    assert done.returncode == 0, done.stdout + done.stderr
    *_, compared, page = done.stdout.splitlines()
    assert compared.startswith("32 scores against toy_scores.json: largest relative difference ")
    assert page == "page: runs/toy/report.html (open it in a browser)"
    assert (ROOT / "runs" / "toy" / "report.html").stat().st_size > 50_000


def test_toy_documents_have_the_expected_kinds_and_licences() -> None:
    packed = ROOT / "ladm" / "data" / "documents.jsonl.gz"
    assert packed.stat().st_size < 2_000_000
    documents = [json.loads(line) for line in gzip.decompress(packed.read_bytes()).decode().splitlines()]
    expected = Counter(document["meta"]["expected"] for document in documents)
    assert expected == {"coherent": 22, "incoherent": 10}
    domains = {document["meta"]["pile_set_name"] for document in documents}
    licences = (ROOT / "ladm" / "data" / "LICENSES.md").read_text()
    assert len(domains) >= 6
    assert all(f"| {domain} |" in licences for domain in domains)


def fake_repository(folder: Path, *, pip_fails: bool) -> Path:
    """The files that env.sh reads, and an interpreter whose environments install nothing."""
    (folder / "scripts").mkdir(parents=True)
    (folder / "scripts" / "env.sh").write_text((SCRIPTS / "env.sh").read_text())
    for name in ("pyproject.toml", "constraints.txt"):
        (folder / name).write_text("")
    interpreter = folder / "python"
    interpreter.write_text(
        f"""#!/bin/bash
case "$*" in
    "-m venv"*) mkdir -p "${{@: -1}}/bin" && cp "$0" "${{@: -1}}/bin/python" ;;
    "-m pip"*) echo installing >> {folder}/pip.log; exit {int(pip_fails)} ;;
    *) exec {sys.executable} "$@" ;;
esac
"""
    )
    interpreter.chmod(0o755)
    return interpreter


def make_environment(
    folder: Path, interpreter: Path, *, options: str = "", then: str = "echo ready: $PATH"
) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", f"{options} . scripts/env.sh; {then}"]
    environment = {name: value for name, value in os.environ.items() if name not in ("VENV", "CONSTRAINTS")}
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=environment | {"PYTHON": str(interpreter)}
    )


@pytest.mark.parametrize("options", ["", "set -euo pipefail;"])
def test_failed_install_leaves_no_stamp(tmp_path: Path, options: str) -> None:
    interpreter = fake_repository(tmp_path / "a", pip_fails=True)
    for attempt in (1, 2):
        done = make_environment(tmp_path / "a", interpreter, options=options)
        assert (done.returncode, done.stdout) == (1, "")
        assert "could not install the packages into .venv" in done.stderr
        assert not (tmp_path / "a" / ".venv" / ".stamp").exists()
        assert (tmp_path / "a" / "pip.log").read_text() == "installing\n" * attempt


@pytest.mark.parametrize("options", ["", "set -euo pipefail;"])
def test_environment_is_made_once_and_again_when_the_constraints_change(tmp_path: Path, options: str) -> None:
    interpreter = fake_repository(tmp_path / "a", pip_fails=False)
    for constraints, installs in (("", 1), ("", 1), ("numpy==2.0\n", 2)):
        (tmp_path / "a" / "constraints.txt").write_text(constraints)
        done = make_environment(tmp_path / "a", interpreter, options=options)
        assert (done.returncode, done.stdout.startswith(f"ready: {tmp_path}/a/.venv/bin:")) == (0, True), done.stderr
        assert (tmp_path / "a" / "pip.log").read_text() == "installing\n" * installs


def test_another_file_of_versions_makes_another_environment(tmp_path: Path) -> None:
    interpreter = fake_repository(tmp_path / "a", pip_fails=False)
    (tmp_path / "a" / "low.txt").write_text("numpy==2.0\n")
    assert make_environment(tmp_path / "a", interpreter).returncode == 0
    options = "CONSTRAINTS=low.txt;"
    for installs in (2, 2):
        assert make_environment(tmp_path / "a", interpreter, options=options).returncode == 0
        assert (tmp_path / "a" / "pip.log").read_text() == "installing\n" * installs
    (tmp_path / "a" / "low.txt").unlink()
    # Named and not there: an error, and no environment of other versions.
    assert make_environment(tmp_path / "a", interpreter, options=options).returncode == 1


def test_the_lowest_versions_are_those_that_the_package_allows() -> None:
    allowed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    pinned = [line for line in (SCRIPTS / "lowest.txt").read_text().splitlines() if not line.startswith("#")]
    lowest = {pin.name: pin.specifier for pin in map(Requirement, pinned)}
    wanted = {each.name: each.specifier for each in map(Requirement, allowed)}
    assert list(lowest) == list(wanted)
    for name, pin in lowest.items():
        ((of_pin,), (of_package,)) = pin, wanted[name]
        assert (of_pin.operator, of_package.operator) == ("==", ">=")
        assert Version(of_pin.version) == Version(of_package.version), name


def test_processes_keep_the_modules_that_they_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    interpreter = fake_repository(tmp_path / "a", pip_fails=False)
    done = make_environment(tmp_path / "a", interpreter, then="python -c 'import sys; print(sys.dont_write_bytecode)'")
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
