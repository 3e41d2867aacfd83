"""A started job and the files that its flags name -> what they held before and hold now. Imports no torch.

The keys are the flag and the file, such as `--quota w.yaml`. Another file for a flag is a difference of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ladm.corpus.ids.files import id_file_digest
from ladm.runs.folder import Run
from ladm.runs.layout import IDENTITY_FILE
from ladm.selection.manifest import MANIFEST_FILE
from ladm.selection.manifest_file import read_manifest
from ladm.selection.quota_weights import read_quota
from ladm.settings.fields import flag
from ladm.settings.id_lists import EXCLUDE_IDS, ONLY_IDS
from ladm.settings.mappings import yaml_line
from ladm.settings.named_scores import is_profile
from ladm.settings.profiles import Profile, read_profile
from ladm.settings.signals import CDS
from ladm.storage.digests import file_xxh3

Contents = Iterator[tuple[str, Any, Any]]
"""A key, what it had before, and what it has now."""


def subset_files(job: Any, had: Any, *, subset: Path, held: Mapping[str, str]) -> Contents:
    """Weights, lists of ids and the band of a profile that the subset was made with. Nothing where there is no subset.

    `held`: the digests of the lists that the program has in memory, by name.
    """
    if not (subset / MANIFEST_FILE).is_file():
        return
    made = read_manifest(subset)
    quota = job.quota if job.quota is not None else had.quota
    # Subsets of earlier versions have no weights.
    if made.quota_weights is not None and made.quota == quota:
        weights = read_quota(str(quota)).in_file
        yield f"{flag('quota')} {quota}", yaml_line(made.quota_weights), yaml_line(weights or {})
    lists = {(each.option, each.file): each.xxh3_128 for each in made.id_lists}
    for option in (EXCLUDE_IDS, ONLY_IDS):
        for name in getattr(job, option):
            if (option, name) in lists:
                digest = held.get(name) or id_file_digest(name, flag=flag(option))
                yield f"{flag(option)} {name}", lists[option, name], digest
    # One that is gone is an error of the score.
    if made.profile is not None and made.profile["file"] == _profile(job, had) and Path(made.profile["file"]).is_file():
        path = made.profile["file"]
        yield f"{flag('profile')} {path}", made.profile["xxh3_128"], file_xxh3(Path(path))


def profile_scores(job: Any, had: Any, *, scores: Path) -> Contents:
    """The score of the profile that the run was made with, in which only what differs is named.

    Nothing where nothing is scored, or without a profile. Raises UsageError for a profile that cannot be read.
    """
    path = _profile(job, had)
    if path is None or not (scores / IDENTITY_FILE).is_file():
        return
    run = Run.read(scores).identity
    if CDS not in run.signals:
        return
    profile = read_profile(path)
    before, now = run.method.as_dict() | run.reduction.identity(), _score(profile)
    differing = [name for name in before if before[name] != now[name]]
    if differing:
        had_line, now_line = (yaml_line({name: each[name] for name in differing}) for each in (before, now))
        yield f"{flag('profile')} {path}", had_line, now_line


def _score(profile: Profile) -> dict[str, Any]:
    return profile.method.as_dict() | profile.reduction.identity()


def _profile(job: Any, had: Any) -> str | None:
    """The profile of the job; None without one, and where the job was started with another one."""
    before = _named(had)
    return before if _named(job) in (None, before) else None


def _named(job: Any) -> str | None:
    found = job.profile or (job.score if is_profile(job.score) else None)
    return None if found is None else str(found)
