"""Flags, a YAML file and a profile -> the settings of a command; where two of them disagree, which wins or why not."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from ladm.errors import LadmError, UsageError, one_line
from ladm.settings.field_types import alternatives, choices, describe, fits
from ladm.settings.fields import Setting, flag, nearest, out_of_range, require_not_empty, settings_of, with_digits
from ladm.settings.layers import parse_layers, spell_layers
from ladm.settings.mappings import from_mapping
from ladm.settings.named_scores import is_profile, named_score
from ladm.settings.profiles import read_profile
from ladm.settings.quantities import abbreviation_hint
from ladm.settings.score import ScoreSettings
from ladm.settings.yaml_text import load_yaml, require_checksum

MOST_BYTES = 1_000_000
MOST_SHOWN = 80


class UnknownKeyError(UsageError):
    """A YAML file has a key that the command does not have."""

    def __init__(self, path: Path, key: Any, value: Any, *, keys: Iterable[str], hint: str) -> None:
        self.what = f"--config {path}: unknown key {key!r}"
        super().__init__(f"{self.what}{hint}")
        self.key = spelled(key)
        self.value = value
        self.keys = list(keys)
        """All keys of the file."""


def spelled(key: Any) -> str:
    """A key of a file as the name of a setting: `span-tokens` -> `span_tokens`."""
    return str(key).replace("-", "_")


def load_settings(kind: type, config: str | None, flags: dict[str, Any]) -> Any:
    """The settings of any command: defaults, then the YAML file, then the flags that were given (not None).

    Raises UsageError naming the file and the key for an unknown key or a value that does not fit, for a required
    setting that neither gives, and for whatever the settings themselves refuse.
    """
    chosen = _merge(kind, config, flags)
    return kind(**chosen)


def score_settings(config: str | None, flags: dict[str, Any]) -> ScoreSettings:
    """The settings of a score, as `load_settings`; a profile is binding.

    Raises UsageError as `load_settings`, and for a setting that contradicts the profile.
    """
    chosen = with_score_name(_merge(ScoreSettings, config, flags))
    if "profile" in chosen:
        # Refuse what can never work before the profile's own values are compared with it.
        ScoreSettings(**chosen)
        chosen |= _settings_of_profile(chosen["profile"], chosen)
    return ScoreSettings(**chosen)


def job_settings(kind: type, config: str | None, flags: dict[str, Any]) -> Any:
    """The settings of a job, as `load_settings`.

    Raises UsageError also for a flag that contradicts the score or the profile, as `score_settings`: later a default
    is no different from a flag with the same value.
    """
    chosen = _merge(kind, config, flags)
    settings = kind(**chosen)
    names = {field.name for field in settings_of(ScoreSettings)}
    of_score = {name: value for name, value in chosen.items() if name in names}
    score_settings(None, of_score | {"rows": "-", "output": "-"})
    return settings


def _merge(kind: type, config: str | None, flags: dict[str, Any]) -> dict[str, Any]:
    chosen = {} if config is None else read_config(Path(config), kind)
    # None stands for a flag that was not given, so that a file's value survives it.
    chosen |= {name: value for name, value in flags.items() if value is not None}
    for field in settings_of(kind):
        # What writes nothing needs no place to write to.
        needless = field.name == "output" and chosen.get("dry_run")
        if field.spec.required and not chosen.get(field.name) and not needless:
            where = "here or in the file of --config"
            raise UsageError(f"{field.flag} is missing; give it {where}")
        require_not_empty(chosen.get(field.name), field)
    return chosen


def with_score_name(chosen: dict[str, Any]) -> dict[str, Any]:
    """`--score` as the settings that it stands for; contradictions are left for `ScoreSettings` to refuse."""
    score = chosen.get("score")
    if score is None:
        return chosen
    if is_profile(score):
        if "profile" in chosen:
            raise UsageError(f"--score {score} and --profile {chosen['profile']} are two scores; give one of them")
        return {name: value for name, value in chosen.items() if name != "score"} | {"profile": score}
    variant = named_score(score).variant
    return chosen if variant is None else {"variant": variant} | chosen


def _settings_of_profile(path: str, chosen: dict[str, Any]) -> dict[str, Any]:
    """The settings of a profile, which nothing in `chosen` may contradict."""
    profile = read_profile(path)
    reduction = profile.reduction
    bound = profile.method.as_dict() | {"reduce": reduction.how, "layers": spell_layers(reduction.layers)}
    if reduction.heads is not None and chosen.get("record") != "forms":
        bound["record"] = "heads"
    for name, value in bound.items():
        given = value if chosen.get(name) is None else chosen[name]
        if name == "layers":
            # `2,0-1` and `0-2` are the same layers.
            given = spell_layers(parse_layers(given) or ())
        if given != value:
            raise UsageError(
                f"profile {path} scores with {flag(name)} {value}, but {flag(name)} {given} was given; leave out that "
                "flag or the profile"
            )
    # A signed sum is no choice of --reduce, because its weights are in the profile alone.
    return {name: value for name, value in bound.items() if (name, value) != ("reduce", "signed")}


def read_config(path: Path, kind: type = ScoreSettings) -> dict[str, Any]:
    """The settings of a kind that a YAML file gives. Its keys are the flags' names: `span_tokens` or `span-tokens`.

    Raises UsageError naming the file and the key, with a suggestion where one is close.
    """
    fields = {field.key: field for field in settings_of(kind)}
    # `task` and `tasks`, `exclude_domain` and `exclude_domains`: the flag's name, and that in Python.
    fields |= {field.name: field for field in settings_of(kind)}
    chosen: dict[str, Any] = {}
    content = _read_yaml(path)
    for key, value in content.items():
        name = spelled(key)
        try:
            if name in fields:
                if fields[name].name in chosen:
                    raise UsageError(f"{key} is a second value for {fields[name].flag}")
                chosen[fields[name].name] = _value(fields[name], value, key=str(key))
            elif not kind.passes_over(name, value):  # type: ignore[attr-defined]
                hint = _hint(name, settings_of(kind))
                raise UnknownKeyError(path, key, value, keys=map(spelled, content), hint=hint)
        except UnknownKeyError:
            raise
        except UsageError as error:
            raise UsageError(f"--config {path}: {error}") from None
    return chosen


def _read_yaml(path: Path) -> dict[Any, Any]:
    try:
        with path.open("rb") as file:
            # A limit, because the path may be a device or a data file by mistake, and YAML takes minutes to parse one.
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UsageError(f"--config {path} is larger than {MOST_BYTES:,} bytes; is it the right file?")
        loaded = load_yaml(content.decode())
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is not YAML: {one_line(error)}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise UsageError(f"--config {path} must hold keys and values, such as span_tokens: 128")
    try:
        require_checksum(loaded)
    except LadmError as error:
        raise UsageError(f"--config {path}: {error}") from None
    return loaded


def _value(field: Setting, value: Any, *, key: str) -> Any:
    """What the YAML value stands for. Raises UsageError where it is not of the field's type or range."""
    if field.spec.commas and isinstance(value, list) and value and all(type(each) in (int, str) for each in value):
        value = ",".join(map(str, value))
    if field.spec.parse is not None and isinstance(value, str):
        try:
            return field.spec.parse(value)
        except UsageError as error:
            raise UsageError(f"{key}: {error}") from None
    if isinstance(value, dict):
        value = from_mapping(value, field)
    elif isinstance(field.default, tuple):
        # A flag that may be repeated may also be given once: `task: short` is `task: [short]`.
        value = tuple(value) if isinstance(value, list) else (value,)
    value = with_digits(value, field.spec)
    if not fits(value, field.kind):
        hint = nearest(value, choices(field.kind)) if isinstance(value, str) else ""
        if isinstance(value, str) and int in alternatives(field.kind):
            hint = hint or abbreviation_hint(value)
        raise UsageError(f"{key}: {_shown(value)} is not {describe(field.kind)}{hint}")
    problem = out_of_range(value, field.spec)
    if problem:
        raise UsageError(f"{key} {problem}")
    if field.spec.parse is not None and isinstance(value, tuple):
        # A list means what its numbers mean between commas: sorted, each once.
        return field.spec.parse(",".join(map(str, value)))
    return value


def _shown(value: Any) -> str:
    # Nested lists are not printed: ten lines of YAML aliases can stand for a billion elements.
    flat = value if isinstance(value, tuple) else (value,)
    if any(isinstance(each, list | tuple | dict | set) for each in flat):
        return "a nested value"
    return _cut(json.dumps(list(value) if isinstance(value, tuple) else value, default=str))


def _cut(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 3] + "..."


def _hint(name: str, fields: Iterable[Setting]) -> str:
    # A key that deletes results is never offered: a typing error must not end in a lost run.
    harmless = [field.key for field in fields if not field.spec.destructive]
    destructive = [field.key for field in fields if field.spec.destructive]
    return nearest(name, harmless, never=destructive) or f"; the keys are {', '.join(harmless)}"
