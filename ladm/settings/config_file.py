"""Flags, a YAML file and a profile -> the settings of a score; where two of them disagree, which wins or why not."""

from __future__ import annotations

import difflib
import json
import typing
from pathlib import Path
from typing import Any

import yaml

from ladm.errors import UsageError, one_line
from ladm.settings.profiles import read_profile
from ladm.settings.quantities import parse_tokens
from ladm.settings.score import ScoreSettings, describe, fits, flag, parse_layers, spell_layers


def score_settings(config: str | None, flags: dict[str, Any]) -> ScoreSettings:
    """Defaults, then the YAML file, then the flags that were given (those that are not None); a profile binds them all.

    Raises UsageError naming the file and the key for an unknown key or a value of the wrong type, and
    for a setting that the profile contradicts.
    """
    chosen = {} if config is None else read_config(Path(config))
    chosen |= {name: value for name, value in flags.items() if value is not None}
    if "profile" in chosen:
        ScoreSettings(**chosen)
        chosen |= _bound(chosen["profile"], chosen)
    return ScoreSettings(**chosen)


def _bound(path: str, chosen: dict[str, Any]) -> dict[str, Any]:
    """The settings of a profile, which nothing in `chosen` may contradict."""
    profile = read_profile(path)
    reduction = profile.reduction
    bound = profile.method.as_dict() | {"reduce": reduction.how, "layers": spell_layers(reduction.layers)}
    if reduction.heads is not None and chosen.get("record") != "forms":
        bound["record"] = "heads"
    types = typing.get_type_hints(ScoreSettings)
    for name, value in bound.items():
        if not fits(value, types[name]):
            raise UsageError(f"--profile {path}: {name}: {value!r} is not {describe(types[name])}")
        asked = value if chosen.get(name) is None else chosen[name]
        if name == "layers":
            asked = spell_layers(parse_layers(asked) or ())
        if asked != value:
            raise UsageError(
                f"--profile {path} scores with {flag(name)} {value}, and {flag(name)} {asked} was given; "
                "leave it out, or leave the profile out"
            )
    return bound


def read_config(path: Path, kind: type = ScoreSettings) -> dict[str, Any]:
    """The settings of a kind that a YAML file gives. Raises UsageError naming the file and the key."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"--config {path} is not YAML: {one_line(error)}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise UsageError(f"--config {path} must hold keys and values, such as span_tokens: 128")
    types = typing.get_type_hints(kind)
    chosen = {}
    for key, value in loaded.items():
        name = str(key).replace("-", "_")
        if name not in types:
            near = difflib.get_close_matches(name, types, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; the keys are {', '.join(types)}"
            raise UsageError(f"--config {path}: unknown key {key!r}{hint}")
        if name == "tokens" and isinstance(value, str):
            value = parse_tokens(value)
        if not fits(value, types[name]):
            shown = json.dumps(value, default=str)
            raise UsageError(f"--config {path}: {key}: {shown} is not {describe(types[name])}")
        chosen[name] = value
    return chosen
