"""Texts -> the first so many token ids of each, and how much of the text they cover. Imports no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladm.errors import LadmError, UsageError, one_line
from ladm.models import HUB_ID

MOST_TOKENS_PER_BYTE = 4
"""A text with fewer bytes than a quarter of the tokens wanted is not tokenised at all: a byte makes one
token at the most, and no normaliser in use makes four bytes of one."""


@dataclass(frozen=True)
class Tokens:
    """Ids of the front of a text; `end` is the number of characters they cover."""

    ids: list[int]
    end: int


class Tokenizer:
    """A fast Hugging Face tokenizer, with or without a first token of its own; made by `load_tokenizer`."""

    def __init__(self, tokenizer: Any, name: str, *, bos: bool | None) -> None:
        self._name = name
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        own = list(tokenizer("a")["input_ids"])
        self.bos = own[:1] == [tokenizer.bos_token_id] if bos is None else bos
        if self.bos and tokenizer.bos_token_id is None:
            raise UsageError(f"--bos: {name} has no such token")

    def record(self) -> dict[str, Any]:
        """What makes these ids what they are."""
        content = self._backend.to_str().encode()
        return {
            "name": self._name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "vocab_size": len(self._tokenizer),
            "bos": self.bos,
            "special_tokens": {key: str(value) for key, value in self._tokenizer.special_tokens_map.items()},
        }

    def surely_shorter(self, text: str, length: int) -> bool:
        """Is the text too short for `length` tokens at a glance?"""
        return len(text.encode(errors="surrogatepass")) * MOST_TOKENS_PER_BYTE < length - self.bos

    def cut(self, texts: list[str], length: int) -> list[Tokens | None]:
        """The first `length` ids of each text, on all cores; None for a text that has fewer."""
        body = length - self.bos
        cut: list[Tokens | None] = []
        for encoding in self._backend.encode_batch(texts, add_special_tokens=False):
            if len(encoding.ids) < body:
                cut.append(None)
                continue
            ids = [self._tokenizer.bos_token_id] * self.bos + encoding.ids[:body]
            cut.append(Tokens(ids=ids, end=encoding.offsets[body - 1][1] if body else 0))
        return cut


def load_tokenizer(name: str, *, bos: bool | None) -> Tokenizer:
    """Load a tokenizer to cut texts with. Raises as `plain_tokenizer`."""
    return Tokenizer(plain_tokenizer(name), name, bos=bos)


def plain_tokenizer(name: str) -> Any:
    """Load a tokenizer from a folder or the Hub; no code of it is run.

    Raises LadmError when there is none, or only one that is not fast.
    """
    if not Path(name).is_dir() and (Path(name).exists() or not HUB_ID.fullmatch(name)):
        raise LadmError(f"no such tokenizer: {name} is neither a folder nor a Hub id such as org/name")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:
        # The tokenizer classes and the Hub client raise many kinds of their own.
        raise LadmError(f"no such tokenizer: {name} does not load: {one_line(error)}") from None
    if not tokenizer.is_fast:
        raise LadmError(f"{name}: only fast tokenizers are supported, and this one has no tokenizer.json")
    return tokenizer
