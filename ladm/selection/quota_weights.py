"""What `--quota` has -> `tokens`, `documents` or weights by domain, which are read once. Imports no torch."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import yaml

from ladm.errors import UsageError, one_line
from ladm.settings.mappings import yaml_line
from ladm.settings.yaml_text import load_yaml

TOKENS, DOCUMENTS = "tokens", "documents"
"""What `--quota` may be beside weights and a file of them."""
DEFAULT = "*"
"""The name whose weight is that of every domain without a weight of its own."""
_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, kw_only=True)
class Quota:
    """How the domains share a budget. A file of weights may change while they are used, and is not read again."""

    text: str
    """`tokens`, `documents`, weights such as `{web: 2, code: 1}`, or the name of a file of them."""
    numbers: Mapping[str, int | float] | None = None
    """The weights as they are written; None for `tokens` and `documents`."""

    @property
    def has_weights(self) -> bool:
        """Is it weights or a file of weights, and not a unit?"""
        return self.numbers is not None

    @cached_property
    def weights(self) -> Mapping[str, Fraction]:
        """The weight of each name, of the default too; none for a unit."""
        # Through the text, because 0.3 as a float is less than three times 0.1, and would lose a tie of remainders.
        return {
            name: Fraction(str(weight) if isinstance(weight, float) else weight)
            for name, weight in (self.numbers or {}).items()
        }

    @property
    def default(self) -> Fraction | None:
        """The weight of all domains without one of their own; None where these are an error."""
        return self.weights.get(DEFAULT)

    def own_weights(self, *, excluded: Collection[str]) -> dict[str, Fraction]:
        """The weights of the domains that are named; those of excluded domains are left out."""
        # One file of weights serves selections with and without a domain.
        return {name: weight for name, weight in self.weights.items() if name not in (*excluded, DEFAULT)}

    @property
    def in_file(self) -> dict[str, int | float] | None:
        """The weights in a file of them by name, for a manifest; None where there is no file.

        Sorted, because lines in another order are the same weights.
        """
        return dict(sorted((self.numbers or {}).items())) if is_weights_file(self.text) else None


def read_quota(text: str) -> Quota:
    """`tokens` or `documents`, or weights from a YAML file or a mapping in YAML or JSON, such as `{web: 2, code: 1}`.

    Raises UsageError for what cannot be read, or holds something else.
    """
    return Quota(text=text, numbers=_load_weights(text) if has_weights(text) else None)


def has_weights(quota: str | None) -> bool:
    """Is it weights or a file of weights, and not a unit?"""
    return quota not in (None, TOKENS, DOCUMENTS)


def is_weights(quota: str) -> bool:
    """Are these the weights themselves, such as `{web: 2, code: 1}`, and not a file of them?"""
    return quota.lstrip().startswith("{")


def is_weights_file(quota: str | None) -> bool:
    """Is this a file of weights, and not the weights themselves or a unit?"""
    return has_weights(quota) and not is_weights(str(quota))


def spelled_weights(quota: str | None) -> str | None:
    """The weights themselves in place of a file that can be read only once, as `<(...)` of a shell gives one.

    The subset's manifest and a job's `job.yaml` then hold them too. Raises UsageError as `read_quota`.
    """
    # `os.path`, because a Path raises OSError for what is too long to be a name.
    if not is_weights_file(quota) or not os.path.exists(str(quota)) or os.path.isfile(str(quota)):
        return quota
    return yaml_line(_load_weights(str(quota)))


def _load_weights(quota: str) -> dict[str, int | float]:
    path = quota
    try:
        loaded = load_yaml(quota if is_weights(quota) else Path(quota).read_text(encoding="utf-8"))
    except OSError as error:
        # No name of a file, but weights in a form that is not read; many of them are also too long for a name.
        is_no_name = error.errno in (errno.ENOENT, errno.ENAMETOOLONG) and not path.endswith(_SUFFIXES)
        looks_inline = is_no_name and any(sign in path for sign in "=:")
        reason = "; weights are written as '{web: 2, code: 1}'" if looks_inline else f": {error.strerror}"
        raise UsageError(f"--quota {path} is neither tokens, documents nor a file{reason}") from None
    # A path with a NUL character is a ValueError, as is a file that is not UTF-8.
    except (yaml.YAMLError, ValueError) as error:
        # YAML reads a * without quotes as a reference to something above it.
        is_bare = getattr(error, "context", None) == "while scanning an alias"
        reason = f'the name {DEFAULT} needs quotes, "{DEFAULT}"' if is_bare else one_line(error)
        raise UsageError(f"--quota {path} is not YAML: {reason}") from None
    if not isinstance(loaded, dict) or not loaded:
        raise UsageError(f"--quota {path} must hold a weight for every domain, such as ArXiv: 2")
    for name, weight in loaded.items():
        of_config = name == "quota" and isinstance(weight, (dict, str))
        if of_config or (isinstance(weight, dict) and weight):
            why = "; a key quota: is for a --config file" if of_config else ""
            raise UsageError(
                f"--quota {path}: remove the key {name}: weights stand at the beginning of a line, such as web: 2{why}"
            )
        # A bool is an int to Python, and `yes` in YAML is a bool.
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight <= sys.float_info.max:
            # PyYAML takes 2e-5, without a point, for a text, and `web:2` for a name without a weight.
            space = "; write a space after the colon" if weight is None and ":" in name else ""
            raise UsageError(
                f"--quota {path}: the weight of {name} is {weight}, not a number of at least 0 such as 2 or "
                f"2.0e-5{space}"
            )
    return loaded
