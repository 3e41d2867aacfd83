"""CDS of layers or heads -> one score, and the profile: which of them, how, with what settings and for which model.

A profile is a YAML file that `ladm calibrate` writes and `ladm score` and `ladm rescore` read. Imports no torch.

Shape suffixes: B documents, L numbers kept of each, P of them that are used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from ladm.errors import LadmError, UsageError, one_line

FORMAT = 1
HOW = ("mean", "median", "geometric")
METHOD_KEYS = ("variant", "span_tokens", "m", "n", "n0", "d_afs", "d_cds", "ablation")

Floats = npt.NDArray[np.float64]


def kept_column(*, heads: bool, second_form: bool) -> str:
    """The column of a run's results with CDS by layer or head; `second_form`: without sigma, kept beside the other."""
    return f"cds_per_{'head' if heads else 'layer'}{'_no_std' if second_form else ''}"


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """Which of the kept numbers make the score, and how. `heads` are (layer, head); None: whole layers."""

    how: str = "mean"
    layers: tuple[int, ...]
    heads: tuple[tuple[int, int], ...] | None = None
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        parts = self.layers if self.heads is None else self.heads
        if self.how not in HOW:
            raise LadmError(f"no reduction {self.how!r}; there is {', '.join(HOW)}")
        if not parts:
            raise LadmError("a score needs at least one layer")
        if list(parts) != sorted(set(parts)) or min(self.layers) < 0:  # type: ignore[type-var]
            raise LadmError("layers and heads must be in order, each once")
        if self.heads is not None and {layer for layer, _ in self.heads} != set(self.layers):
            raise LadmError("the heads are not those of the layers")
        if self.weights is not None and (len(self.weights) != len(parts) or not sum(self.weights) > 0):
            raise LadmError(f"{len(self.weights)} weights for {len(parts)} layers or heads, or none above 0")
        if self.weights is not None and self.how == "median":
            raise LadmError("a median takes no weights")

    def identity(self) -> dict[str, Any]:
        """As `run.json` keeps it."""
        return {
            "reduce": self.how,
            "layers": list(self.layers),
            "heads": None if self.heads is None else [list(head) for head in self.heads],
            "weights": None if self.weights is None else list(self.weights),
        }

    def columns(self, kept_layers: tuple[int, ...], *, num_heads: int | None) -> list[int]:
        """Where the wanted numbers stand among those kept. Raises LadmError for a layer that was not kept."""
        absent = sorted(set(self.layers) - set(kept_layers))
        if absent:
            raise LadmError(f"layer {absent[0]} is wanted, and the run kept layers {list(kept_layers)}")
        place = {layer: k for k, layer in enumerate(kept_layers)}
        if self.heads is None:
            return [place[layer] for layer in self.layers]
        if num_heads is None:
            raise LadmError("the profile weighs single heads, and the run kept whole layers only (--record heads)")
        if max(head for _, head in self.heads) >= num_heads:
            raise LadmError(
                f"the profile names a head {max(head for _, head in self.heads)}, and there are {num_heads}"
            )
        return [place[layer] * num_heads + head for layer, head in self.heads]


def reduction_of(identity: dict[str, Any]) -> Reduction:
    """The reduction of a run, from what its `run.json` keeps of it."""
    heads = identity["heads"] and tuple((layer, head) for layer, head in identity["heads"])
    weights = identity["weights"] and tuple(identity["weights"])
    return Reduction(how=identity["reduce"], layers=tuple(identity["layers"]), heads=heads, weights=weights)


def form_of(identity: dict[str, Any]) -> Any:
    """The ablation that a run's score is made with, from its `run.json`; rescored, it may not be that of the run."""
    return identity["score"].get("form", identity["settings"]["ablation"])


def column_of(identity: dict[str, Any], form: str, *, heads: bool) -> str:
    """The column of `scores.parquet` that holds the CDS of that form, where the run kept it."""
    return kept_column(heads=heads, second_form=form != identity["settings"]["ablation"])


def reduce_cds(cds_BP: Floats, how: str, weights: tuple[float, ...] | None = None) -> Floats:
    """One score a document from its P numbers: (B, P) -> (B,).

    mean: sum of w x / sum of w; geometric: exp of that of log x; median: of x. The order of the
    additions is fixed, so that a score is the same to the last bit however many are made at once.
    """
    cds_BP = np.ascontiguousarray(cds_BP, dtype=np.float64)
    if how == "median":
        # A NaN becomes the median of its document without numpy's warning.
        with np.errstate(invalid="ignore"):
            return np.asarray(np.median(cds_BP, axis=1))
    if how == "geometric":
        with np.errstate(divide="ignore", invalid="ignore"):
            cds_BP = np.log(cds_BP)
    w_P = (1.0,) * cds_BP.shape[1] if weights is None else weights
    total_B = np.zeros(len(cds_BP))
    for k, w in enumerate(w_P):
        total_B = total_B + (cds_BP[:, k] if w == 1.0 else w * cds_BP[:, k])
    mean_B = total_B / sum(w_P)
    return np.exp(mean_B) if how == "geometric" else mean_B


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What `ladm calibrate` found. `found` is for people: AUC with intervals, cost, documents."""

    model: dict[str, Any]
    settings: dict[str, Any]
    length_tokens: int
    reduction: Reduction
    found: dict[str, Any] = field(default_factory=dict)


def profile_text(profile: Profile) -> str:
    """The YAML of a profile."""
    reduction = profile.reduction.identity()
    if reduction["heads"] is not None:
        reduction["heads"] = [f"L{layer}H{head}" for layer, head in reduction["heads"]]
    content = {
        "format": FORMAT,
        "model": profile.model,
        "settings": profile.settings,
        "length_tokens": profile.length_tokens,
        "score": reduction,
        "found": profile.found,
    }
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)


def read_profile(path: str | Path) -> Profile:
    """Read a profile. Raises UsageError with one line for anything that is not one."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--profile {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"--profile {path} is not YAML: {one_line(error)}") from None
    try:
        if content["format"] != FORMAT:
            raise LadmError(f"format {content['format']}, and this version reads {FORMAT}")
        score = content["score"]
        heads = score["heads"]
        settings = {key: content["settings"][key] for key in METHOD_KEYS}
        return Profile(
            model={"type": str(content["model"]["type"]), "sha256": dict(content["model"]["sha256"])},
            settings=settings,
            length_tokens=int(content["length_tokens"]),
            reduction=Reduction(
                how=score["reduce"],
                layers=tuple(int(layer) for layer in score["layers"]),
                heads=None if heads is None else tuple(_head(head) for head in heads),
                weights=None if score["weights"] is None else tuple(float(w) for w in score["weights"]),
            ),
            found=dict(content.get("found") or {}),
        )
    except LadmError as error:
        raise UsageError(f"--profile {path}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"--profile {path} is not a profile of ladm calibrate: {one_line(error)}") from None


def _head(text: str) -> tuple[int, int]:
    """`L14H3` -> (14, 3)."""
    found = re.fullmatch(r"L(\d+)H(\d+)", text)
    if found is None:
        raise ValueError(f"{text!r} is not a head such as L14H3")
    return int(found[1]), int(found[2])
