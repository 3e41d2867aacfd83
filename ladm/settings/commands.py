"""What the other commands are asked to do, one frozen and checked object each; their defaults are here."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Literal

from ladm.errors import UsageError
from ladm.settings.score import DOMAIN_KEY, DType, Reduce, describe, fits, flag, parse_layers

DEFAULT_MAX_COST = 0.65
MOST_INSPECTED = 100
NO_DOMAINS = "none"
"""As a `--domain-key`: rank all documents together."""
ONE_DOMAIN = "all"
"""What that one domain is called."""


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """What `ladm prepare` is asked to do. `bos` None: whatever the tokenizer itself does."""

    sources: tuple[str, ...] = ()
    tokenizer: str = ""
    output: str = ""
    length: int = 32768
    text_key: str = "text"
    domain_key: str = DOMAIN_KEY
    domain: str | None = None
    bos: bool | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        for name in ("length", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name} must be at least 1, not {value}")


@dataclass(frozen=True, kw_only=True)
class CalibrateSettings:
    """What `ladm calibrate` is asked to do.

    `span_tokens` None: that of `config`, or T // 256. `max_cost` None: 0.65 with the objective `cost`.
    `work` None: a folder beside `output`. `device`, `dtype`, `batch_size` None: as `config` says, or auto.
    """

    model: str = ""
    rows: str = ""
    output: str = ""
    span_tokens: int | None = None
    exclude_domains: tuple[str, ...] = ()
    objective: Literal["auc", "cost"] = "auc"
    max_cost: float | None = None
    heads: bool = False
    seed: int = 0
    documents: int = 128
    layers: str | None = None
    domain_key: str = DOMAIN_KEY
    config: str | None = None
    work: str | None = None
    device: str | None = None
    dtype: DType | None = None
    batch_size: int | Literal["auto"] | None = None

    def __post_init__(self) -> None:
        if self.max_cost is not None and not 0 < self.max_cost <= 1:
            raise UsageError(f"--max-cost must be above 0 and at most 1 forward pass, not {self.max_cost:g}")
        if self.max_cost is not None and self.objective != "cost":
            raise UsageError("--max-cost goes with --objective cost")
        _require_positive(span_tokens=self.span_tokens, documents=self.documents)
        _require_seed(self.seed)

    @property
    def most_cost(self) -> float:
        """Share of a forward pass that the profile may use."""
        return 1.0 if self.objective == "auc" else DEFAULT_MAX_COST if self.max_cost is None else self.max_cost


@dataclass(frozen=True, kw_only=True)
class RescoreSettings:
    """What `ladm rescore` is asked to do. None: as the run was scored."""

    run: str = ""
    output: str = ""
    profile: str | None = None
    reduce: Reduce | None = None
    layers: str | None = None

    def __post_init__(self) -> None:
        parse_layers(self.layers)
        if self.profile is not None and (self.reduce is not None or self.layers is not None):
            raise UsageError("--profile settles layers and reduction; leave --reduce and --layers out")
        if self.run and self.profile is None and self.reduce is None and self.layers is None:
            raise UsageError("nothing to change: give --profile, --reduce or --layers")


@dataclass(frozen=True, kw_only=True)
class InspectSettings:
    """What `ladm inspect` is asked to do.

    `top` and `bottom` None: 3 and 1, or none where documents are named by `index`. `rows`, `model`, `dtype`
    None: those of the run.
    """

    run: str = ""
    top: int | None = None
    bottom: int | None = None
    index: tuple[str, ...] = ()
    rows: str | None = None
    model: str | None = None
    device: str = "auto"
    dtype: DType | None = None

    def __post_init__(self) -> None:
        for name in ("top", "bottom"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UsageError(f"--{name} must be at least 0, not {value}")
        if not (self.first or self.last or self.index):
            raise UsageError("nothing to inspect: give --top, --bottom or --index")
        if self.first + self.last + len(self.index) > MOST_INSPECTED:
            raise UsageError(f"at most {MOST_INSPECTED} documents can be inspected at once; ask for fewer")

    @property
    def first(self) -> int:
        """How many of the best documents."""
        return self.top if self.top is not None else 0 if self.index else 3

    @property
    def last(self) -> int:
        """How many of the worst documents."""
        return self.bottom if self.bottom is not None else 0 if self.index or self.top is not None else 1


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """What `ladm report` is asked to do. `output` None: `report.html` in the run folder."""

    run: str = ""
    subset: str | None = None
    output: str | None = None
    domain_key: str = DOMAIN_KEY


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """What `ladm check` is asked to do.

    `rows` None: the documents that come with the package. `output` None: `check-` and the model's name.
    """

    model: str = ""
    rows: str | None = None
    output: str | None = None
    length: int = 4096
    span_tokens: int | None = None
    documents: int = 24
    seed: int = 0
    domain_key: str = DOMAIN_KEY
    device: str = "auto"
    dtype: DType = "auto"

    def __post_init__(self) -> None:
        _require_positive(span_tokens=self.span_tokens, documents=self.documents, length=self.length)
        _require_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class SelectSettings:
    """What `ladm select` is asked to do. `quota` is `tokens`, `documents` or a YAML file of weights."""

    run: str = ""
    rows: str = ""
    output: str = ""
    tokens: int = 0
    rule: Literal["exact", "percent"] = "exact"
    quota: str = "tokens"
    domain_key: str = DOMAIN_KEY
    allow_small_pool: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.rule == "percent" and self.quota != "tokens":
            raise UsageError("--quota does not go with --rule percent, which takes the same share of every domain")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What `ladm train` is asked to do; the optimiser's settings are the paper's.

    `length` None: the commonest length of the rows. `rope_base` None: the model's own.
    """

    model: str = ""
    rows: str = ""
    output: str = ""
    tokens: int = 0
    length: int | None = None
    rope_base: float | None = None
    batch_tokens: int = 1_048_576
    """Tokens of one step of the optimiser, over all devices."""
    rows_at_once: int = 1
    """Rows in one forward pass of a device; the rest of a batch is accumulated."""
    learning_rate: float = 2e-5
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: int = 20
    max_grad_norm: float = 1.0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the arithmetic, the weights staying float32; `auto`: bfloat16 on CUDA."""
    gradient_checkpointing: bool = True
    liger: bool = True
    """Use liger kernels on CUDA where they are installed."""
    save_every: int = 50
    """Steps between checkpoints; the two newest stay."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in typing.get_type_hints(type(self)).items():
            if not fits(getattr(self, name), kind):
                raise UsageError(f"{flag(name)}: {getattr(self, name)!r} is not {describe(kind)}")
        _require_positive(
            length=self.length, batch_tokens=self.batch_tokens, rows_at_once=self.rows_at_once,
            save_every=self.save_every,
        )  # fmt: skip
        _require_seed(self.seed)
        if self.rope_base is not None and not self.rope_base > 1:
            raise UsageError(f"--rope-base must be above 1, not {self.rope_base:g}")
        if not 0 < self.learning_rate < 10 or self.warmup_steps < 0 or not 0 <= self.weight_decay < 10:
            raise UsageError("learning_rate must be above 0, warmup_steps and weight_decay at least 0")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and self.max_grad_norm > 0):
            raise UsageError("beta1 and beta2 must be from 0 to below 1, max_grad_norm above 0")


@dataclass(frozen=True, kw_only=True)
class PerplexitySettings:
    """What `ladm evaluate perplexity` is asked to do. `output` None: print alone."""

    model: str = ""
    rows: str = ""
    output: str | None = None
    windows: tuple[int, ...] = (2048, 4096, 8192, 16384, 32768)
    documents: int = 100
    device: str = "auto"
    dtype: DType = "auto"

    def __post_init__(self) -> None:
        _require_positive(documents=self.documents)


@dataclass(frozen=True, kw_only=True)
class NeedleSettings:
    """What `ladm evaluate needle` is asked to do: `repeats` needles at each of `depths` depths of each length."""

    model: str = ""
    rows: str = ""
    output: str = ""
    lengths: tuple[int, ...] = (4096, 8192, 16384, 32768)
    depths: int = 5
    repeats: int = 5
    seed: int = 0
    device: str = "auto"
    dtype: DType = "auto"

    def __post_init__(self) -> None:
        _require_positive(depths=self.depths, repeats=self.repeats)
        _require_seed(self.seed)
        if self.output and not self.output.endswith(".json"):
            raise UsageError(f"--output {self.output}: name a .json file; the heat map goes beside it")


@dataclass(frozen=True, kw_only=True)
class TasksSettings:
    """What `ladm evaluate tasks` is asked to do, with lm-eval. `tasks`: suites of ours or names of lm-eval's."""

    model: str = ""
    output: str | None = None
    tasks: tuple[str, ...] = ("short",)
    length: int | None = None
    limit: int | None = None
    include_path: str | None = None
    device: str = "auto"
    dtype: DType = "auto"
    batch_size: int | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        _require_positive(length=self.length, limit=self.limit)
        if self.batch_size != "auto":
            _require_positive(batch_size=self.batch_size)


def _require_positive(**values: int | None) -> None:
    for name, value in values.items():
        if value is not None and value < 1:
            raise UsageError(f"{flag(name)} must be at least 1, not {value}")


def _require_seed(seed: int) -> None:
    if seed < 0:
        raise UsageError(f"--seed must be at least 0, not {seed}")
