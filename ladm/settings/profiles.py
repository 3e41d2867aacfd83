"""Profile <-> YAML file: which layers or heads of a model make a score, how they are combined, and with what method.

`ladm calibrate` writes it; `ladm score` and `ladm rescore` read it. Imports no torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ladm.errors import LadmError, UsageError, one_line
from ladm.method.grid import Method
from ladm.method.reduction import Reduction
from ladm.settings.yaml_text import CHECKSUM, load_yaml, require_checksum
from ladm.storage.files import require_utf8
from ladm.storage.json_object import content_checksum, is_checksum

FORMAT = 1
Quantiles = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The result of `ladm calibrate`. `found` is for people and is not used: AUC with intervals, cost, documents.

    `band` has for columns of a run the quantiles 0.05, 0.5 and 0.95 of intact documents; `band_layers` are the layers
    of that run, None in profiles that do not say. `score_layers_band` has the columns over layers once more, over those
    of `reduction` alone, where these are fewer.
    """

    model: dict[str, Any]
    method: Method
    length_tokens: int
    reduction: Reduction
    band: dict[str, Quantiles] = field(default_factory=dict)
    band_layers: tuple[int, ...] | None = None
    score_layers_band: dict[str, Quantiles] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)


def profile_text(profile: Profile) -> str:
    """The YAML of a profile."""
    reduction = profile.reduction.identity()
    if reduction["heads"] is not None:
        reduction["heads"] = [f"L{layer}H{head}" for layer, head in reduction["heads"]]
    content = {
        "format": FORMAT,
        "model": profile.model,
        "settings": profile.method.as_dict(),
        "length_tokens": profile.length_tokens,
        "score": reduction,
        "band": _band_lists(profile.band),
        "band_layers": None if profile.band_layers is None else list(profile.band_layers),
        "score_layers_band": _band_lists(profile.score_layers_band),
        "found": profile.found,
    }
    content[CHECKSUM] = content_checksum(content)
    # Keys stay in this order, and short lists on one line, because people read and edit profiles.
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)


def read_profile(path: str | Path) -> Profile:
    """Read a profile. Raises UsageError for a file that cannot be read, is no profile, or has no UTF-8 name."""
    try:
        content = load_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"profile {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"profile {path} is not YAML: {one_line(error)}") from None
    # A run records where its profile is.
    require_utf8(str(Path(path).absolute()))
    try:
        if not isinstance(content, dict):
            raise TypeError("it has no keys")
        # First, because a later format may lack the keys that are read below, and the message would miss the reason.
        if content["format"] != FORMAT:
            raise LadmError(f"format {content['format']}, and this version reads {FORMAT}")
        _require_undamaged(content)
        score = content["score"]
        heads, layers = score["heads"], content.get("band_layers")
        return Profile(
            model={"type": str(content["model"]["type"]), "sha256": dict(content["model"]["sha256"])},
            method=Method.from_dict(content["settings"]),
            length_tokens=int(content["length_tokens"]),
            reduction=Reduction(
                how=score["reduce"],
                layers=tuple(int(layer) for layer in score["layers"]),
                heads=None if heads is None else tuple(_head(head) for head in heads),
                weights=None if score["weights"] is None else tuple(float(w) for w in score["weights"]),
                focus=score.get("focus", "plain"),
            ),
            band=_read_band(content, "band"),
            band_layers=None if layers is None else tuple(int(layer) for layer in layers),
            score_layers_band=_read_band(content, "score_layers_band"),
            found=dict(content.get("found") or {}),
        )
    except LadmError as error:
        raise UsageError(f"profile {path}: {error}") from None
    # Whatever is missing or of another type in a file that is valid YAML.
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"it has no {error.args[0]}" if isinstance(error, KeyError) else one_line(error)
        raise UsageError(f"profile {path} is not a profile of ladm calibrate: {reason}") from None


def _require_undamaged(content: dict[str, Any]) -> None:
    """Raise LadmError for a profile that is not as it was written. One without a checksum was edited by hand."""
    if CHECKSUM not in content and is_checksum(str(list(content.values())[-1])):
        raise LadmError(f"damaged: its last key should be {CHECKSUM}")
    require_checksum(content)


def _band_lists(band: dict[str, Quantiles]) -> dict[str, list[float]]:
    return {column: list(quantiles) for column, quantiles in band.items()}


def _read_band(content: dict[str, Any], key: str) -> dict[str, Quantiles]:
    return {str(column): _quantiles(values) for column, values in (content.get(key) or {}).items()}


def _quantiles(values: list[float]) -> Quantiles:
    if not isinstance(values, list) or len(values) != 3 or not values[0] <= values[1] <= values[2]:
        raise ValueError(f"{values} are not three quantiles in order")
    return float(values[0]), float(values[1]), float(values[2])


def _head(text: object) -> tuple[int, int]:
    """`L14H3` -> (14, 3)."""
    found = re.fullmatch(r"L(\d+)H(\d+)", str(text))
    if found is None:
        raise ValueError(f"{text!r} is not a head such as L14H3")
    return int(found[1]), int(found[2])
