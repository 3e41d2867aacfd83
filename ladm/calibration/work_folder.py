"""The folder of a calibration or a check: the contrast set and its run, kept so that a stopped command resumes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from ladm.calibration.contrast import ContrastRow
from ladm.corpus.rows.reading import open_rows
from ladm.errors import InterruptedRunError, LackOfMemoryError, LadmError, LockedError, StorageError
from ladm.runs.folder import Run
from ladm.runs.layout import IDENTITY_FILE
from ladm.storage.files import data_set_path, io_errors, sync_tree
from ladm.storage.folder_seal import require_undamaged, seal_folder
from ladm.storage.locks import locked
from ladm.storage.output_folder import OutputFolder

CONTRAST, RUN = "contrast", "run"
DIGESTS = "digests.json"
"""In the folder of the contrast set, what its other files are to be compared with."""
MARK = ".ladm-calibration"
_PARTIAL_MARK = r"\.ladm-calibration\.[0-9a-f]+\.partial"
"""The name under which a killed call may have left it."""


def require_work_folder(folder: Path, *, rows: str | None) -> None:
    """Accept a folder that an earlier call created, or one that can be created. Raises LadmError for any other.

    Nothing is written, so that what is refused later leaves nothing behind.
    """
    output = _output_folder(folder)
    if output.is_started:
        return
    # Otherwise a later cleanup of the work files would remove the rows with them.
    if rows is not None and folder.resolve() in (Path(rows).resolve(), *Path(rows).resolve().parents):
        raise LadmError(f"{folder} contains the rows {rows}; give another folder for the work files")
    output.require_own_or_empty()


def claim_work_folder(folder: Path) -> bool:
    """Create the folder, which `require_work_folder` has accepted; returns False where an earlier call created it."""
    # It holds no settings: `save_contrast` compares the contrast set, and `score` what its run was started with.
    content = b"Work files of ladm calibrate or ladm check; this folder can be removed.\n"
    return not _output_folder(folder).is_started and _output_folder(folder).claim(content)


def is_scored(folder: Path) -> bool:
    """Is the run of an earlier call in the folder, finished?"""
    return (folder / RUN / IDENTITY_FILE).is_file() and Run.read(folder / RUN).is_finished


@contextlib.contextmanager
def remove_when_refused(folder: Path) -> Iterator[None]:
    """Claim the folder, and remove what a block wrote in it where that refuses the work, unless it was there before."""
    was_there = folder.exists()
    is_new = claim_work_folder(folder)
    try:
        yield
    except (StorageError, InterruptedRunError, LockedError, LackOfMemoryError):
        # The same command goes on with what is there.
        raise
    except LadmError:
        if is_new:
            # The folder was empty when it was claimed: everything in it is from here. The mark goes last, so that a
            # kill in between leaves a folder that the next call accepts.
            for path in folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
            if was_there:
                folder.mkdir(exist_ok=True)
        raise


def _output_folder(folder: Path) -> OutputFolder:
    return OutputFolder(
        folder, record=MARK, leftovers=_PARTIAL_MARK, remedy="give an empty folder for the work files"
    )  # fmt: skip


def save_contrast(contrast: list[ContrastRow], folder: Path) -> None:
    """Write the rows to `folder`/contrast as `ladm score` reads them; the same rows of an earlier call stay.

    Raises LadmError when other rows are there, StorageError when they are not as they were written, and LockedError
    while another process writes them.
    """
    from datasets import Dataset

    target, partial = folder / CONTRAST, folder / f"{CONTRAST}.partial"
    columns = {
        "input_ids": [row.ids for row in contrast],
        "index": list(range(len(contrast))),
        # For `ladm compare --kinds kind --cluster package`. The identity of the rows does not depend on them.
        "kind": [row.kind for row in contrast],
        "package": [row.packages[0] for row in contrast],
        "meta": [
            {"kind": row.kind, "half": row.half, "document": row.document, "packages": list(row.packages)}
            for row in contrast
        ],
    }
    # First, because damaged rows would be taken for those of other documents.
    if target.exists():
        remedy = f"remove {target}, and run the same command again to recreate it"
        require_undamaged(target, seal=DIGESTS, remedy=remedy)
    with locked(folder), io_errors(target, "write"):
        if partial.exists():
            shutil.rmtree(partial)
        # Written in full even when a set is there: its digest, over ids and meta, decides whether the run in the
        # folder belongs to the documents and the seed of this call.
        Dataset.from_dict(columns).save_to_disk(data_set_path(partial))
        if target.exists():
            if open_rows(str(target)).identity() != open_rows(str(partial)).identity():
                raise LadmError(
                    f"{folder} was started with other documents or another seed; remove it, or give another folder"
                )
            shutil.rmtree(partial)
        else:
            seal_folder(partial, seal=DIGESTS)
            sync_tree(partial)
            partial.rename(target)
