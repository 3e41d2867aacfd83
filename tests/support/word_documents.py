"""Documents of 90 numbered words, each word one token, and `ladm prepare` for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from click.testing import Result

from support.commands import Command
from support.rows import rows_of

VOCABULARY = ["<pad>", "<s>", "<unk>", *(f"w{k}" for k in range(90))]
LENGTH = 32


def words(seed: int, count: int = 60) -> str:
    return " ".join(f"w{(seed * 11 + k * (seed + 3)) % 90}" for k in range(count))


def record(k: int, **more: Any) -> dict[str, Any]:
    return {"text": words(k), "meta": {"pile_set_name": "ab"[k % 2]}} | more


def preparing(ladm: Command, folder: Path, word_tokenizer: Path) -> Command:
    """`ladm prepare` in short rows of these words; the rows are in `folder`."""

    def prepare(*arguments: Any, output: str = "rows", tokenizer: Any = word_tokenizer) -> Result:
        flags = ("--tokenizer", tokenizer, "--length", LENGTH, "--output", folder / output)
        return ladm("prepare", *arguments, *flags)

    return prepare


def rows_after(result: Result, folder: Path) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return rows_of(folder)
