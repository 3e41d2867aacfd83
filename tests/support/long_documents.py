"""Documents of a few words and many numbers, each long enough for a row."""

from __future__ import annotations

from typing import Any

WORDS = "river stone garden market engine letter window copper valley signal harbour method".split()


def text(seed: int, words: int = 120) -> str:
    return " ".join(f"{WORDS[(seed * 7 + k) % len(WORDS)]} {k * k + seed}" for k in range(words))


def long_document(k: int) -> dict[str, Any]:
    return {"text": text(k), "meta": {"pile_set_name": "ab"[k % 2]}}
