"""What `--quota` says -> the proportion in which the domains share the budget. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from fractions import Fraction
from pathlib import Path

import yaml

from ladm.errors import UsageError, one_line
from ladm.selection.budget import Domains, Shares
from ladm.settings.yaml_text import load_yaml

TOKENS, DOCUMENTS = "tokens", "documents"
"""What `--quota` may be beside a file."""


def domain_shares(domains: Domains, quota: str, *, excluded: Collection[str] = ()) -> Shares:
    """A share for every domain, in any unit; only their proportion counts.

    `quota` is `tokens` (the pool's), `documents`, or a YAML file that maps each domain to a weight. A
    weight of an `excluded` domain counts for nothing.
    Raises UsageError for a file that cannot be read or does not have exactly the domains of the pool.
    """
    if quota == TOKENS:
        return {name: domain.pool_tokens for name, domain in domains.items()}
    if quota == DOCUMENTS:
        return {name: len(domain) for name, domain in domains.items()}
    # One file of weights serves selections with and without a domain.
    weights = {name: weight for name, weight in read_weights(Path(quota)).items() if name not in excluded}
    _require_same_domains(quota, weights, domains)
    return weights


def read_weights(path: Path) -> Mapping[str, Fraction]:
    """The weights of a file. Raises UsageError for one that cannot be read, or holds something else."""
    try:
        loaded = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--quota {path} is neither tokens, documents nor a file: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--quota {path} is not YAML: {one_line(error)}") from None
    if not isinstance(loaded, dict) or not loaded:
        raise UsageError(f"--quota {path} must hold a weight for every domain, such as ArXiv: 2")
    for name, weight in loaded.items():
        # A bool is an int to Python, and `yes` in YAML is a bool.
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
            # PyYAML takes 2e-5, without a point, for a text.
            raise UsageError(
                f"--quota {path}: the weight of {name} is {weight}, not a number of at least 0 such as 2 or 2.0e-5"
            )
    return {name: Fraction(weight) for name, weight in loaded.items()}


def _require_same_domains(quota: str, weights: Mapping[str, Fraction], domains: Domains) -> None:
    for name in domains:
        if name not in weights:
            raise UsageError(f"--quota {quota} has no weight for {name}; give it 0 to leave it out")
    for name in weights:
        if name not in domains:
            raise UsageError(f"--quota {quota}: the pool has no document of the domain {name}")
    if not any(weights.values()):
        raise UsageError(f"--quota {quota}: every weight is 0")
