"""Lines on standard error, and libraries kept quiet: what every command does before it works."""

from __future__ import annotations

import os

import click


def note(line: str) -> None:
    """Print a line about the work. Standard output is for results alone."""
    click.echo(line, err=True)


def quieten_libraries() -> None:
    """Keep warnings that are not for the user off the terminal; what the user sets in the environment wins."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    # The tokenizers library warns about its own threads whenever a process forks.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
