"""The type of a field -> does a value fit, which words may be chosen, and the type in words for people."""

from __future__ import annotations

import typing
from types import NoneType
from typing import Any, Literal


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the type alone."""
    is_union = typing.get_origin(kind) is not None and not _is_tuple(kind) and not _is_literal(kind)
    return typing.get_args(kind) if is_union else (kind,)


def choices(kind: Any) -> list[str]:
    """The words that a type allows: `["auto", "torch"]` for `Literal["auto", "torch"]`."""
    return [str(word) for each in alternatives(kind) if _is_literal(each) for word in typing.get_args(each)]


def fits(value: Any, kind: Any) -> bool:
    """Is the value of the type? A whole number is a float too; `True` is no whole number."""
    return any(_fits_one(value, each) for each in alternatives(kind))


def _fits_one(value: Any, kind: Any) -> bool:
    if _is_literal(kind):
        return value in typing.get_args(kind)
    if _is_tuple(kind):
        return isinstance(value, tuple) and all(fits(each, typing.get_args(kind)[0]) for each in value)
    # `type(value) is kind` rather than isinstance, because bool is a subclass of int.
    return type(value) is kind or (kind is float and type(value) is int)


_WORDS = {
    int: "a whole number",
    float: "a number such as 2.0e-5",
    str: "text",
    bool: "true or false",
    NoneType: "null",
}


def describe(kind: Any, *, null: bool = True) -> str:
    """A type in words, for the end of `... is not`. `null`: name the absence of a value, where the type allows it."""
    words: list[str] = []
    for each in alternatives(kind):
        if _is_literal(each):
            words += [str(word) for word in typing.get_args(each)]
        elif _is_tuple(each):
            words.append("a list of whole numbers" if typing.get_args(each)[0] is int else "a list of texts")
        elif null or each is not NoneType:
            words.append(_WORDS[each])
    return " or ".join(words)


def _is_literal(kind: Any) -> bool:
    return typing.get_origin(kind) is Literal


def _is_tuple(kind: Any) -> bool:
    return typing.get_origin(kind) is tuple
