"""Writes docs/cli.md, which holds the help of every command: python scripts/docs/cli.py"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
from click.testing import CliRunner

from ladm.cli.main import main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
WIDTH = 100
HEAD = """# The command line

Made from `--help` by `python scripts/docs/cli.py`; a test checks that it is up to date.

Every command reads `--config FILE`, a YAML file whose keys are the names of its flags (`span_tokens` or `span-tokens`);
a flag on the command line overrides the file. Results go to standard output, progress and warnings to standard error.

To complete commands, flags and paths with Tab, add `eval "$(_LADM_COMPLETE=bash_source ladm)"` to `~/.bashrc`,
`eval "$(_LADM_COMPLETE=zsh_source ladm)"` to `~/.zshrc`, or for fish `_LADM_COMPLETE=fish_source ladm | source` to
`~/.config/fish/completions/ladm.fish`.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for words in commands(main):
        shown = CliRunner().invoke(main, [*words, "--help"], terminal_width=WIDTH).stdout
        text = "\n".join(line.rstrip() for line in shown.rstrip().splitlines())
        parts.append(f"## {' '.join(('ladm', *words))}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words after `ladm` of a command and of all below it, in the order of its help."""
    yield words
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            yield from commands(command.commands[name], (*words, name))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
