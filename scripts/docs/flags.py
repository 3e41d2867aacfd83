"""Writes ladm/api/flags.py and run_flags.py, the types of keyword arguments: python scripts/docs/flags.py"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

import ladm
from ladm.api.memory import OF_RUNS_ALONE
from ladm.api.scored_run import ScoredRun
from ladm.settings.calibration import CalibrateSettings, CheckSettings
from ladm.settings.comparison import CompareSettings, TopSettings
from ladm.settings.data import PrepareSettings
from ladm.settings.field_types import alternatives
from ladm.settings.fields import Setting, settings_of
from ladm.settings.id_lists import EXCLUDE_IDS, ONLY_IDS
from ladm.settings.pipeline import RunSettings
from ladm.settings.runs import AnnotateSettings, InspectSettings, ReportSettings, RescoreSettings
from ladm.settings.score import ScoreSettings
from ladm.settings.selection import SelectSettings

API = Path(__file__).resolve().parents[2] / "ladm" / "api"
FUNCTIONS, METHODS = API / "flags.py", API / "run_flags.py"
"""The modules for the functions of `ladm`, and for the methods of a run."""
HEAD = '''"""The flags of {commands} as keyword arguments, for editors and type checkers.

Made from the settings by `python scripts/docs/flags.py`; a test checks that it is up to date. What each means is in the
command's help, docs/cli.md. Read by type checkers alone: what is given is checked by `ladm.api.keywords`.
"""

from __future__ import annotations

from collections.abc import {collections}
from typing import {types}

from ladm.api.keywords import AnyPath
'''
IMPORTED = {"collections": ("Collection", "Mapping", "Sequence"), "types": ("Any", "Literal", "TypedDict")}
"""The names that a module imports where it uses them."""
OF_MODULES = {FUNCTIONS: "the commands", METHODS: "the commands that take a run"}


CALLS: dict[str, tuple[Callable[..., Any], Any, set[str]]] = {
    "Scorer": (ladm.Scorer, ScoreSettings, set(OF_RUNS_ALONE)),
    "estimate": (ladm.estimate, ScoreSettings, {"dry_run", "overwrite", "retry_errors"}),
    "score": (ladm.score, ScoreSettings, {"dry_run"}),
    "run": (ladm.run, RunSettings, {"dry_run"}),
    "estimate_run": (ladm.estimate_run, RunSettings, {"dry_run"}),
    "prepare": (ladm.prepare, PrepareSettings, set()),
    "select": (ladm.select, SelectSettings, {"runs"}),
    "rescore": (ScoredRun.rescore, RescoreSettings, {"run"}),
    "annotate": (ScoredRun.annotate, AnnotateSettings, {"run"}),
    "inspect": (ScoredRun.inspect, InspectSettings, {"run"}),
    "report": (ScoredRun.report, ReportSettings, {"run"}),
    "top": (ScoredRun.top, TopSettings, {"run"}),
    "compare": (ScoredRun.compare, CompareSettings, {"runs", "all_pairs"}),
    "check": (ladm.check, CheckSettings, {"dry_run"}),
    "estimate_check": (ladm.estimate_check, CheckSettings, {"dry_run", "output"}),
    "estimate_calibration": (ladm.estimate_calibration, CalibrateSettings, {"dry_run", "output", "work"}),
    "calibrate": (ladm.calibrate, CalibrateSettings, {"dry_run"}),
}
"""Of each call its settings, and those that it does not take. Calls with the same keys share the class of the first."""


PLACES = {"FILE", "FOLDER", "MODEL", "NAME=RUN2", "PROFILE", "ROWS", "SCORE", "T", "tokens|documents|WEIGHTS"}
"""Metavars of what may be a path."""


def modules() -> dict[Path, str]:
    """The text of each module."""
    found: dict[Path, dict[str, Any]] = {FUNCTIONS: {}, METHODS: {}}
    for call, (function, kind, without) in CALLS.items():
        is_method = "self" in inspect.signature(function).parameters
        found[METHODS if is_method else FUNCTIONS][call] = (function, kind, without)
    return {path: _module(HEAD.replace("{commands}", OF_MODULES[path]), calls) for path, calls in found.items()}


def _module(head: str, described: dict[str, Any]) -> str:
    classes: dict[str, dict[str, str]] = {}
    parts = [head]
    calls: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for call, (function, kind, without) in described.items():
        # Those that are parameters of their own are in the call's signature.
        keys_of_call = tuple(_keys(kind, without | set(inspect.signature(function).parameters)))
        calls.setdefault(keys_of_call, []).append(call)
    for pairs, names in calls.items():
        keys = dict(pairs)
        # The largest class of which this one has every key with the same type.
        within = [name for name, others in classes.items() if others.items() <= keys.items()]
        base = max(within, key=lambda name: len(classes[name]), default="TypedDict")
        own = {name: text for name, text in keys.items() if name not in classes.get(base, {})}
        title = "".join(f"{word[0].upper()}{word[1:]}" for word in names[0].split("_")) + "Flags"
        classes[title] = keys
        of_calls = " and ".join(f"`{name}`" for name in names)
        lines = [f"class {title}({base}, total=False):", f'    """Of {of_calls}."""', ""]
        parts.append("\n".join([*lines, *(f"    {name}: {text}" for name, text in own.items())]) + "\n")
    text = "\n\n".join(parts)
    for place, names in IMPORTED.items():
        text = text.replace(f"{{{place}}}", ", ".join(name for name in names if re.search(rf"\b{name}\b", text)))
    return text


def _keys(kind: Any, without: set[str]) -> Iterator[tuple[str, str]]:
    for field in settings_of(kind):
        if field.name in without:
            continue
        # A flag that may be repeated has the singular, and its setting the plural; a call takes both.
        for name in dict.fromkeys([field.key, field.name]):
            yield name, " | ".join(dict.fromkeys([*_types(field), "None"]))


def _types(field: Setting) -> Iterator[str]:
    """What a call takes for a field: its own types, and those that `keywords.parse_keywords` makes them of."""
    for each in alternatives(field.kind):
        if each is NoneType:
            continue
        if get_origin(each) is typing.Literal:
            words = ", ".join(f'"{word}"' for word in get_args(each))
            yield f"Literal[{words}]"
        elif each is str or get_origin(each) is tuple:
            word = ["AnyPath" if field.spec.metavar in PLACES else "str", *["int"] * field.spec.digits]
            yield from word
            if get_origin(each) is tuple or field.spec.commas:
                yield f"Sequence[{' | '.join(word)}]"
            if field.name in (EXCLUDE_IDS, ONLY_IDS):
                # Ids in a set, an array of NumPy, or a column of Arrow, pandas or polars.
                yield "Collection[Any]"
            if field.spec.mapping:
                yield f"Mapping[str, {'AnyPath' if field.name == 'join' else 'float'}]"
        else:
            yield each.__name__
    if field.spec.parse is not None:
        yield "str"


if __name__ == "__main__":
    for place, text in modules().items():
        place.write_text(text, encoding="utf-8")
