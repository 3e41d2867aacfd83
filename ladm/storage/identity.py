"""What work was started with, and what it is to be resumed with -> the fields that differ. Imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ladm.errors import LadmError

CHANGED_REMEDY = "give another --output, or what it was started with"


def require_same(
    folder: Path,
    had: dict[str, Any],
    now: dict[str, Any],
    *,
    name_of_field: Callable[[str], str] | None = None,
    remedy: str | Callable[[tuple[str, ...]], str] = CHANGED_REMEDY,
    in_words: Mapping[str, Callable[[Any, Any], Iterator[str]]] = MappingProxyType({}),
) -> None:
    """Raise LadmError with every field that differs; `about` is for people and not compared.

    `name_of_field` gives a field as a person knows it, such as `--d-afs`; these names then lead the message, and a
    `remedy` may depend on them. `in_words` has, by the name of a field, what describes its two values where they differ
    and are too long to be shown.
    """
    differing: list[str] = []
    for name, describe in in_words.items():
        if had.get(name) != now.get(name):
            differing += (f"{name}: {line}" for line in describe(had.get(name), now.get(name)))
    differing += differences(_without(had, in_words), _without(now, in_words))
    if differing:
        fields = (line.partition(": ")[0] for line in differing)
        # A dictionary, because many fields may stand for one flag, and the order is that of the identity.
        names = dict.fromkeys(map(name_of_field, fields)) if name_of_field else {}
        # `--layers` beside `--score, --layers, --reduce or --profile` would be there twice.
        of_others = {part for name in names if len(parts := re.split(", | or ", name)) > 1 for part in parts}
        shown = [name for name in names if name not in of_others]
        which = f" ({', '.join(shown)})" if shown else ""
        remedy = remedy if isinstance(remedy, str) else remedy(tuple(names))
        raise LadmError(
            f"{folder} was started with something else{which}; {remedy}:" + "".join(f"\n  {line}" for line in differing)
        )


def _without(values: dict[str, Any], names: Container[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def differences(had: Any, now: Any, path: str = "", *, words: tuple[str, str] = ("before", "now")) -> Iterator[str]:
    """Lines such as `settings.d_afs: 4 before, 2 now` for every leaf that differs; `words` end the two values."""
    if isinstance(had, dict) and isinstance(now, dict):
        for key in [*had, *(key for key in now if key not in had)]:
            inner = f"{path}.{key}" if path else str(key)
            # A run may be resumed from another path, or with the rows and the model in another place.
            if inner != "about":
                yield from differences(had.get(key), now.get(key), inner, words=words)
    elif had != now:
        yield f"{path}: {_short(had)} {words[0]}, {_short(now)} {words[1]}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
