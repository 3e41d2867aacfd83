"""The flags of the commands as keyword arguments, for editors and type checkers.

Made from the settings by `python scripts/docs/flags.py`; a test checks that it is up to date. What each means is in the
command's help, docs/cli.md. Read by type checkers alone: what is given is checked by `ladm.api.keywords`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, TypedDict

from ladm.api.keywords import AnyPath


class ScorerFlags(TypedDict, total=False):
    """Of `Scorer`."""

    variant: Literal["released", "paper"] | None
    span_tokens: int | None
    m: int | None
    n: int | None
    n0: int | None
    d_afs: int | None
    d_cds: int | None
    ablation: Literal["none", "no-std", "no-length"] | None
    reduce: Literal["mean", "median", "geometric"] | None
    layers: str | int | Sequence[str | int] | None
    record: Literal["layers", "heads", "range", "forms"] | None
    score: AnyPath | None
    profile: AnyPath | None
    signals: str | Sequence[str] | None
    context_gain: Literal["suffix", "blocks"] | None
    unigrams: AnyPath | None
    prolong_pairs: int | None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None
    backend: Literal["auto", "torch", "triton"] | None
    attention: Literal["auto", "flash", "cudnn", "flash-attn", "fa3", "fa4", "efficient"] | None
    fused: Literal["auto", "none", "triton", "liger"] | None
    device: str | None
    batch_size: int | Literal["auto"] | None


class EstimateFlags(ScorerFlags, total=False):
    """Of `estimate`."""

    output: str | None
    engine: Literal["local", "ray"] | None
    workers: int | None
    shard: str | None
    allow_other_tokenizer: bool | None
    limit: int | None
    max_errors: int | None
    fail_fast: bool | None


class ScoreFlags(ScorerFlags, total=False):
    """Of `score`."""

    engine: Literal["local", "ray"] | None
    workers: int | None
    shard: str | None
    allow_other_tokenizer: bool | None
    limit: int | None
    max_errors: int | None
    fail_fast: bool | None
    retry_errors: bool | None
    overwrite: bool | None


class RunFlags(ScorerFlags, total=False):
    """Of `run` and `estimate_run`."""

    tokenizer: AnyPath | None
    length: int | None
    domain_key: str | None
    text_key: str | None
    id_key: str | None
    domain: str | None
    hub_config: str | None
    split: str | None
    token_count_key: str | None
    bos: bool | None
    windows: str | int | None
    keep_duplicates: bool | None
    max_bad_files: int | None
    num_proc: int | None
    limit: int | None
    engine: Literal["local", "ray"] | None
    workers: int | None
    max_errors: int | None
    fail_fast: bool | None
    documents: int | None
    top: float | str | None
    min_score: float | None
    by: str | None
    within: str | Sequence[str] | None
    exclude_domain: str | Sequence[str] | None
    exclude_domains: str | Sequence[str] | None
    exclude_ids: AnyPath | Sequence[AnyPath] | Collection[Any] | None
    only_ids: AnyPath | Sequence[AnyPath] | Collection[Any] | None
    sample: bool | None
    temperature: float | None
    seed: int | None
    max_per_document: int | None
    max_per: str | Sequence[str] | None
    rule: Literal["exact", "percent"] | None
    quota: AnyPath | Mapping[str, float] | None
    allow_small_pool: bool | None
    format: Literal["arrow", "parquet", "jsonl", "megatron", "npy"] | None
    keep_all: bool | None
    push: str | None


class PrepareFlags(TypedDict, total=False):
    """Of `prepare`."""

    length: int | None
    text_key: str | None
    domain_key: str | None
    id_key: str | None
    domain: str | None
    hub_config: str | None
    split: str | None
    token_count_key: str | None
    bos: bool | None
    windows: str | int | None
    keep_duplicates: bool | None
    max_bad_files: int | None
    num_proc: int | None
    limit: int | None


class SelectFlags(TypedDict, total=False):
    """Of `select`."""

    documents: int | None
    top: float | str | None
    min_score: float | None
    by: str | None
    within: str | Sequence[str] | None
    join: str | Sequence[str] | Mapping[str, AnyPath] | None
    profile: AnyPath | None
    exclude_domain: str | Sequence[str] | None
    exclude_domains: str | Sequence[str] | None
    exclude_ids: AnyPath | Sequence[AnyPath] | Collection[Any] | None
    only_ids: AnyPath | Sequence[AnyPath] | Collection[Any] | None
    sample: bool | None
    temperature: float | None
    seed: int | None
    max_per_document: int | None
    max_per: str | Sequence[str] | None
    rule: Literal["exact", "percent"] | None
    quota: AnyPath | Mapping[str, float] | None
    domain_key: str | None
    domain: str | None
    allow_small_pool: bool | None
    format: Literal["arrow", "parquet", "jsonl", "megatron", "npy"] | None
    keep_all: bool | None
    push: str | None
    overwrite: bool | None
    dry_run: bool | None


class CheckFlags(TypedDict, total=False):
    """Of `check` and `estimate_check`."""

    lists: AnyPath | None
    length: int | None
    span_tokens: int | None
    documents: int | None
    seed: int | None
    domain_key: str | None
    package_key: str | None
    allow_other_tokenizer: bool | None
    device: str | None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None


class EstimateCalibrationFlags(TypedDict, total=False):
    """Of `estimate_calibration`."""

    lists: AnyPath | None
    documents: int | None
    exclude_domain: str | Sequence[str] | None
    exclude_domains: str | Sequence[str] | None
    domain_key: str | None
    package_key: str | None
    seed: int | None
    allow_other_tokenizer: bool | None
    objective: Literal["auc", "cost"] | None
    max_cost: float | None
    layers: str | int | Sequence[str | int] | None
    search: Literal["signed", "layers", "heads"] | None
    variant: Literal["released", "paper"] | None
    span_tokens: int | None
    m: int | None
    n: int | None
    n0: int | None
    d_afs: int | None
    d_cds: int | None
    device: str | None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None
    attention: Literal["auto", "flash", "cudnn", "flash-attn", "fa3", "fa4", "efficient"] | None
    backend: Literal["auto", "torch", "triton"] | None
    batch_size: int | Literal["auto"] | None


class CalibrateFlags(EstimateCalibrationFlags, total=False):
    """Of `calibrate`."""

    work: AnyPath | None
