"""Texts -> windows of N token ids of each, and the part of the text that each covers. Imports no torch."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ladm.cores import available_cores
from ladm.corpus.preparation.encoding import TokenizedText, encode_texts, windows_of
from ladm.corpus.preparation.text_pieces import PIECE_CHARACTERS, BreakRule, find_breaks
from ladm.corpus.rows.reading import Rows
from ladm.corpus.rows.row import token_ids
from ladm.errors import LadmError, RowError, UsageError, one_line, raise_if_out_of_memory
from ladm.modeling.hub_access import hub_problem
from ladm.modeling.model_files import hub_name, may_be_on_hub
from ladm.settings.common import TEXT_COLUMN
from ladm.storage.files import require_utf8

COMPARED_TOKENS = 64
LEAST_AGREEMENT = 0.5
BROKEN = "\ufffd"
"""What stands for bytes that are no character."""
MOST_TOKENS_OF_A_CHARACTER = 4
"""Tokens, of which each is a byte."""
LEAST_BATCH_CHARACTERS = 4_000_000
BATCH_CHARACTERS_PER_THREAD = 500_000
"""What is tokenised at once: it takes up to 200 bytes a character, and every thread needs texts of its own."""
_PARALLEL = "TOKENIZERS_PARALLELISM"
_THREADS = "RAYON_NUM_THREADS"
_environment_lock = threading.Lock()
_environments: list[object] = []
"""One for each thread of the program that is tokenising now."""
_before: dict[str, str | None] = {}
"""The environment before the first of them."""
MOST_TOKENS_PER_BYTE = 4
"""A text with fewer bytes than a quarter of the tokens wanted is not tokenised at all: a byte makes one
token at the most, and no normaliser in use makes four bytes of one."""


class TokenizerError(LadmError):
    """There is no such tokenizer, or none that can be used: the reason lies in its files, not in this machine."""


class Tokenizer:
    """A fast Hugging Face tokenizer, with or without a first token of its own; made by `load_tokenizer`."""

    def __init__(self, tokenizer: Any, name: str, *, bos: bool | None, threads: int | None = None) -> None:
        self._name = name
        self._threads = threads or available_cores()
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        # Settings that a padded call before save_pretrained left in tokenizer.json would cut or pad every document.
        self._backend.no_truncation()
        self._backend.no_padding()
        # Hashed without them: they are not used here, so the tokenizer is the same with and without them.
        self.sha256 = hashlib.sha256(self._backend.to_str().encode()).hexdigest()
        self.bos = bool(first_token(tokenizer)) if bos is None else bos
        if self.bos and tokenizer.bos_token_id is None:
            raise UsageError(f"--bos: {name} has no BOS token; leave it out")

    def record(self) -> dict[str, Any]:
        """What determines the ids, as `prepare.json` records it."""
        return {
            "name": os.path.abspath(self._name) if os.path.isdir(self._name) else self._name,
            "sha256": self.sha256,
            "vocab_size": len(self._tokenizer),
            "bos": self.bos,
            "special_tokens": {key: str(value) for key, value in self._tokenizer.special_tokens_map.items()},
        }

    def surely_shorter(self, text: str, length: int) -> bool:
        """Is the text too short for `length` tokens, judged by its size alone?"""
        return len(text.encode(errors="surrogatepass")) * MOST_TOKENS_PER_BYTE < length - self.bos

    def cut(self, texts: list[str], length: int, *, most_windows: int | None) -> list[TokenizedText]:
        """Windows of exactly `length` ids of each text, at most `most_windows` (None: all).

        Texts are tokenised few at a time and long ones in pieces, so that memory stays bounded.
        """
        bos = [self._tokenizer.bos_token_id] * self.bos
        most_characters = max(LEAST_BATCH_CHARACTERS, self._threads * BATCH_CHARACTERS_PER_THREAD)
        # The parts of the tokenizer are examined only once a text is long enough to be cut.
        breaks = self._breaks if any(len(text) > PIECE_CHARACTERS for text in texts) else None
        with _tokenizer_threads(self._threads):
            encoded = encode_texts(self._backend, texts, breaks=breaks, most_characters=most_characters)
            return [windows_of(text, length, bos=bos, most=most_windows) for text in encoded]

    @functools.cached_property
    def _breaks(self) -> BreakRule | None:
        return find_breaks(json.loads(self._backend.to_str()))


@contextlib.contextmanager
def _tokenizer_threads(count: int) -> Iterator[None]:
    """Let the tokenizers library use that number of threads; elsewhere it has one, because it warns after a fork."""
    # Its pool of threads is made at the first use, so that the number counts once in a process. What is left behind
    # would count for the processes that the caller's program starts.
    with _environment_lock:
        # The process has one environment for all its threads: the first one in notes what was there, and the last one
        # out restores it. One that noted what another had set would restore that.
        if not _environments:
            _before.update({name: os.environ.get(name) for name in (_PARALLEL, _THREADS)})
        inside = object()
        _environments.append(inside)
        os.environ.setdefault(_THREADS, str(count))
        os.environ[_PARALLEL] = "true" if count > 1 else "false"
    try:
        yield
    finally:
        with _environment_lock:
            _environments.remove(inside)
            for name, value in () if _environments else _before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def first_token(tokenizer: Any) -> list[int]:
    """The id that the tokenizer puts in front of a text by itself, or none."""
    own = list(tokenizer("a")["input_ids"])[:1]
    return own if own == [tokenizer.bos_token_id] else []


def load_tokenizer(name: str, *, bos: bool | None, threads: int | None = None) -> Tokenizer:
    """Load a tokenizer to cut texts with, on `threads` threads; None: one a core.

    Raises as `plain_tokenizer`, and UsageError for a folder whose name is not UTF-8.
    """
    if os.path.isdir(name):
        # The rows that are made with it record where it is.
        require_utf8(os.path.abspath(name))
    return Tokenizer(plain_tokenizer(name), name, bos=bos, threads=threads)


def disagreement(rows: Rows, model_folder: str) -> str | None:
    """A warning if the rows have texts from which the model's tokenizer makes other ids; None otherwise.

    Compares the first tokens of a few rows. None also for rows without texts, and for a model whose folder has
    no tokenizer that loads.
    """
    tokenizer = tokenizer_of_model(model_folder) if TEXT_COLUMN in rows.column_names else None
    if tokenizer is None:
        return None
    # The first, the middle and the last row: a mixed corpus is mixed by files, one behind the other.
    special = set(tokenizer.all_special_ids)
    worst, where = 1.0, 0
    for position in sorted({0, len(rows) // 2, len(rows) - 1}):
        (text,) = rows.column(TEXT_COLUMN, position, position + 1)
        (row,) = rows.read(position, position + 1)
        try:
            ids = token_ids(row, vocab_size=2**63 - 1).tolist()
        except RowError:
            # Such as a null among the ids, which makes an error row where it is scored.
            continue
        front = text[: COMPARED_TOKENS * 40] if isinstance(text, str) else ""
        # Special tokens are left out, because rows may have been made with or without them; [UNK] is one too.
        whole = tokenizer(front, add_special_tokens=False, verbose=False)["input_ids"]
        ours = [k for k in whole if k not in special][:COMPARED_TOKENS]
        theirs = [k for k in ids[: COMPARED_TOKENS + 8] if k not in special][: len(ours)]
        if len(theirs) >= COMPARED_TOKENS // 4:
            agree = sum(a == b for a, b in zip(ours, theirs, strict=False)) / len(theirs)
            worst, where = min((worst, where), (agree, position))
    if worst >= LEAST_AGREEMENT:
        return None
    return (
        f"row {where} of {rows.name}: only {worst:.0%} of its first ids match what the model's tokenizer makes of its "
        "text; if the rows were made with another tokenizer, their results are meaningless"
    )


def spell(tokenizer: Any, ids: list[int]) -> list[str]:
    """What each token adds to the text, so that all together are the text of the ids.

    A character made of several tokens stands with the last of them; the end of one that begins before is left out.
    """

    def decode(start: int, stop: int) -> str:
        text: str = tokenizer.decode(ids[start:stop], clean_up_tokenization_spaces=False)
        return text

    starts = range(min(MOST_TOKENS_OF_A_CHARACTER, len(ids)))
    start = min(starts, key=lambda k: decode(k, len(ids)).count(BROKEN), default=0)
    pieces, before = [""] * start, ""
    for stop in range(start + 1, len(ids) + 1):
        text = decode(start, stop)
        if text.endswith(BROKEN) and stop < len(ids):
            pieces.append("")
            continue
        pieces.append(text[len(before) :])
        before = text
    return pieces


def tokenizer_of_model(folder: str) -> Any | None:
    """The tokenizer in the folder of a model; None where there is none, or none that loads."""
    if not (Path(folder) / "tokenizer.json").exists():
        return None
    try:
        return plain_tokenizer(folder)
    except TokenizerError:
        return None


def plain_tokenizer(name: str) -> Any:
    """Load a tokenizer from a folder or the Hub; no code of it is run.

    Raises TokenizerError when there is none, or only one that is not fast, and LackOfMemoryError.
    """
    source, revision = (name, None) if Path(name).is_dir() else hub_name(name)
    if not Path(name).is_dir() and (Path(name).exists() or not may_be_on_hub(name)):
        raise TokenizerError(f"no such tokenizer: {name} is neither a folder nor a Hub id such as org/name")
    from transformers import AutoTokenizer

    problem = None if Path(name).is_dir() else hub_problem()
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=revision or "main", trust_remote_code=False, local_files_only=problem is not None
        )
    except Exception as error:
        raise_if_out_of_memory(error, action=f"load the tokenizer of {name}")
        if problem is not None:
            raise TokenizerError(
                f"no such tokenizer: {name} is neither a folder here nor in the cache, and the Hub cannot be reached "
                f"({problem})"
            ) from None
        # The tokenizer classes and the Hub client raise many exceptions of their own.
        if Path(name).is_dir() and not (Path(name) / "tokenizer.json").exists():
            raise TokenizerError(
                f"no such tokenizer: {name} has no tokenizer.json; give a folder or Hub id that has one"
            ) from None
        raise TokenizerError(f"no such tokenizer: {name} does not load: {one_line(error)}") from None
    if not tokenizer.is_fast:
        raise TokenizerError(
            f"{name}: {type(tokenizer).__name__} is not a fast tokenizer; use a model whose tokenizer has a "
            "tokenizer.json"
        )
    return tokenizer
