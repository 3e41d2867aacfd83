"""Records of one unit -> its file, appended a batch at a time, then sealed under its final name. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from ladm.runs.folder import Run, Unit
from ladm.runs.lines import encode_line, read_lines
from ladm.runs.records import Record
from ladm.runs.unsealed import holder_files, rows_of_holders
from ladm.storage.files import Appender, io_errors, sync_folder
from ladm.storage.gone import is_gone


class UnitWriter:
    """An unfinished unit being written. `done` holds the position of every row that is durable.

    In a run that launches share, each `holder` of a unit has a file that nobody else ever writes,
    starting with the rows that earlier holders made durable. A holder that was taken for lost and comes
    back can therefore not spoil the work of the next one; of several that seal the unit the first wins.
    """

    def __init__(self, run: Run, unit: Unit, *, holder: str = "") -> None:
        self._path = run.open_path(unit, holder)
        self._sealed = run.sealed_path(unit)
        self._unit, self._shared = unit, bool(holder)
        lines, size = read_lines(self._path, start=unit.start, stop=unit.stop) if self._path.exists() else ([], 0)
        self.done: set[int] = set()
        # Opening cuts the file to `size`: a torn tail goes, and its rows are scored again.
        self._file = Appender(self._path, size=size)
        try:
            self._add_done(line.record for line in lines)
            if holder:
                others = rows_of_holders(unit, holder_files(run).get(unit.number, ()))
                missing = [record for record in others if record.position not in self.done]
                if missing:
                    self.append(missing)
        except BaseException:
            self.close()
            raise

    def append(self, records: Sequence[Record]) -> None:
        """Make a batch of rows durable: one write of whole lines, one fsync."""
        for record in records:
            if record.position in self.done:
                raise RuntimeError(f"row {record.position} written twice")
        self._file.append(b"".join(encode_line(record) for record in records))
        self._add_done(records)

    def _add_done(self, records: Iterable[Record]) -> None:
        self.done.update(record.position for record in records)

    def seal(self) -> None:
        """Commit the unit, which must hold all its rows."""
        if len(self.done) != self._unit.stop - self._unit.start:
            raise RuntimeError(f"unit {self._unit.number} sealed with {len(self.done)} rows")
        with io_errors(self._sealed, "seal"):
            if self._shared:
                self._seal_once()
            else:
                # The content is durable since the last append. Rename before fsync of the folder: a crash in
                # between leaves the old name or the new one, and both hold every row.
                os.rename(self._path, self._sealed)
                sync_folder(self._sealed.parent)

    def _seal_once(self) -> None:
        """Give the file its sealed name unless another holder was first: a rename would replace that holder's."""
        try:
            os.link(self._path, self._sealed)
        except OSError as error:
            # Another holder has sealed the unit, and may have removed this file already.
            if not (isinstance(error, FileExistsError) or is_gone(error)) or not self._sealed.exists():
                raise
        sync_folder(self._sealed.parent)
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        self._file.close()
