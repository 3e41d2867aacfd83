"""`ladm prepare` that dies at a known write, or is disturbed in front of a known block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ladm.corpus.preparation import blocks as blocks_module
from ladm.corpus.preparation import sealing as sealing_module


class Killed(BaseException):
    """In place of the end of the process."""


def die_after(patch: pytest.MonkeyPatch, writes: int) -> None:
    """Let `ladm prepare` write this many files, blocks among them, and die at the next one."""
    left, real = [None] * writes, blocks_module.replacing

    def counted(*arguments: Any) -> Any:
        if not left:
            raise Killed
        left.pop()
        return real(*arguments)

    patch.setattr(blocks_module, "replacing", counted)
    patch.setattr("ladm.storage.files.replacing", counted)


def before_block(monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[], object]) -> None:
    """Do something before a block is sealed, when its documents have been read; blocks count from 0."""
    real, sealed = sealing_module.seal_block, []

    def seal_block(*words: Any, **named: Any) -> Any:
        if len(sealed) == number:
            action()
        sealed.append(None)
        return real(*words, **named)

    monkeypatch.setattr(sealing_module, "seal_block", seal_block)
