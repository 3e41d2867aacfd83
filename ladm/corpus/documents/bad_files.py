"""Files -> those that cannot be read to their end, found before any of their documents is used. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from ladm.corpus.documents.sources import Source
from ladm.corpus.documents.whole_files import require_whole
from ladm.corpus.files.names import name_as_text
from ladm.corpus.files.saved_shards import torn_shards
from ladm.errors import StorageError
from ladm.progress import Echo
from ladm.storage.files import io_errors, write_whole
from ladm.storage.json_object import json_with_checksum, read_json_object


class BadFiles:
    """The files that are left out, and why; stored at `path`, so that a resume leaves out the same ones."""

    def __init__(self, path: Path, *, most: int, text_key: str, echo: Echo) -> None:
        self._path, self._most, self._text_key, self._echo = path, most, text_key, echo
        self.messages: dict[str, str] = dict(read_json_object(path)) if path.exists() else {}

    def __contains__(self, source: Source) -> bool:
        """Is it a file that cannot be read? Reads it to its end where that is the only way to know.

        Half a torn file must never be taken for a whole one, hence before its first document is used. Raises
        StorageError when there are more such files than allowed.
        """
        if name_as_text(source.name) in self.messages:
            return True
        try:
            require_whole(source, text_key=self._text_key)
        except StorageError as error:
            self.leave_out(source.name, error)
            return True
        if source.kind == "dataset" and Path(source.name).is_dir():
            # The other shards of a saved data set are read: each is a file of its own.
            for shard, message in torn_shards(source.name, split=source.split).items():
                if shard not in self.messages:
                    self.leave_out(shard, StorageError(message))
        return False

    def leave_out(self, name: str, error: StorageError) -> None:
        """Record and report that a file is left out. Raises `error` where that would exceed `--max-bad-files`."""
        if len(self.messages) >= self._most:
            raise error
        self.messages[name_as_text(name)] = name_as_text(str(error))
        self._echo(f"warning   {error}; the file is left out")
        with io_errors(self._path, "write"):
            write_whole(self._path, [json_with_checksum(self.messages)])
