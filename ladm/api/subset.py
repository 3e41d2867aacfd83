"""`ladm.Subset`: what `ladm.select` wrote. Imports no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ladm.errors import LadmError

if TYPE_CHECKING:
    from ladm.selection.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Subset:
    """What `ladm.select` wrote, or with `dry_run` would have written."""

    folder: Path | str
    """A text where the subset is at an address such as s3://bucket/subset, which is no path of this machine."""
    manifest: Manifest

    def __repr__(self) -> str:
        # The last line of a notebook's cell is shown, and the manifest would fill a screen.
        taken = f"taken_documents={self.manifest.taken_documents}, taken_tokens={self.manifest.taken_tokens}"
        return f"{type(self).__name__}(folder={str(self.folder)!r}, {taken})"

    def __fspath__(self) -> str:
        return str(self.folder)

    def ids(self) -> list[str | int]:
        """The `id` of each chosen row, in the order of the subset, run after run; its `index` where it has no id.

        Reads `manifest.json`, which has them. Raises LadmError after a dry run, where the folder holds another subset
        by now, and where the subset is at an address.
        """
        if not isinstance(self.folder, Path):
            raise LadmError(f"{self.folder} is not a folder on this machine; its manifest.json has the ids")
        return [name for part in _chosen(self.folder, self.manifest) or () for name in part["ids"]]

    def require_written(self) -> None:
        """Raise LadmError where a folder of this machine does not hold this subset; an address is not looked at."""
        if isinstance(self.folder, Path):
            _chosen(self.folder, self.manifest)


def _chosen(folder: Path, manifest: Manifest) -> Any:
    """The rows that the subset in `folder` lists, run by run. Raises LadmError where its manifest is another."""
    from ladm.selection.changed_inputs import as_recorded_by
    from ladm.selection.manifest_file import read_manifest_and_chosen

    found, chosen = read_manifest_and_chosen(folder)
    # A dry run writes nothing where an earlier subset may be, and a later call with `overwrite` replaces this one.
    there = found.as_json()
    own = as_recorded_by({name: value for name, value in there.items() if value is not None}, manifest)
    if json.dumps(there) != json.dumps(own.as_json()):
        raise LadmError(f"{folder} holds another subset: this one was a dry run, or has been replaced since")
    return chosen
