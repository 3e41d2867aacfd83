"""What `--quota` says -> the proportion in which the domains share the budget. Imports no torch."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Collection, Iterable, Mapping
from fractions import Fraction
from pathlib import Path

import yaml

from ladm.errors import UsageError, one_line
from ladm.selection.budget import Domains, Shares
from ladm.settings.mappings import yaml_line
from ladm.settings.selection import SelectSettings
from ladm.settings.yaml_text import load_yaml

TOKENS, DOCUMENTS = "tokens", "documents"
"""What `--quota` may be beside weights and a file of them."""
DEFAULT = "*"
"""The name whose weight is that of every domain without a weight of its own."""
_SUFFIXES = (".yaml", ".yml", ".json")
MOST_NAMES = 3
"""How many domains a warning names."""
MOST_LISTED = 10
"""How many domains without a weight, or with a useless one, a message names."""


def requested_quota(settings: SelectSettings) -> str:
    """How the budget is shared: as it is counted, unless --quota says otherwise."""
    return settings.quota or (TOKENS if settings.tokens is not None else DOCUMENTS)


def domain_shares(domains: Domains, quota: str, *, excluded: Collection[str]) -> Shares:
    """A share for every domain, in any unit; only their proportion counts.

    `quota` is `tokens` (the pool's), `documents`, or weights as `read_weights` reads them. A weight of an `excluded`
    domain counts for nothing; there may be weights of domains that have no document in the pool.
    Raises UsageError for weights that cannot be read or lack a domain of the pool.
    """
    if quota == TOKENS:
        return {name: domain.pool_tokens for name, domain in domains.items()}
    if quota == DOCUMENTS:
        return {name: len(domain) for name, domain in domains.items()}
    return weights_of(domains, quota, excluded=excluded)


def weights_of(domains: Collection[str], quota: str, *, excluded: Collection[str]) -> Mapping[str, Fraction]:
    """The weights of these domains, and of others that `quota` names. Raises UsageError for a domain without one."""
    weights = own_weights(quota, excluded=excluded)
    default = read_weights(quota).get(DEFAULT)
    if default is not None:
        weights |= {name: default for name in domains if name not in weights}
    _require_domains(quota, weights, domains)
    return weights


def own_weights(quota: str, *, excluded: Collection[str]) -> dict[str, Fraction]:
    """The weights of the domains that `quota` names; those of excluded domains are left out."""
    # One file of weights serves selections with and without a domain.
    return {name: weight for name, weight in read_weights(quota).items() if name not in (*excluded, DEFAULT)}


def has_default(quota: str) -> bool:
    """Do these weights have one for all other domains?"""
    return DEFAULT in read_weights(quota)


def domains_of_weight_0(domains: Collection[str], quota: str) -> set[str]:
    """Which of the domains have the weight 0, of their own or by default."""
    if not has_weights(quota):
        return set()
    weights = read_weights(quota)
    return {name for name in domains if weights.get(name, weights.get(DEFAULT)) == 0}


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

    The subset's manifest and a job's `job.yaml` then hold them too. Raises UsageError as `read_weights`.
    """
    # `os.path`, because a Path raises OSError for what is too long to be a name.
    if not is_weights_file(quota) or not os.path.exists(str(quota)) or os.path.isfile(str(quota)):
        return quota
    return yaml_line(_load_weights(str(quota)))


def weights_in_file(quota: str | None) -> dict[str, int | float] | None:
    """The weights in a file of them by name, for a manifest; None where `quota` is no file. Raises as `read_weights`.

    Sorted, because lines in another order are the same weights.
    """
    return dict(sorted(_load_weights(str(quota)).items())) if is_weights_file(quota) else None


def read_weights(quota: str) -> Mapping[str, Fraction]:
    """The weight of every domain, from a YAML file or from a mapping in YAML or JSON, such as `{web: 2, code: 1}`.

    Raises UsageError for what cannot be read, or holds something else.
    """
    # Through the text, because 0.3 as a float is less than three times 0.1, and would lose a tie of remainders.
    return {
        name: Fraction(str(weight) if isinstance(weight, float) else weight)
        for name, weight in _load_weights(quota).items()
    }


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


def _require_domains(quota: str, weights: Mapping[str, Fraction], domains: Collection[str]) -> None:
    if missing := [name for name in domains if name not in weights]:
        raise UsageError(
            f"--quota {quota} has no weight for {listed(missing)}; 0 leaves a domain out, and the name "
            f'"{DEFAULT}" sets the weight of all others'
        )
    if not any(weights.values()):
        raise UsageError(f"--quota {quota}: every weight is 0")
    if not any(weights[name] for name in domains):
        raise UsageError(f"--quota {quota}: the pool has documents of domains of weight 0 only: {listed(domains)}")


def listed(names: Collection[str], *, most: int = MOST_LISTED) -> str:
    """The names, of many the first `most` and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{', '.join(list(names)[:most])}{more}"


def unknown_domains_warning(quota: str, of_rows: Collection[str], *, excluded: Collection[str]) -> str | None:
    """Which domains have a weight that no row is of, as where one file of weights serves several corpora; or None."""
    if not has_weights(quota):
        return None
    unknown = [name for name in own_weights(quota, excluded=excluded) if name not in of_rows]
    return f"--quota has weights of domains that no row has: {listed(unknown)}" if unknown else None


def unused_weights_warning(
    domains: Domains, quota: str, of_rows: Collection[str], *, excluded: Collection[str]
) -> str | None:
    """Which domains `of_rows` have a weight and no document among `domains`, those of the pool; None where all have.

    `quota` and `excluded` are as for `domain_shares`.
    """
    if not has_weights(quota):
        return None
    weights, default = own_weights(quota, excluded=excluded), read_weights(quota).get(DEFAULT)
    empty = (name for name in of_rows if name not in domains and name not in excluded)
    unused = [name for name in empty if weights.get(name, default)]
    if not unused:
        return None
    return (
        f"the weights of --quota are not met: no document can be selected of {listed(unused, most=MOST_NAMES)}, "
        "because none has a score, or all are left out, as by --within, a list of ids, --max-per or as copies; the "
        "budget goes to other domains"
    )


def emptied_domains_warning(domains: Domains, quota: str, dropped: Iterable[Collection[str]]) -> str | None:
    """Which domains had documents until the guards dropped all of them; None where every domain has some left.

    `domains` are those of the pool; `dropped`: for each guard, the domains of which it dropped documents. With weights
    `unused_weights_warning` names the domains.
    """
    emptied = sorted({name for names in dropped for name in names} - set(domains))
    if not emptied or has_weights(quota):
        return None
    return (
        f"--within drops every document of {listed(emptied, most=MOST_NAMES)}; the budget goes to other domains "
        "(docs/selection.md)"
    )


def unmet_weights_warning(domains: Domains, shares: Shares, settings: SelectSettings) -> str | None:
    """Which domains have less than their weight asks for, so that others take more, and the budget that fits them all.

    `domains` are those after the budget was applied, none of weight 0. None where the weights were met or not given.
    """
    if not has_weights(settings.quota):
        return None
    by_tokens = settings.documents is None
    pools = {name: domain.pool_tokens if by_tokens else len(domain) for name, domain in domains.items()}
    quotas = {name: domain.quota_tokens if by_tokens else domain.quota_documents for name, domain in domains.items()}
    missed = {name: quota for name, quota in quotas.items() if quota is not None and pools[name] < quota}
    short = [f"{name} ({pools[name]:,} of {quota:,})" for name, quota in missed.items()]
    if not short:
        return None
    whole = sum(Fraction(share) for share in shares.values())
    most = min(int(pools[name] * whole / Fraction(shares[name])) for name in domains)
    unit = "tokens" if by_tokens else "documents"
    return (
        f"the weights of --quota are not met, because domains have fewer {unit} than their quota: "
        f"{listed(short, most=MOST_NAMES)}; the rest of the budget went to other domains. "
        f"Up to --{unit} {most:,} no domain is short"
    )
