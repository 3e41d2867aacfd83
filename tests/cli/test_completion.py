"""Tab: commands, words of a choice, and paths."""

from __future__ import annotations

import pytest
from click.shell_completion import ShellComplete

from ladm.cli.main import main


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        (["prepare"], "co", [("file", "co")]),
        (["score", "rows", "--model"], "", [("file", "")]),
        (["score", "rows", "--output"], "r", [("file", "r")]),
        (["score", "rows", "--dtype"], "b", [("plain", "bfloat16")]),
        (["score", "rows", "--span-tokens"], "", []),
        ([], "sel", [("plain", "select")]),
    ],
)
def test_completion(words: list[str], incomplete: str, expected: list[tuple[str, str]]) -> None:
    items = ShellComplete(main, {}, "ladm", "_LADM_COMPLETE").get_completions(words, incomplete)
    assert [(item.type, item.value) for item in items] == expected
