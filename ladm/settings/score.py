"""What `ladm score` is asked to do, frozen and checked; its defaults are here. `options.py` has those of the others."""

from __future__ import annotations

import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from ladm.errors import UsageError
from ladm.method.grid import PAPER_N0_SPANS, Ablation, Method, Variant

Reduce = Literal["mean", "median", "geometric"]
Recorded = Literal["layers", "heads", "range", "forms"]
Backend = Literal["auto", "torch", "triton"]
Attention = Literal["auto", "flash", "cudnn", "flash-attn", "efficient"]
Engine = Literal["local", "ray"]
DType = Literal["auto", "float32", "bfloat16", "float16"]

MOST_LAYERS = 10_000
DOMAIN_KEY = "meta.pile_set_name"


def _setting(default: Any, *, changes_result: bool) -> Any:
    """A field that says whether a run may be resumed with another value of it."""
    return field(default=default, metadata={"changes_result": changes_result})


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """What `ladm score` is asked to do.

    Raises UsageError for a value that can never work.
    """

    rows: str = _setting("", changes_result=False)
    """Folder written by `save_to_disk`, or a Hub id; the identity of a run holds the content instead."""
    model: str = _setting("UltraRonin/Long-Attn-Calculator", changes_result=False)
    """Model folder or Hub id; the identity of a run holds the hashes of its files instead."""
    output: str = _setting("", changes_result=False)
    """The run folder."""
    variant: Variant = _setting("released", changes_result=True)
    """`released`: what the published code computes; `paper`: equations 2-5 as printed."""
    span_tokens: int = _setting(128, changes_result=True)
    """l, tokens in a span."""
    m: int = _setting(1, changes_result=True)
    """Spans at the start that are never looked back at."""
    n: int | None = _setting(None, changes_result=True)
    """The nearest earlier span used is j-n (released) or j-n-1 (paper); None: d_afs."""
    n0: int | None = _setting(None, changes_result=True)
    """No span before it is scored; None: 16 (paper), or the released lower bound (released)."""
    d_afs: int = _setting(4, changes_result=True)
    """Stride over the earlier spans of a scored span."""
    d_cds: int = _setting(4, changes_result=True)
    """Stride over the scored spans."""
    ablation: Ablation = _setting("none", changes_result=True)
    """`no-std` drops sigma, `no-length` drops both length weights."""
    reduce: Reduce = _setting("mean", changes_result=True)
    """How the layers' CDS become one score; `geometric` is their geometric mean."""
    layers: str | None = _setting(None, changes_result=True)
    """Layers to score, such as `0-10,14`; None: all."""
    record: Recorded = _setting("layers", changes_result=True)
    """Kept of a document: CDS by layer; also by `heads`; or also the focus at long `range`; or, for calibration,
    all `forms`: by layer and by head, with sigma and without."""
    profile: str | None = _setting(None, changes_result=True)
    """A file of `ladm calibrate`; it settles method, layers and reduction."""
    dtype: DType = _setting("auto", changes_result=True)
    """`auto`: bfloat16 where the device is fast at it, else float32."""
    backend: Backend = _setting("auto", changes_result=True)
    """What makes equation 2; `auto`: triton on CUDA, torch elsewhere."""
    attention: Attention = _setting("auto", changes_result=True)
    """The fused attention; `auto`: on CUDA the one that torch would choose, or flash-attn where installed."""
    device: str = _setting("auto", changes_result=False)
    """`auto`, `cpu`, `cuda`, `cuda:0,1`; its kind is in the run's identity."""
    engine: Engine = _setting("local", changes_result=False)
    """`local`: processes of this machine; `ray`: actors on a Ray cluster."""
    workers: int | None = _setting(None, changes_result=False)
    """Processes on a CPU, which share its cores; None: this one alone. With Ray: actors; None: one a GPU, or a node."""
    shard: str | None = _setting(None, changes_result=False)
    """`i/n`: one of n launches that share the run; None: as Slurm or torchrun say, or alone."""
    batch_size: int | Literal["auto"] = _setting("auto", changes_result=False)
    """Rows of equal length in one step."""
    limit: int | None = _setting(None, changes_result=False)
    """Score only the first so many rows; the identity of the data covers just those."""
    max_errors: int | None = _setting(None, changes_result=False)
    """Stop once more rows than this have no score; None: never."""
    fail_fast: bool = _setting(False, changes_result=False)
    """Stop at the first row without a score."""
    retry_errors: bool = _setting(False, changes_result=False)
    """Try every row without a score again."""
    overwrite: bool = _setting(False, changes_result=False)
    """Remove the run that is in the folder, and begin anew."""

    def __post_init__(self) -> None:
        for name, kind in typing.get_type_hints(type(self)).items():
            if not fits(getattr(self, name), kind):
                raise UsageError(f"{flag(name)}: {getattr(self, name)!r} is not {describe(kind)}")
        for name, lowest in _LOWEST.items():
            value = getattr(self, name)
            if isinstance(value, int) and value < lowest:
                raise UsageError(f"{flag(name)} must be at least {lowest}, not {value}")
        if self.variant == "released" and self.n == 0:
            raise UsageError("--n must be at least 1 in the released variant, whose nearest span is j-n")
        parse_layers(self.layers)

    @property
    def method(self) -> Method:
        """What is computed, with defaults filled in: n is d_afs, and in the paper's variant n0 is 16."""
        return Method(
            variant=self.variant,
            span_tokens=self.span_tokens,
            m=self.m,
            n=self.d_afs if self.n is None else self.n,
            n0=PAPER_N0_SPANS if self.n0 is None and self.variant == "paper" else self.n0,
            d_afs=self.d_afs,
            d_cds=self.d_cds,
            ablation=self.ablation,
        )


_LOWEST = {
    "span_tokens": 1,
    "m": 0,
    "n": 0,
    "n0": 0,
    "d_afs": 1,
    "d_cds": 1,
    "workers": 1,
    "batch_size": 1,
    "limit": 1,
    "max_errors": 0,
}


def flag(name: str) -> str:
    """The command-line spelling of a setting: `span_tokens` -> `--span-tokens`."""
    return "--" + name.replace("_", "-")


def parse_layers(text: str | None) -> tuple[int, ...] | None:
    """`0-10,14` -> (0, 1, .., 10, 14), ascending; None stays None.

    Raises UsageError for anything that is not such a list.
    """
    if text is None:
        return None
    layers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(f"--layers {text!r} is not a list such as 0-10,14")
        if dash and int(last) < int(first):
            raise UsageError(f"--layers {text!r}: the range {part.strip()} runs backwards")
        if int(last or first) > MOST_LAYERS:
            raise UsageError(f"--layers {text!r}: no model has a layer {last or first}")
        layers.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(layers))


def spell_layers(layers: list[int] | tuple[int, ...]) -> str:
    """(0, 1, 2, 5) -> `0-2,5`, as `--layers` reads it."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _choices(kind: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the type alone."""
    return typing.get_args(kind) if typing.get_origin(kind) is not Literal and typing.get_args(kind) else (kind,)


def fits(value: Any, kind: Any) -> bool:
    for choice in _choices(kind):
        if typing.get_origin(choice) is Literal:
            if value in typing.get_args(choice):
                return True
        elif type(value) is choice or (choice is float and type(value) is int):
            return True
    return False


def describe(kind: Any) -> str:
    words: list[str] = []
    for choice in _choices(kind):
        if typing.get_origin(choice) is Literal:
            words += [str(word) for word in typing.get_args(choice)]
        else:
            words.append(
                {int: "a whole number", float: "a number such as 2.0e-5", str: "text", bool: "true or false"}.get(
                    choice, "null"
                )
            )
    return " or ".join(words)
