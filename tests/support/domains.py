"""Domains of a few documents given as tuples, for equation 1 by hand."""

from __future__ import annotations

import numpy as np

from ladm.selection.budget import Domains, DomainSelection


def pool(*documents: tuple[str, float, int]) -> Domains:
    """(domain, score, tokens) of each document; its row is its place in the list."""
    ranked = sorted(range(len(documents)), key=lambda k: (-documents[k][1], k))
    domains = {}
    for name in sorted({domain for domain, _, _ in documents}):
        places = [k for k in ranked if documents[k][0] == name]
        domains[name] = DomainSelection(
            positions=np.array(places),
            num_tokens=np.array([documents[k][2] for k in places]),
            scores=np.array([documents[k][1] for k in places]),
        )
    return domains


def taken(domains: Domains) -> dict[str, list[int]]:
    return {name: domain.taken_positions.tolist() for name, domain in domains.items()}
