"""Texts -> their token ids and the windows that are cut from them, a bounded part of the texts at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ladm.corpus.preparation.text_pieces import MOST_UNBROKEN_CHARACTERS, BreakRule, Piece, pieces_of

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class TokenWindow:
    """Ids of a part of a text: its first token, counted without BOS, and the characters `start` to `end - 1`."""

    ids: Ids
    start_token: int
    start: int
    end: int


@dataclass(frozen=True)
class TokenizedText:
    """The tokens of a whole text, without BOS, and the windows that were cut from it; none where it is too short.

    `is_unbroken`: the text is not tokenised, because it is long and has no places to cut it at.
    """

    num_tokens: int
    windows: list[TokenWindow]
    is_unbroken: bool = False


@dataclass(frozen=True)
class EncodedText:
    """The ids of a whole text, None where it is not tokenised, and the characters of each.

    `characters` gives, for the number of a token, its first character and the one behind its last.
    """

    ids: Ids | None
    characters: Callable[[int], Sequence[int]]


def encode_texts(
    backend: Any, texts: list[str], *, breaks: BreakRule | None, most_characters: int
) -> Iterator[EncodedText]:
    """The tokens of each text. At most about `most_characters` of the texts, or one piece, are tokenised at a time."""
    cut = [pieces_of(text, breaks) for text in texts]
    is_unbroken = [any(piece.end - piece.start > MOST_UNBROKEN_CHARACTERS for piece in pieces) for pieces in cut]
    encodings = _encodings(
        backend,
        ((texts[k], piece, breaks) for k, pieces in enumerate(cut) if not is_unbroken[k] for piece in pieces),
        most_characters,
    )
    for k, pieces in enumerate(cut):
        if is_unbroken[k]:
            yield EncodedText(None, _no_characters)
        elif len(pieces) == 1:
            encoding = next(encodings)
            # Only the characters at the ends of windows are wanted: `offsets` would make a tuple for every token, which
            # takes longer than all else that happens outside of the tokenizer's threads.
            yield EncodedText(np.array(encoding.ids, dtype=np.int32), encoding.token_to_chars)
        else:
            # Reduced to 12 bytes a token before the next piece is tokenised.
            parts = [_part(next(encodings), piece, breaks) for piece in pieces]
            ids, offsets = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            yield EncodedText(ids, offsets.__getitem__)


def _no_characters(_: int) -> Sequence[int]:
    raise IndexError("a text that is not tokenised has no tokens")


def _encodings(
    backend: Any, pieces: Iterable[tuple[str, Piece, BreakRule | None]], most_characters: int
) -> Iterator[Any]:
    batch: list[str] = []
    characters = 0
    for text, piece, breaks in pieces:
        batch.append(text[piece.start + _left_out(piece, breaks) : piece.end])
        characters += len(batch[-1])
        if characters >= most_characters:
            # As one batch, because the library spreads it over its threads.
            yield from _free_as_consumed(backend.encode_batch(batch, add_special_tokens=False))
            batch, characters = [], 0
    yield from _free_as_consumed(backend.encode_batch(batch, add_special_tokens=False))


def _free_as_consumed(encodings: list[Any]) -> Iterator[Any]:
    """The encodings in order, each freed as soon as the caller is done with it."""
    encodings.reverse()
    while encodings:
        yield encodings.pop()


def _left_out(piece: Piece, breaks: BreakRule | None) -> int:
    """Characters at the beginning of a piece that the tokenizer puts there by itself."""
    return int(piece.start > 0 and breaks is not None and breaks.without_space)


def _part(encoding: Any, piece: Piece, breaks: BreakRule | None) -> tuple[Ids, npt.NDArray[np.int32]]:
    """The ids of a piece and their characters, counted from the beginning of the text."""
    left_out = _left_out(piece, breaks)
    ids = np.array(encoding.ids, dtype=np.int32)
    offsets = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2) + (piece.start + left_out)
    if left_out and len(offsets):
        # The first token begins with the space that was left out, and may be that space alone.
        offsets[0, 0] = piece.start
        if len(offsets) > 1 and offsets[1, 0] == piece.start + 1:
            offsets[0, 1] = piece.start + 1
    return ids, offsets


def windows_of(text: EncodedText, length: int, *, bos: list[int], most: int | None) -> TokenizedText:
    """Windows of exactly `length` ids, `bos` in front of each; at most `most` (None: all)."""
    if text.ids is None:
        return TokenizedText(num_tokens=0, windows=[], is_unbroken=True)
    ids, body, front = text.ids, length - len(bos), np.array(bos, dtype=np.int32)
    windows = [
        TokenWindow(
            ids=np.concatenate([front, ids[start : start + body]]),
            start_token=start,
            # A text begins with its first character, even where the tokenizer makes nothing of it.
            start=int(text.characters(start)[0]) if start else 0,
            end=int(text.characters(start + body - 1)[1]) if body else 0,
        )
        for start in window_starts(len(ids), body, most)
    ]
    return TokenizedText(num_tokens=len(ids), windows=windows)


def window_starts(num_tokens: int, width: int, most: int | None) -> list[int]:
    """First tokens of windows that cover a text; the last window ends with the text and may overlap the one before.

    10 tokens in windows of 4 begin at 0, 4 and 6; no window where the text is shorter than one.
    """
    if num_tokens < width:
        return []
    if width == 0:
        return [0]
    starts = list(range(0, num_tokens - width + 1, width))
    if starts[-1] + width < num_tokens:
        starts.append(num_tokens - width)
    return starts[:most]
