"""`ladm.check` and `ladm.calibrate` from Python, as the page's example calls them, and what they would take."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from click.testing import Result
from safetensors.numpy import load_file, save_file

import ladm
from ladm.calibration.check_result import CheckResult
from ladm.settings.profiles import read_profile
from support.files import read_object
from support.paths import GOLDEN, ROOT

Command = Callable[..., Result]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `org/model`, the first two layers of the golden model, and `coherent`: 32 rows of 64 tokens."""
    from datasets import Dataset

    folder = tmp_path_factory.mktemp("page")
    model = Path(shutil.copytree(GOLDEN, folder / "org" / "model"))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    weights = load_file(model / "model.safetensors")
    save_file({name: each for name, each in weights.items() if "layers.2." not in name}, model / "model.safetensors")
    draw = np.random.default_rng(0)
    ids = [np.resize(draw.integers(0, 500, size=20 + k), 64).tolist() for k in range(32)]
    Dataset.from_dict({"input_ids": ids, "index": list(range(32))}).save_to_disk(str(folder / "coherent"))
    return folder


@pytest.fixture
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as the working folder."""
    monkeypatch.chdir(place)
    return place


@pytest.fixture(scope="module")
def example(place: Path) -> Iterator[dict[str, Any]]:
    """The names that the page's example of a check and a calibration defines, and what it printed."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if "ladm.check" in block]
    names: dict[str, Any] = {"__name__": "__main__"}
    before = Path.cwd(), matplotlib.get_backend()
    os.chdir(place)
    matplotlib.use("svg")
    try:
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            exec(compile(block, "docs/python.md", "exec"), names)
        yield names | {"out": out.getvalue().splitlines(), "err": err.getvalue(), "backend": matplotlib.get_backend()}
    finally:
        os.chdir(before[0])
        matplotlib.use(before[1])


@pytest.mark.usefixtures("inside")
def test_a_check_returns_the_numbers_and_the_picture(
    example: dict[str, Any], ladm: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    import ladm as front

    check = example["check"]
    assert isinstance(check, front.ModelCheck)
    assert isinstance(check.result, CheckResult)
    # The program's own figures are drawn as before.
    assert (example["err"], example["backend"]) == ("", "svg")
    assert (check.folder, check.picture) == (Path("check"), Path("check/check.png"))
    assert check.picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads(json.dumps(check.result.to_json())) == read_object(Path("check/check.json"))
    assert list(check.auc)[:2] == ["2 pieces", "4 pieces"]
    assert example["out"][0] == f"{check.fitness} {check.recommended}"
    assert example["out"][1:-2] == check.verdict
    assert f"verdict: {check.fitness}" in "\n".join(check.verdict)
    assert repr(check) == f"ModelCheck(folder='check', fitness={check.fitness!r}, recommended={check.recommended!r})"
    kinds = check.run.compare(kinds="kind", columns=["score"]).kinds
    assert kinds is not None
    released = {kind.kind: kind.by_column["score"] for kind in kinds.kinds}
    for kind, found in released.items():
        assert found is not None
        assert found.value == pytest.approx(check.auc[kind]["released"].value, abs=1e-3)
    # The command finds it done, and finds the same.
    capsys.readouterr()
    again = ladm("check", "--model", "org/model", "--rows", "coherent", "-o", "check", "--json")
    assert json.loads(again.stdout) == json.loads(json.dumps(check.result.to_json())) | {"picture": "check/check.png"}


@pytest.mark.usefixtures("inside")
def test_a_calibration_returns_the_profile_that_a_score_takes(example: dict[str, Any], ladm: Command) -> None:
    import ladm as front

    calibration = example["calibration"]
    assert isinstance(calibration, front.Calibration)
    assert os.fspath(calibration) == "profile.yaml"
    profile = read_profile("profile.yaml")
    assert profile.found == calibration.result.summary() | {
        name: profile.found[name] for name in ("documents", "packages", "seed", "objective", "search", "dtype", "data")
    }
    assert profile.found["documents"] == 32
    assert repr(calibration) == f"Calibration(profile='profile.yaml', recommended={calibration.recommended!r})"
    assert list(calibration.not_separated) == [
        kind for kind, by_score in calibration.auc.items() if kind != "worst kind" and by_score["robust"].low <= 0.5
    ]
    assert calibration.run.folder == Path("profile.calibration/run")
    assert calibration.run.is_finished
    assert example["run"].summary().scored == 32
    # The command finds it done, prints what it found, and writes the same again where the file is gone.
    command = ("calibrate", "--model", "org/model", "--rows", "coherent", "-o", "profile.yaml")
    written = Path("profile.yaml").read_bytes()
    for _ in range(2):
        again = ladm(*command)
        assert (again.exit_code, Path("profile.yaml").read_bytes()) == (0, written), again.output
        Path("profile.yaml").unlink()
    assert "from 32 documents, stored in " in again.stderr
    assert "only 32 documents: the intervals will be wide; use at least 100" in again.stderr
    for words in ("cost of stopping there", "gain of the worst kind over robust", "AUC against", "recommended: "):
        assert words in again.stdout
    (line,) = [line for line in again.stdout.splitlines() if line.startswith("not separated by it")]
    weak = re.findall(r"[:;] ([^:;]+?) \d\.\d{3} \(", line)
    name = "profile" if calibration.recommended == "the calibrated score" else "robust"
    assert weak == [
        kind for kind, by_score in calibration.auc.items() if kind != "worst kind" and by_score[name].low <= 0.5
    ]
    # A profile of another command is refused, and so is one whose work files are gone.
    Path("profile.yaml").write_bytes(written.replace(b"format: 1", b"format:  1"))
    other = "ladm: profile.yaml exists already and holds another profile; give another --output\n"
    assert ladm(*command).stderr.endswith(other)
    Path("profile.yaml").write_bytes(written)
    Path("profile.calibration").rename("away")
    assert ladm(*command).stderr == "ladm: profile.yaml exists already; give another --output\n"
    Path("away").rename("profile.calibration")


def test_estimates_of_a_check_and_a_calibration_write_nothing(inside: Path) -> None:
    before = set(inside.rglob("*"))
    with pytest.warns(ladm.LadmWarning, match="^only 16 documents: the intervals will be wide; use at least 100$"):
        check = ladm.estimate_check("org/model", "coherent", documents=16)
    # Seven rows of each document, and the documents again with other spans.
    assert check.rows_by_length == {64: 16 * 8}
    calibration = ladm.estimate_calibration("org/model", "coherent")
    assert calibration.rows_by_length == {64: 32 * 9}
    assert calibration.hours[1] == pytest.approx(calibration.seconds / 3600)
    assert set(inside.rglob("*")) == before


def test_faults_of_checks_and_calibrations(inside: Path) -> None:
    (inside / "config.yaml").write_text("documents: 8\n")
    (inside / "taken.yaml").write_text("not a profile")
    rows = {"model": "org/model", "rows": "coherent"}
    faults: list[tuple[Callable[[], Any], str]] = [
        (lambda: ladm.check("nothing"), "no such model: nothing is not a folder"),
        (lambda: ladm.check("org/model", "nothing", output="o"), "no such data set: nothing is neither a folder"),
        (lambda: ladm.check(**rows, output="o", config="config.yaml"), "--documents 8 is too few; at least "),
        (lambda: ladm.check(**rows, output="o", length=64), "--length has no effect with --rows"),
        (lambda: ladm.check(**rows, output=""), "output must be a name or a path, not an empty text"),
        (lambda: ladm.check(**rows, dry_run=True), "ladm.check has no setting dry_run; call ladm."),  # type: ignore[arg-type]
        (lambda: ladm.calibrate(**rows, output="o.yaml", documents=8), "--documents 8 is too few; at least "),
        (lambda: ladm.calibrate(**rows, output="taken.yaml"), "taken.yaml exists already; give another --output"),
        (lambda: ladm.calibrate(**rows, output="o.yaml", max_cost=0.5), "--max-cost needs --objective cost"),
        (lambda: ladm.calibrate("org/model", None, "o.yaml"),  # type: ignore[arg-type]
         "rows must be a name or a path, not None"),
        (lambda: ladm.estimate_check(**rows, output="o"),  # type: ignore[call-arg]
         "ladm.estimate_check has no setting output; it has "),
        (lambda: ladm.estimate_calibration("org/model", "nothing"), "no such data set: nothing is neither a folder"),
    ]  # fmt: skip
    for fault, message in faults:
        with pytest.raises(ladm.LadmError) as caught:
            fault()
        assert str(caught.value).startswith(message), str(caught.value)
    assert not [name for name in os.listdir() if name.startswith("o") and name != "org"]
