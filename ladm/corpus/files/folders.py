"""A folder, here or in a store -> the files in it that are documents, in a fixed order. Imports no torch."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path, PurePath, PurePosixPath

import fsspec

from ladm.corpus.files.data_set import is_saved
from ladm.corpus.files.names import is_about_data, is_document, kind_of, without_cards
from ladm.corpus.files.skipped import SkippedFiles
from ladm.errors import LadmError, StorageError, one_line, raise_if_out_of_memory


def documents_below(folder: Path, own: Path | None, skipped_files: SkippedFiles) -> list[Path]:
    """The files of a folder that are documents, in the order of their names; links to folders are followed."""
    found: list[Path] = []
    # Links after the folders themselves, whose files keep their names then, and each once: a link may lead back.
    waiting, seen = [folder], set[str]()
    while waiting:
        for parent, folders, names in os.walk(waiting.pop(0), onerror=_refuse_unreadable):
            if os.path.realpath(parent) in seen:
                folders.clear()
                continue
            seen.add(os.path.realpath(parent))
            below = Path(parent)
            # Pruned here, so that os.walk never enters them: a notebook's copies, a cache, our own output.
            shown = sorted(
                name
                for name in folders
                if not name.startswith(".") and (own is None or os.path.realpath(below / name) != os.path.realpath(own))
            )
            folders[:] = [name for name in shown if not is_saved(below / name)]
            for name in set(shown) - set(folders):
                skipped_files.add_data_set(str(below / name))
            waiting += [below / name for name in folders if (below / name).is_symlink()]
            found += [below / name for name in names if is_document(name)]
            for name in names:
                require_target(str(below / name))
                skipped_files.add_file(str(below / name))
    return [Path(name) for name in kept_documents(map(str, sorted(found)), skipped_files)]


def require_target(name: str) -> None:
    """Raise LadmError for a link to nothing that may stand for documents, by its name a file or a folder of them.

    Such as one to a disk that is not mounted: half of the corpus may be behind it.
    """
    base = PurePath(name).name
    may_be_documents = is_document(base) or not (base.startswith(".") or PurePath(base).suffix or is_about_data(base))
    if may_be_documents and os.path.islink(name) and not os.path.exists(name):
        raise LadmError(
            f"no such source: {name} is a broken link to {os.readlink(name)}; remove it, or list the other files by "
            "name"
        )


def require_listable(pattern: str) -> None:
    """Raise StorageError for a folder of this machine in which a glob looks for names, and that cannot be listed."""
    while glob.has_magic(pattern):
        pattern = os.path.dirname(pattern)
        # With a slash at its end it matches folders alone.
        for folder in glob.glob(os.path.join(pattern, ""), recursive=True):
            try:
                os.scandir(folder).close()
            except OSError as error:
                _refuse_unreadable(error)


def _refuse_unreadable(error: OSError) -> None:
    """Raise StorageError for a folder that cannot be listed; os.walk and glob would pass over it without a word."""
    # Only the system may read that one, at the root of many disks, and no documents are in it.
    if PurePath(error.filename).name != "lost+found":
        raise StorageError(
            f"cannot read the folder {error.filename}: {error.strerror}; make it readable, or list the others by name"
        ) from None


def kept_documents(names: Iterable[str], skipped_files: SkippedFiles) -> list[str]:
    """Like `without_cards`. Cards beside texts are counted, because there a card may be a document of the corpus."""
    found = list(names)
    kept = without_cards(found)
    if any(kind_of(name) == "text" for name in kept):
        skipped_files.add_cards(set(found) - set(kept))
    return kept


def remote_documents_below(address: str, skipped_files: SkippedFiles) -> list[str] | None:
    """The addresses of the documents below a folder in a store such as S3, in the order of their names.

    None where the address is that of a file, or of nothing.
    """
    try:
        system, folder = fsspec.url_to_fs(address)
        if not system.isdir(folder):
            return None
        below = sorted(system.find(folder))
        inside = len(PurePosixPath(folder).parts)
        # A hidden folder hides what is in it.
        shown = [path for path in below if not any(p.startswith(".") for p in PurePosixPath(path).parts[inside:])]
        documents = [path for path in shown if is_document(PurePosixPath(path).name)]
        # To HTTP a page with links is a folder as well as a file.
        if not documents and system.isfile(folder):
            return None
        for path in shown:
            skipped_files.add_file(path)
        return [str(system.unstrip_protocol(path)) for path in kept_documents(documents, skipped_files)]
    except Exception as error:
        raise no_such_source(address, error) from None


def no_documents(folder: str, skipped_files: SkippedFiles, *, nor: str = "") -> LadmError:
    """The error for a folder without a document; `nor`: what else it is not."""
    there = f"; it has {skipped_files.words}" if skipped_files.words else ""
    how = skipped_files.how_to_read(folder)
    return LadmError(f"{folder} holds no .jsonl, .parquet or .txt file{nor}{there}{how}")


class NoSourceError(LadmError):
    """There are no documents behind a name."""


def no_such_source(name: str, error: Exception) -> NoSourceError:
    """The error for an address: each store's client raises exceptions of its own. Raises LackOfMemoryError."""
    raise_if_out_of_memory(error, action=f"look for {name}")
    return NoSourceError(f"no such source: {name}: {one_line(error)}")
