"""The flags of the commands that take a run as keyword arguments, for editors and type checkers.

Made from the settings by `python scripts/docs/flags.py`; a test checks that it is up to date. What each means is in the
command's help, docs/cli.md. Read by type checkers alone: what is given is checked by `ladm.api.keywords`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from ladm.api.keywords import AnyPath


class RescoreFlags(TypedDict, total=False):
    """Of `rescore`."""

    so_far: bool | None
    score: AnyPath | None
    profile: AnyPath | None
    reduce: Literal["mean", "median", "geometric"] | None
    layers: str | int | Sequence[str | int] | None


class AnnotateFlags(TypedDict, total=False):
    """Of `annotate`."""

    rows: AnyPath | None
    unigrams: AnyPath | None
    num_proc: int | None


class InspectFlags(TypedDict, total=False):
    """Of `inspect`."""

    top: int | None
    bottom: int | None
    id: str | int | Sequence[str | int] | None
    rows: AnyPath | None
    model: AnyPath | None
    device: str | None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None


class ReportFlags(TypedDict, total=False):
    """Of `report`."""

    rows: AnyPath | None
    by: str | None
    columns: str | Sequence[str] | None
    join: str | Sequence[str] | Mapping[str, AnyPath] | None
    domain_key: str | None


class TopFlags(TypedDict, total=False):
    """Of `top`."""

    by: str | None
    join: str | Sequence[str] | Mapping[str, AnyPath] | None
    worst: bool | None
    domain: str | None
    domain_key: str | None
    rows: AnyPath | None


class CompareFlags(TypedDict, total=False):
    """Of `compare`."""

    columns: str | Sequence[str] | None
    join: str | Sequence[str] | Mapping[str, AnyPath] | None
    top: float | str | None
    show: int | None
    domain_key: str | None
    rows: AnyPath | None
    kinds: str | None
    intact: str | None
    cluster: str | None
    seed: int | None
