"""YAML text -> its content, with every key as it is spelled, and limits on what a few lines may stand for.

Ten lines of aliases (`b: [*a, *a, ..]`, `c: [*b, *b, ..]`) stand for a billion elements. Reading them costs nothing,
because each alias is the same object again, but whatever then walks over the content would never end. Imports no torch.
"""

from __future__ import annotations

from typing import Any

import yaml

from ladm.errors import LadmError, one_line
from ladm.settings.quantities import is_beyond_text
from ladm.storage.json_object import content_checksum

CHECKSUM = "checksum"
"""A key of files that ladm writes: a digit that changed would be other scores without any error."""
MOST_NODES = 100_000
MOST_BYTES = 1 << 24


class _Loader(yaml.SafeLoader):
    """PyYAML takes the key `no` for False, `1.10` for 1.1, and of two equal keys the last, without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys are texts. Raises yaml.YAMLError where it has a key twice."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.YAMLError(f"line {key.start_mark.line + 1} has the key {key.value} a second time")
                seen.add(key.value)
        # What `<<` merges in may repeat keys: those beside it win.
        self.flatten_mapping(node)
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> Any:
    """The content of a YAML file; the keys of scalars are texts, as they are spelled.

    Raises yaml.YAMLError for anything else, for a mapping with a key twice, and for content beyond the limits.
    """
    if len(text) > MOST_BYTES:
        raise yaml.YAMLError(f"more than {MOST_BYTES:,} bytes")
    try:
        found = yaml.load(text, Loader=_Loader)
        _count(found, {}, set())
    # What PyYAML lets through for a date with a month 13, `!!int ""`, `!!bool maybe`, or thousands of brackets.
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise yaml.YAMLError(one_line(error)) from error
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
    """Elements of a value, those behind aliases counted each time.

    Raises yaml.YAMLError for more than allowed, and for a number that no message could show.
    """
    if is_beyond_text(value):
        raise yaml.YAMLError("a whole number of thousands of digits")
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
