"""`ladm.Subset`: what `ladm.select` wrote. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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

        Reads `manifest.json`, which has them. Raises LadmError after a dry run, and where the subset is at an address.
        """
        from ladm.selection.manifest_file import read_manifest_and_chosen

        if not isinstance(self.folder, Path):
            raise LadmError(f"{self.folder} is not a folder on this machine; its manifest.json has the ids")
        _, chosen = read_manifest_and_chosen(self.folder)
        return [name for part in chosen or () for name in part["ids"]]
