"""Packages of documents for the intervals of a calibration."""

from __future__ import annotations


def own_packages(count: int) -> list[str]:
    """Every document from a package of its own."""
    return [f"package {k}" for k in range(count)]
