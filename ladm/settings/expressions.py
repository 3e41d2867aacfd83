"""The text of `--by` -> an expression over columns, checked against a short list of what it may hold. Imports no numpy.

rank(gain) + rank(robust)        score / length        -far_rare        z(longattn_ds) - 0.5 * z(longattn_v)
rank(robust) + rank(rows.quality)        other.score - score        rows["language-score"]        document_mean(robust)
"""

from __future__ import annotations

import ast
import json
import keyword
import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from ladm.errors import UsageError

DOCUMENT_MEAN = "document_mean"
FUNCTIONS = ("rank", "z", "log", DOCUMENT_MEAN)
MOST_CHARACTERS = 1000
_PART = re.compile(r"""(?:[^,"']|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|["'])*""")
"""Up to a comma outside quotes; a quote without an end is an error of the expression, and not of the list."""
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.USub, ast.UAdd)
_ALLOWED = "columns, numbers, + - * /, parentheses, rank(x), z(x), log(x) and document_mean(x)"


@dataclass(frozen=True, kw_only=True)
class Expression:
    """What documents are ranked by. `tree` holds only what `parse_expression` allows."""

    text: str
    names: tuple[str, ...]
    """The columns in it, each once."""
    tree: ast.expr

    @property
    def is_column(self) -> bool:
        """Is it a single column, as it is?"""
        return column_name(self.tree) is not None

    @property
    def has_document_mean(self) -> bool:
        """Does it have to be known which document each row is a window of?"""
        return any(isinstance(node, ast.Name) and node.id == DOCUMENT_MEAN for node in ast.walk(self.tree))


def column_name(node: ast.expr) -> str | None:
    """The column that a part of an expression is: `score`, `rows.quality`, `rows["a-b"]` (rows.a-b); else None."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=inner, attr=key) | ast.Subscript(value=inner, slice=ast.Constant(value=str() as key)):
            of = column_name(inner)
            return None if of is None else f"{of}.{key}"
    return None


def spell_column(name: str) -> str | None:
    """An expression that is the column `name`: rows.language-score -> rows["language-score"]; None where none is.

    The inverse of `column_name`.
    """
    first, *keys = name.split(".")
    text = first + "".join(f".{key}" if _is_word(key) else f"[{_quoted(key)}]" for key in keys)
    return text if _is_word(first) else None


def _is_word(text: str) -> bool:
    # Python reads some letters of a name as others, such as the two letters of a ligature.
    return text.isidentifier() and not keyword.iskeyword(text) and unicodedata.is_normalized("NFKC", text)


def _quoted(text: str) -> str:
    # With the letters as they are: JSON has two escapes for an emoji, which Python reads as two characters.
    return json.dumps(text, ensure_ascii=False)


def parse_expression(text: str, *, flag: str = "--by") -> Expression:
    """Parse an expression such as `rank(gain)+rank(robust)`. Nothing of it is ever run as Python.

    Raises UsageError for anything but columns, numbers, + - * /, parentheses and `FUNCTIONS`.
    """
    try:
        if len(text) > MOST_CHARACTERS:
            raise UsageError(f"{flag} has {len(text):,} characters; at most {MOST_CHARACTERS:,} are read")
        tree = ast.parse(text.strip(), mode="eval").body
        names: dict[str, None] = {}
        _check(tree, names)
    # Python's parser gives up on deep nesting with a MemoryError, and on NUL characters with a ValueError.
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UsageError(f"{flag} {text[:80]!r} is not an expression of {_ALLOWED}") from None
    except _NotAllowedError as error:
        raise UsageError(f"{flag} {text!r}: {error} is not allowed; an expression has {_ALLOWED}") from None
    if not names:
        raise UsageError(f"{flag} {text!r} has no column in it")
    return Expression(text=text.strip(), names=tuple(names), tree=tree)


def parse_expressions(texts: str | None) -> list[Expression]:
    """Those in a text with commas between them, as --columns has it, each once; of None, none."""
    found = (parse_expression(text, flag="--columns") for text in ([] if texts is None else _split(texts)))
    return list({each.text: each for each in found}.values())


def _split(texts: str) -> Iterator[str]:
    """The parts between commas that are not inside quotes, such as those of `rows["a,b"]`."""
    start = 0
    while start <= len(texts):
        part = _PART.match(texts, start)
        assert part is not None
        yield part[0]
        start = part.end() + 1


class _NotAllowedError(Exception):
    pass


def _check(node: ast.expr, names: dict[str, None]) -> None:
    """Collect the names of columns; raise _NotAllowedError with the first part that is not on the list."""
    if (name := column_name(node)) is not None:
        names[name] = None
        return
    match node:
        # A bool is an int to Python, and 1e999 is infinite.
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool) and _is_finite(number):
            pass
        case ast.UnaryOp(op=operator, operand=operand) if isinstance(operator, _OPERATORS):
            _check(operand, names)
        case ast.BinOp(left=left, op=operator, right=right) if isinstance(operator, _OPERATORS):
            _check(left, names)
            _check(right, names)
        case ast.Call(func=ast.Name(id=function), args=[argument], keywords=[]) if function in FUNCTIONS:
            _check(argument, names)
        case _:
            raise _NotAllowedError(ast.unparse(node))


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:
        return False
