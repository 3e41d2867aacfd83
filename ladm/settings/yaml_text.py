"""YAML text -> its content, with limits on what a few lines may stand for. Imports no torch.

Ten lines of aliases (`b: [*a, *a, ..]`, `c: [*b, *b, ..]`) stand for a billion elements. Reading them costs nothing,
because each alias is the same object again, but whatever then walks over the content would never end.
"""

from __future__ import annotations

from typing import Any

import yaml

from ladm.errors import LadmError
from ladm.storage.json_object import content_checksum

CHECKSUM = "checksum"
"""A key of files that ladm writes: a digit that changed would be other scores without any error."""
MOST_NODES = 100_000
MOST_BYTES = 1 << 24


def load_yaml(text: str) -> Any:
    """The content of a YAML file. Raises yaml.YAMLError for anything else, and for content beyond the limits."""
    if len(text) > MOST_BYTES:
        raise yaml.YAMLError(f"more than {MOST_BYTES:,} bytes")
    found = yaml.safe_load(text)
    _count(found, {}, set())
    return found


def require_checksum(content: dict[Any, Any]) -> None:
    """Take the checksum out of the content of a file. Raises LadmError where the rest does not match it.

    Content without one was written by an earlier version, or edited by hand.
    """
    if CHECKSUM not in content:
        return
    had = content.pop(CHECKSUM)
    try:
        matches = str(had) == content_checksum(content)
    # A flipped bit can turn text into a date, which JSON cannot hold.
    except (TypeError, ValueError):
        matches = False
    if not matches:
        raise LadmError(f"damaged, or edited by hand; if you edited it, remove its line {CHECKSUM}")


def _count(value: Any, known: dict[int, int], inside: set[int]) -> int:
    """Elements of a value, those behind aliases counted each time. Raises yaml.YAMLError for more than allowed."""
    if not isinstance(value, dict | list | tuple | set):
        return 1
    key = id(value)
    if key in inside:
        raise yaml.YAMLError("a value that contains itself")
    if key not in known:
        children = [*value, *value.values()] if isinstance(value, dict) else list(value)
        known[key] = 1 + sum(_count(child, known, inside | {key}) for child in children)
    if known[key] > MOST_NODES:
        raise yaml.YAMLError(f"its aliases stand for more than {MOST_NODES:,} values")
    return known[key]
