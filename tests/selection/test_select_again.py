"""`ladm select` given again when its subset exists: the same command of the same data ends as it did, any other not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from click.testing import Result

from ladm.api.pipeline import select as in_python
from ladm.errors import LadmError
from ladm.selection import writing
from ladm.selection.formats import destination
from ladm.selection.manifest import ChosenRows
from ladm.selection.manifest_file import read_manifest, read_manifest_and_chosen, write_manifest
from ladm.storage.digests import file_xxh3
from support.rows import topical_rows
from support.subsets import write_profile

Command = Callable[..., Result]
LENGTHS = [512, 400, 450, 90, 700, 480, 512, 490]


@pytest.fixture
def scored(score_rows: Any, golden: Any) -> tuple[str, Path]:
    return score_rows([row | {"id": f"n{row['index']}"} for row in topical_rows(golden, LENGTHS)])


def states(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("flags", [(), ("--format", "jsonl", "--keep-all"), ("--format", "npy", "--sample")])
def test_the_same_command_again_ends_as_it_did(
    ladm: Command, scored: tuple[str, Path], tmp_path: Path, flags: tuple[str, ...]
) -> None:
    command = ("select", scored[1], "--within", "score:10%-", "--documents", "4", *flags, "-o", tmp_path / "subset")
    first = ladm(*command)
    assert first.exit_code == 0, first.output
    before = states(tmp_path / "subset")
    again = ladm(*command)
    assert (again.exit_code, again.stdout, again.stderr) == (0, first.stdout, first.stderr)
    assert states(tmp_path / "subset") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows", "run", "subset"]


@pytest.mark.parametrize("place", ["{}/subset", "memory://again-{}"])
def test_a_subset_whose_rows_were_removed_is_not_taken_for_whole(
    ladm: Command, scored: tuple[str, Path], tmp_path: Path, place: str
) -> None:
    output = place.format(tmp_path if "subset" in place else tmp_path.name)
    command = ("select", scored[1], "--documents", "4", "-o", output)
    assert ladm(*command).exit_code == 0
    assert ladm(*command).exit_code == 0
    system, path = fsspec.url_to_fs(output)
    for name in system.find(path):
        if not name.endswith(("/manifest.json", "/README.md")):
            system.rm(name)
    again = ladm(*command)
    assert (again.exit_code, again.stderr) == (
        1,
        f"ladm: {output} has a manifest, but its rows are missing; remove it, and run the same command again\n",
    )


def test_a_command_that_was_stopped_after_its_commit_can_be_repeated(
    ladm: Command, scored: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("select", scored[1], "--documents", "4", "-o", tmp_path / "subset")

    def stop(_folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(destination, "sync_folder", stop)
        assert ladm(*command).exit_code == 130
    before = states(tmp_path / "subset")
    again = ladm(*command)
    assert again.exit_code == 0, again.output
    assert again.stdout.splitlines()[-1] == f"subset: {tmp_path}/subset"
    assert states(tmp_path / "subset") == before


def test_an_address_too(ladm: Command, scored: tuple[str, Path]) -> None:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    command = ("select", scored[1], "--documents", "4", "--format", "jsonl", "-o", "memory://bucket/subset")
    first = ladm(*command)
    assert first.exit_code == 0, first.output
    created = memory.created("/bucket/subset/manifest.json")
    again = ladm(*command)
    assert (again.exit_code, again.stdout) == (0, first.stdout)
    assert memory.created("/bucket/subset/manifest.json") == created
    other = ladm(*command[:3], "3", *command[4:])
    refused = (1, "ladm: memory://bucket/subset exists already; give another --output\n")
    assert (other.exit_code, other.stderr) == refused


def test_another_command_or_other_data_are_refused(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    subset = tmp_path / "subset"
    command = ("select", scored[1], "--documents", "4", "-o", subset)
    assert ladm(*command).exit_code == 0
    before = states(subset)
    other = ladm(*command, "--format", "jsonl")
    refused = (1, f"ladm: {subset} exists already; give another --output, or --overwrite to replace the subset\n")
    assert (other.exit_code, other.stderr) == refused
    # The same words, and another score in the same place.
    assert ladm("rescore", scored[1], "--reduce", "median", "-o", tmp_path / "median").exit_code == 0
    shutil.rmtree(scored[1])
    (tmp_path / "median").rename(scored[1])
    changed = ladm(*command)
    message = (
        f"ladm: {subset} exists already: it was made from other data: {scored[1]} has other content now; give another "
        "--output, or --overwrite to replace the subset\n"
    )
    assert (changed.exit_code, changed.stderr) == (1, message)
    assert states(subset) == before
    # What is no manifest, or half of one, says nothing about a command.
    for content in (b"", b"[]", b"{\n", (subset / "manifest.json").read_bytes()[:200]):
        (subset / "manifest.json").write_bytes(content)
        found = ladm(*command)
        assert (found.exit_code, found.stderr) == refused


CHANGED = "{} exists already: it was made from other data: {} other content now; give another --output, or --overwrite "
CHANGED += "to replace the subset"


def test_the_file_that_has_changed_is_named(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    weights, drop, values = tmp_path / "w.yaml", tmp_path / "drop.txt", tmp_path / "q.csv"
    weights.write_text("domain 0: 2\n'*': 1\n")
    drop.write_text("n0\n")
    values.write_text("id,q\nn1,1\nn2,2\nn4,3\nn5,4\n")
    profile = write_profile(scored[1], tmp_path / "p.yaml", {"length": (0.0, 0.0, 999.0), "score": (0.0, 0.0, 9.0)})
    subset = tmp_path / "subset"
    command = (
        "select", scored[1], "--documents", "3", "--quota", weights, "--exclude-ids", drop, "--join", f"a={values}",
        "--within", "a.q:1-", "--profile", profile, "--within", "length:profile", "-o", subset,
    )  # fmt: skip
    assert ladm(*command).exit_code == 0
    made = read_manifest(subset)
    assert made.quota_weights == {"domain 0": 2, "*": 1}
    assert made.profile == {"file": str(profile), "xxh3_128": file_xxh3(profile)}
    # A profile has a checksum, so that another one is written with the same values in another form.
    changes = {
        weights: ("domain 0: 1\n'*': 1\n", f"--quota {weights} has"),
        drop: ("n1\n", f"--exclude-ids {drop} has"),
        values: ("id,q\nn1,1\nn2,2\nn4,3\nn5,5\n", f"--join a={values} has"),
        profile: (f"# mine\n{profile.read_text()}", f"profile {profile} has"),
    }
    for path, (content, what) in changes.items():
        had = path.read_text()
        path.write_text(content)
        again = ladm(*command)
        assert (again.exit_code, again.stderr.splitlines()[-1]) == (1, f"ladm: {CHANGED.format(subset, what)}")
        path.write_text(had)
    assert ladm(*command).exit_code == 0
    # Comments and the order of lines are no other weights.
    weights.write_text("# mine\n'*': 1\ndomain 0: 2\n")
    assert ladm(*command).exit_code == 0
    for path in (weights, drop):
        path.write_text(changes[path][0])
    both = f"--quota {weights}, --exclude-ids {drop} have"
    assert ladm(*command).stderr.endswith(f"\nladm: {CHANGED.format(subset, both)}\n")
    drop.write_text("n0\n")
    # A manifest of an earlier version has no weights, which says nothing about them.
    manifest = subset / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["quota_weights"]
    # One that was edited may hold anything.
    for lists in (content["id_lists"], ["x"], [{"option": [], "file": {}}]):
        manifest.write_text(json.dumps(content | {"id_lists": lists}, indent=1))
        assert "it was made from other data, or by another version of ladm; give" in ladm(*command).stderr


def test_a_subset_of_an_earlier_version_is_that_of_the_command(
    ladm: Command, scored: tuple[str, Path], tmp_path: Path
) -> None:
    weights = tmp_path / "w.yaml"
    weights.write_text("domain 0: 2\n'*': 1\n")
    profile = write_profile(scored[1], tmp_path / "p.yaml", {"score": (0.0, 0.0, 9.0)})
    subset = tmp_path / "subset"
    command = ("select", scored[1], "--documents", "3", "--quota", weights, "--profile", profile, "--within", "profile")
    assert ladm(*command, "-o", subset).exit_code == 0
    made, chosen = read_manifest_and_chosen(subset)
    rows = [ChosenRows(data=each["data"], positions=[each["positions"]], ids=[each["ids"]]) for each in chosen]
    whole = (subset / "manifest.json").read_bytes()
    write_manifest(subset, made, rows)
    assert (subset / "manifest.json").read_bytes() == whole
    for lacking in ({"quota_weights": None}, {"profile": None}, {"quota_weights": None, "profile": None}):
        write_manifest(subset, replace(made, **lacking), rows)  # type: ignore[arg-type]
        before = states(subset)
        again = ladm(*command, "-o", subset)
        assert again.exit_code == 0, (lacking, again.output)
        found = in_python(
            scored[1], documents=3, quota=str(weights), profile=profile, within="profile", output=subset
        )  # fmt: skip
        assert found.ids() == [name for each in chosen for name in each["ids"]], lacking
        assert states(subset) == before
    # What it does record still counts: the quotas by domain are others.
    weights.write_text("domain 0: 9\n'*': 1\n")
    refused = f"ladm: {subset} exists already: it was made from other data, or by another version of ladm; give another"
    assert refused in ladm(*command, "-o", subset).stderr


def test_a_joined_run_that_has_changed_is_named(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    other, subset = tmp_path / "other", tmp_path / "subset"
    assert ladm("rescore", scored[1], "--reduce", "median", "-o", other).exit_code == 0
    command = ("select", scored[1], "--documents", "3", "--by", "b.score", "--join", f"b={other}", "-o", subset)
    assert ladm(*command).exit_code == 0
    shutil.rmtree(other)
    assert ladm("rescore", scored[1], "--reduce", "mean", "--layers", "0", "-o", other).exit_code == 0
    assert ladm(*command).stderr == f"ladm: {CHANGED.format(subset, f'--join b={other} has')}\n"


def test_a_subset_that_was_edited_is_not_that_of_the_command(
    ladm: Command, scored: tuple[str, Path], tmp_path: Path
) -> None:
    command = ("select", scored[1], "--documents", "4", "-o", tmp_path / "subset")
    assert ladm(*command).exit_code == 0
    path = tmp_path / "subset" / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"n0"', b'"n9"').replace(b'"n1"', b'"n8"'))
    found = ladm(*command)
    assert (found.exit_code, "exists already: it was made from other data" in found.stderr) == (1, True)


def test_an_upload_that_failed_is_tried_again(
    scored: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads: list[Path] = []

    def push(folder: Path, repository: str, *, remedy: str) -> None:
        uploads.append(folder)
        if len(uploads) == 1:
            raise LadmError(f"--push {repository}: gone; {remedy}")

    monkeypatch.setattr(writing, "push_subset", push)
    given: dict[str, Any] = {"documents": 4, "push": "org/subset", "output": tmp_path / "subset"}
    with pytest.raises(LadmError, match="--push org/subset: gone"):
        in_python(scored[1], **given)
    before = states(tmp_path / "subset")
    made = in_python(scored[1], **given)
    assert made.manifest.taken_documents == 4
    assert uploads == [tmp_path / "subset"] * 2
    assert states(tmp_path / "subset") == before


def test_overwrite_replaces_a_subset_and_nothing_else(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    subset, fresh = tmp_path / "subset", tmp_path / "fresh"
    command = ("select", scored[1], "--documents")
    assert ladm(*command, "4", "--format", "jsonl", "-o", subset).exit_code == 0
    replaced = ladm(*command, "3", "-o", subset, "--overwrite")
    assert replaced.exit_code == 0, replaced.output
    assert "--overwrite" not in (subset / "manifest.json").read_text()
    # As if nothing had been there, so that the command without the flag finds its own subset.
    assert ladm(*command, "3", "-o", fresh).exit_code == 0
    assert {path.name for path in subset.rglob("*")} == {path.name for path in fresh.rglob("*")}
    assert (subset / "SHA256SUMS").read_bytes() == (fresh / "SHA256SUMS").read_bytes()
    before = states(subset)
    assert ladm(*command, "3", "-o", subset).exit_code == 0
    assert states(subset) == before
    # A budget that the pool does not have costs no subset.
    assert ladm(*command, "4000", "-o", subset, "--overwrite").exit_code == 1
    assert states(subset) == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    refused = ladm(*command, "3", "-o", tmp_path / "other", "--overwrite")
    message = f"ladm: {tmp_path / 'other'} exists already; give another --output\n"
    assert (refused.exit_code, refused.stderr) == (1, message)
    address = ladm(*command, "3", "--format", "jsonl", "-o", "memory://bucket/x", "--overwrite")
    message = "ladm: --overwrite needs a folder of this machine, not an address; give another --output"
    assert (address.exit_code, address.stderr.splitlines()[0]) == (2, message)
