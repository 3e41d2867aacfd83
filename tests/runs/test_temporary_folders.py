"""Throw-away folders: those of killed processes go with the next one, those of live ones stay."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ladm.storage import temporary
from ladm.storage.temporary import PREFIX, temporary_folder

KILLED = """
import os, signal
from ladm.storage.temporary import temporary_folder
with temporary_folder() as work:
    (work / "large").write_text("x")
    print(work, flush=True)
    # Ignored where the tests were started with nohup.
    if signal.{name} != signal.SIGKILL:
        signal.signal(signal.{name}, signal.SIG_DFL)
    os.kill(os.getpid(), signal.{name})
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """TMPDIR of this process and of those that it starts."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGHUP"])
def test_the_folder_of_a_killed_process_is_removed_by_the_next(place: Path, name: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED.format(name=name)], capture_output=True, text=True, check=False)
    left = Path(done.stdout.strip())
    assert done.returncode < 0
    assert (left / "large").exists()
    with temporary_folder() as work:
        assert not left.exists()
        assert list(place.iterdir()) == [work]
    assert list(place.iterdir()) == []


def test_what_is_not_abandoned_stays(place: Path) -> None:
    others = [place / f"{PREFIX}of-somebody", place / "ladm-other", place / f"{PREFIX}12345678"]
    for other in others[:2]:
        other.mkdir()
    others[2].symlink_to(others[1])
    with temporary_folder() as first, temporary_folder() as second:
        (first / "x").write_text("x")
        assert first != second
        with temporary_folder():
            pass
        assert (first / "x").exists()
        assert sorted(place.iterdir()) == sorted([*others, first, second])
    assert sorted(place.iterdir()) == sorted(others)


def test_a_folder_that_was_removed_before_it_was_locked_is_made_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, made = tempfile.mkdtemp, []

    def mkdtemp(**named: object) -> str:
        made.append(real(**named))  # type: ignore[arg-type]
        if len(made) == 1:
            # Another process looks for abandoned folders at this moment.
            temporary._remove_abandoned(place)
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    with temporary_folder() as work:
        assert [str(work)] == made[1:]
        assert not Path(made[0]).exists()


def test_no_other_module_makes_folders_for_temporary_files() -> None:
    """One made in another way stays after a kill: `destination` and `sorting` remove theirs, beside their outputs."""
    made = re.compile(r"TemporaryDirectory\(|mkdtemp\(")
    modules = Path(temporary.__file__).parents[1]
    found = {path.name for path in modules.rglob("*.py") if made.search(path.read_text(encoding="utf-8"))}
    assert found == {"temporary.py", "destination.py", "sorting.py"}
