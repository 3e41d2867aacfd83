"""The check of the prose: what it finds, what it leaves alone, and that it reads what people read."""

from __future__ import annotations

import sys

import pytest

from support.paths import ROOT

sys.path.append(str(ROOT / "scripts"))

import check_prose


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The error is told in one line.", [(1, "told")]),
        ("at most so\nmany tokens", [(1, "so many")]),
        ("`inspect` takes the scores of a run apart", [(1, "takes the scores of a run apart")]),
        ("How the scores lie", [(1, "scores lie")]),
        ("The scores lie between 0 and 1.", []),
        ("Distilled, untold, retelling; a plaid shirt; masked", []),
        ("The model is asked a question.", []),
    ],
)
def test_words_in_text(text: str, found: list[tuple[int, str]]) -> None:
    assert [(finding.line, finding.found) for finding in check_prose.search(text, python=False)] == found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x = 1  # what was begun\n", [(1, "begun")]),
        ('def f():\n    """At most so\n    many rows."""\n', [(2, "so many")]),
        ('message = ("at most so "\n    f"many {rows}")\n', [(1, "so many")]),
        ("# at most so\n# many rows\n", [(1, "so many")]),
        ("def test_a_fault_is_told():\n    pass\n", [(1, "test_a_fault_is_told")]),
        ("class Losses:\n    pass\n", [(1, "Losses")]),
        ("place = file.tell()\n", []),
        ('record = {"asked": 1}\n', []),
    ],
)
def test_words_in_python(source: str, found: list[tuple[int, str]]) -> None:
    assert [(finding.line, finding.found) for finding in check_prose.search(source, python=True)] == found


def test_reads_what_people_read() -> None:
    read = {str(path.relative_to(check_prose.ROOT)) for path in check_prose.files()}
    assert {"README.md", "docs/formats.md", "ladm/cli/main.py", "ladm/report/templates/report.html"} <= read
    assert {"launch.sh", "tests/conftest.py", "configs/paper.yaml"} <= read
    assert not any("/results/" in name for name in read)
