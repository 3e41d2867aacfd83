"""A long text -> pieces whose tokens, one behind the other, are exactly those of the whole text. Imports no torch.

The tokenizers library needs some 200 bytes for each character that it gets at once: a text of 256 MiB would take
50 GB. A text may be cut where no token can cross, which the parts of a tokenizer show:

- One that first splits a text into words by one of the patterns below, or at white space, never joins a letter with a
  space behind it, so `read | the` may be cut before its space. Nor does it join a single line break with a letter
  behind it, so `end.\\n|Then` may be cut there; texts of Chinese or Japanese have only such places.
- One that writes spaces as `▁` and has no words (Llama 2, Gemma) merges neighbours as long as the result is in its
  vocabulary. Where no token there has a letter before a `▁`, nothing is merged across that place.

Letters beside the space are ASCII, so that Unicode's normal forms, which are local, change nothing across the place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

PIECE_CHARACTERS = 1_000_000
"""A piece ends at the first place behind that number; a shorter text is one piece."""
MOST_UNBROKEN_CHARACTERS = 16_000_000
"""A longer piece would take 3 GB and more. Text has breaks; megabytes of Base64 or of one JSON array have none."""

_BEFORE_SPACE = r"(?<=[A-Za-z])(?= [A-Za-z])"
_BEHIND_LINE_BREAK = r"(?<=[\w.,;:!?)”。、」』]\n)(?=[^\W\d_])"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_WHITE_SPACE = r"\s*[\r\n]+|\s+(?!\S)|\s+"


def _words_of_letters(letters: str, others: str, number: str) -> str:
    word = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?{letters}+"
    return rf"{word}|{number}| ?[^\s{others}\p{{N}}]+[\r\n]*|{_WHITE_SPACE}"


def _words_of_cases(ending: str, number: str) -> str:
    before = r"[^\r\n\p{L}\p{N}]?"
    word = f"{before}{_UPPER}*{_LOWER}+{ending}|{before}{_UPPER}+{_LOWER}*{ending}"
    return rf"{word}|{number}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_WHITE_SPACE}"


_WORDS = frozenset(
    (
        # GPT-2; Llama 3, Qwen 2, Qwen 3.5; GPT-4o and Llama 4, Mistral NeMo and Nemotron 3; DeepSeek 3.
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        _words_of_letters(r"\p{L}", r"\p{L}", r"\p{N}{1,3}"),
        _words_of_letters(r"\p{L}", r"\p{L}", r"\p{N}"),
        _words_of_letters(r"[\p{L}\p{M}]", r"\p{L}\p{M}", r"\p{N}"),
        *(
            _words_of_cases(ending, number)
            for ending in ("", f"{_CONTRACTIONS}?")
            for number in (r"\p{N}{1,3}", r"\p{N}")
        ),
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
        + rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_WHITE_SPACE}",
    )
)
"""Patterns that split a text into words, as most tokenizers of bytes do."""
_RUNS = frozenset((r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"))
"""Patterns that split off runs of one kind of character, neither white space nor ASCII letters: DeepSeek 3's."""
_AT_SPACES = ("Whitespace", "WhitespaceSplit", "BertPreTokenizer")
_LOCAL_FORMS = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase")
_SPACE = "▁"


@dataclass(frozen=True, kw_only=True)
class BreakRule:
    """Where the texts of a tokenizer may be cut: wherever `pattern` matches the empty string."""

    pattern: re.Pattern[str]
    without_space: bool = False
    """Does the tokenizer put a space in front of every text? Then a later piece is passed without its own."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """The characters `start` to `end - 1` of a text."""

    start: int
    end: int


def pieces_of(text: str, breaks: BreakRule | None) -> list[Piece]:
    """The pieces of a text, in order; one where it is short or cannot be cut."""
    return list(_pieces(text, breaks))


def _pieces(text: str, breaks: BreakRule | None) -> Iterator[Piece]:
    start = 0
    while breaks is not None and len(text) - start > PIECE_CHARACTERS:
        found = breaks.pattern.search(text, start + PIECE_CHARACTERS)
        if found is None:
            break
        yield Piece(start=start, end=found.start())
        start = found.start()
    yield Piece(start=start, end=len(text))


def find_breaks(tokenizer: dict[str, Any]) -> BreakRule | None:
    """Where texts may be cut, from the content of `tokenizer.json`; None where its parts do not prove any place."""
    normalizers, splits = (_parts(tokenizer.get(name), name) for name in ("normalizer", "pre_tokenizer"))
    breaks = _breaks_of_words(normalizers, splits) or _breaks_of_spaces(tokenizer["model"], normalizers, splits)
    if breaks is None or not _keeps_offsets(tokenizer.get("post_processor")):
        return None
    added = tokenizer.get("added_tokens", ())
    return breaks if all(_stays_inside(token, breaks) for token in added) else None


def _parts(part: dict[str, Any] | None, kind: str) -> list[dict[str, Any]]:
    """A normaliser or pre-tokeniser as a list; a sequence of them has them under the plural of its kind."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [inner for each in part[f"{kind}s".replace("pre_", "pre")] for inner in _parts(each, kind)]


def _breaks_of_words(normalizers: list[dict[str, Any]], splits: list[dict[str, Any]]) -> BreakRule | None:
    if not all(part["type"] in _LOCAL_FORMS for part in normalizers):
        return None
    makes_words, puts_space = False, False
    for part in splits:
        pattern = part["pattern"].get("Regex") if part["type"] == "Split" and part["behavior"] == "Isolated" else None
        if pattern in _WORDS:
            makes_words = makes_words or not part["invert"]
        elif pattern in _RUNS and not part["invert"]:
            continue
        elif part["type"] == "ByteLevel":
            makes_words = makes_words or part.get("use_regex", True)
            puts_space = puts_space or part["add_prefix_space"]
        elif part["type"] in _AT_SPACES:
            makes_words = True
        elif part["type"] not in ("Digits", "Punctuation"):
            return None
    # A piece that begins with a letter would get a space in front of it; one that begins with a space does not.
    places = _BEFORE_SPACE if puts_space else f"{_BEFORE_SPACE}|{_BEHIND_LINE_BREAK}"
    return BreakRule(pattern=re.compile(places)) if makes_words else None


def _breaks_of_spaces(
    model: dict[str, Any], normalizers: list[dict[str, Any]], splits: list[dict[str, Any]]
) -> BreakRule | None:
    writes_spaces, puts_space = False, False
    for part in normalizers:
        if part["type"] == "Replace" and part["pattern"] == {"String": " "} and part["content"] == _SPACE:
            writes_spaces = True
        elif part["type"] == "Prepend" and part["prepend"] == _SPACE:
            puts_space = True
        elif part["type"] not in _LOCAL_FORMS:
            return None
    for part in splits:
        if part["type"] == "Metaspace" and part["replacement"] == _SPACE:
            writes_spaces = True
        # Gemma's, which finds no space any more.
        elif not (writes_spaces and part["type"] == "Split" and part["pattern"] == {"String": " "}):
            return None
    if not writes_spaces or model["type"] != "BPE" or any(
        model.get(name) for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
    ):  # fmt: skip
        return None
    vocabulary = model["vocab"]
    letters = [chr(k) for start in "aA" for k in range(ord(start), ord(start) + 26)]
    # A letter that is unknown could be joined with an unknown neighbour.
    if not all(sign in vocabulary for sign in (_SPACE, *letters)):
        return None
    across = re.compile(f"[A-Za-z]{_SPACE}")
    if any(across.search(token) for token in vocabulary):
        return None
    return BreakRule(pattern=re.compile(_BEFORE_SPACE), without_space=puts_space)


def _keeps_offsets(part: dict[str, Any] | None) -> bool:
    """Does it treat the first token of a text like every other? One that trims spaces but for the first does not."""
    if part is None or part["type"] == "TemplateProcessing":
        return True
    if part["type"] == "Sequence":
        return all(map(_keeps_offsets, part["processors"]))
    return bool(part["type"] == "ByteLevel" and not (part["trim_offsets"] and part["add_prefix_space"]))


def _stays_inside(token: dict[str, Any], breaks: BreakRule) -> bool:
    """Can an added token, which is looked for in the text itself, not reach across a place where texts are cut?"""
    content = token["content"]
    if re.search(rf"[A-Za-z][ {_SPACE}]|\n[^\W\d_]", content):
        return False
    # Around an added token such a tokenizer puts no space, or a second one, so that none may stand at such a place.
    if breaks.without_space and re.search(rf"\A[ {_SPACE}]?[A-Za-z]|[A-Za-z]\Z", content):
        return False
    # One that takes white space beside it, or looks at its neighbours, must not be able to stand at such a place.
    looks_around = token["lstrip"] or token["rstrip"] or token["single_word"]
    return not (looks_around and re.search(r"\A[\w\s]|[\w\s]\Z", content))
