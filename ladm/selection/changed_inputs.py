"""Two manifests of one command -> which of the files and runs that it reads had other content. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ladm.selection.manifest import Manifest
from ladm.settings.fields import flag
from ladm.settings.joins import ROWS

Head = Mapping[str, Any]
"""A manifest without its chosen rows, as `head_of` reads it."""
_UNRECORDED_BEFORE = ("quota_weights", "profile")
"""What this version records for every command that reads such a file, and earlier versions did not."""


def as_recorded_by(there: Head, own: Manifest) -> Manifest:
    """`own` as the version that wrote `there` would have recorded it: without the fields that it did not have.

    Of the same command, so that a field of `_UNRECORDED_BEFORE` that only `own` has was not recorded then.
    """
    lacking: dict[str, Any] = {name: None for name in _UNRECORDED_BEFORE if name not in there}
    return replace(own, **lacking)


def changed_inputs(there: Head, own: Head, *, runs: Sequence[Any], joined_runs: Mapping[str, Any]) -> list[str]:
    """What had other content when the manifest `there` was written than now, as a person names it.

    `runs`: the folders of the runs that are selected from now; `joined_runs`: of the others, by name. What one of the
    manifests does not record, as those of earlier versions do not, is not compared.
    """
    had, now = ([each.get("run"), *_of(each, "other_runs", list)] for each in (there, own))
    found = [str(name) for name, a, b in zip(runs, had, now, strict=False) if _differ(a, b)]
    if _differ(there.get("quota_weights"), own.get("quota_weights"), whole=True):
        found.append(f"--quota {own['quota']}")
    found += _changed_lists(there, own)
    for name, each in _of(own, "joined_files", dict).items():
        if _differ(_of(there, "joined_files", dict).get(name), {"xxh3_128": each["xxh3_128"]}):
            found.append(f"--join {name}={each['file']}")
    for name, each in _of(own, "joined_runs", dict).items():
        if _differ(_of(there, "joined_runs", dict).get(name), each):
            found.append(f"--join {name}={joined_runs[name]}")
    if _differ(there.get("profile"), own.get("profile")):
        found.append(f"profile {own['profile']['file']}")
    # Whatever else has other numbers is a column of the rows.
    for name, digests in _of(own, "joined_columns", dict).items():
        if name.startswith(f"{ROWS}.") and _differ(_of(there, "joined_columns", dict).get(name), digests):
            found.append(f"column {name}")
    return found


def _changed_lists(there: Head, own: Head) -> Iterator[str]:
    """The lists of ids."""
    lists = [each for each in _of(there, "id_lists", list) if isinstance(each, dict)]
    had = {(str(each.get("option")), str(each.get("file"))): each for each in lists}
    for each in _of(own, "id_lists", list):
        if _differ(had.get((each["option"], each["file"])), {"xxh3_128": each["xxh3_128"]}):
            yield f"{flag(each['option'])} {each['file']}"


def _of(head: Head, name: str, kind: type) -> Any:
    """A field of a manifest, which may have been edited; an empty one where it is absent or of another type."""
    found = head.get(name)
    return found if isinstance(found, kind) else kind()


def _differ(had: Any, now: Any, *, whole: bool = False) -> bool:
    """Do both have a value, and different ones? Of dictionaries only keys that both have count, unless `whole`."""
    # Another version may record more, or less, of an equal run.
    if isinstance(had, dict) and isinstance(now, dict) and not whole:
        return any(_differ(had[key], now[key]) for key in had if key in now)
    return had is not None and now is not None and had != now
