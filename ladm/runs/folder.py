"""A run folder: its identity and its units of rows. Imports no torch.

    run.json            the identity, created once, never rewritten
    units/000007.open   rows of an unfinished unit, appended a batch at a time, each batch fsynced
    units/000007.jsonl  a sealed unit: the name is the commit
    units/000007.claim-0, 000007.open-0-5f3c    only while several launches share the run

A line is what `lines.py` says.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladm.errors import IncompleteError, LadmError, StorageError
from ladm.runs.identity import FORMAT, RunIdentity
from ladm.runs.lines import encode_line, read_lines, read_texts
from ladm.storage.files import PARTIAL_SUFFIX, SORTING, Appender, create_once, io_errors, sync_folder, write_whole
from ladm.storage.identity import require_same

IDENTITY_FILE = "run.json"
INSPECTED = "inspected"
REPORT_FILE = "report.html"
"""What `ladm inspect` and `ladm report` leave in a run folder."""
PAGE_MARK = '<meta name="generator" content="ladm report">'
"""What a page of ours has near its beginning."""
INSPECTED_FORMAT = 1
MANIFEST_FILE = "manifest.json"
"""What `ladm select` leaves beside a subset."""
OWN_PARTIALS = re.compile(r"(run\.json|sorted_by_score\.jsonl|scores\.parquet|errors\.jsonl)\.[0-9a-f]+\.partial")
OWN_UNIT_FILES = re.compile(
    r"\d{6,}\.(jsonl|open(-\d+-[0-9a-f]+)?(\.[0-9a-f]+)?(\.partial)?|claim-\d+(\.[0-9a-f]+\.partial)?)|\.nfs[0-9a-f]+"
)
"""What may be in the folder of the units; the last is what a network file system makes of a file removed in use."""
_SHARED = re.compile(r"\.(claim-|open-)|\.partial$")
OWN_LEFTOVERS = re.compile(
    rf"\.lock|\.workers|\.finishing-\d+(\.[0-9a-f]+\.partial)?|\.holder|{SORTING.pattern}|{OWN_PARTIALS.pattern}|units"
)
UNITS_AIMED_AT = 4096
FEWEST_UNIT_ROWS, MOST_UNIT_ROWS = 16, 1024


def unit_rows_for(num_rows: int) -> int:
    """Rows in a unit: a function of the data alone, so that any number of workers may resume."""
    return min(max(-(-num_rows // UNITS_AIMED_AT), FEWEST_UNIT_ROWS), MOST_UNIT_ROWS)


@dataclass(frozen=True)
class Unit:
    """Rows `start` to `stop - 1` of the data, sealed together."""

    number: int
    start: int
    stop: int


class Run:
    """An existing run folder."""

    def __init__(self, folder: Path, identity: RunIdentity) -> None:
        self.folder = folder
        self.identity = identity
        self.num_rows = identity.num_rows
        self.unit_rows = identity.unit_rows

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Open a run for reading. Raises LadmError where there is none."""
        path = folder / IDENTITY_FILE
        if not path.is_file():
            raise LadmError(f"{folder} is not a run: it has no {IDENTITY_FILE}")
        with io_errors(path, "read"):
            content = path.read_bytes()
        try:
            found = json.loads(content)
            if found["format"] != FORMAT:
                raise LadmError(f"{path}: format {found['format']}, and this version reads {FORMAT}")
            return cls(folder, RunIdentity(found))
        except (ValueError, KeyError, TypeError):
            raise StorageError(f"{path} is damaged: not a run's identity") from None

    @classmethod
    def create_or_resume(cls, folder: Path, identity: RunIdentity) -> Run:
        """Create the run, or resume the one that is there when its identity is the same.

        `identity.about` is for people and not compared.
        Raises LadmError with every field that differs.
        """
        refuse_foreign(folder)
        content = json.dumps(identity.content, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        with io_errors(folder, "create"):
            (folder / "units").mkdir(parents=True, exist_ok=True)
            sync_folder(folder)
        if create_once(folder / IDENTITY_FILE, content):
            return cls(folder, identity)
        run = cls.read(folder)
        require_same(folder, run.identity.content, json.loads(content))
        return run

    def forget_if_empty(self) -> None:
        """Take the identity back while no unit has begun, so that a start that failed binds nobody."""
        if not any((self.folder / "units").iterdir()):
            (self.folder / IDENTITY_FILE).unlink(missing_ok=True)

    @property
    def units(self) -> list[Unit]:
        """All units, in the order of the data."""
        starts = range(0, self.num_rows, self.unit_rows)
        return [Unit(k, start, min(start + self.unit_rows, self.num_rows)) for k, start in enumerate(starts)]

    def sealed_path(self, unit: Unit) -> Path:
        return self.folder / "units" / f"{unit.number:06d}.jsonl"

    def open_path(self, unit: Unit, holder: str = "") -> Path:
        return self.folder / "units" / f"{unit.number:06d}.open{f'-{holder}' if holder else ''}"

    def claim_path(self, unit: Unit, generation: int) -> Path:
        return self.folder / "units" / f"{unit.number:06d}.claim-{generation}"

    def unsealed(self) -> list[Unit]:
        """Units that still have work."""
        with io_errors(self.folder / "units", "list"):
            names = set(os.listdir(self.folder / "units"))
        return [unit for unit in self.units if self.sealed_path(unit).name not in names]

    def adopt_shared(self) -> None:
        """Make what sharers left behind into units of one's own; only for who holds the folder alone.

        The rows of all holders of a unit go into a new file, so that a holder who is not gone after
        all writes into one that nobody reads.
        """
        with io_errors(self.folder / "units", "tidy"):
            names = [path for path in (self.folder / "units").iterdir() if OWN_UNIT_FILES.fullmatch(path.name)]
            left = [path for path in names if _SHARED.search(path.name)]
            numbers = {int(path.name.partition(".")[0]) for path in left}
            holders = self.holders() if numbers else {}
            for unit in self.units if numbers else ():
                if unit.number in numbers and not self.sealed_path(unit).exists():
                    rows = self.rows_of_holders(unit, holders.get(unit.number, ()))
                    write_whole(self.open_path(unit), map(encode_line, rows))
            for path in left:
                path.unlink(missing_ok=True)

    def holders(self) -> dict[int, list[Path]]:
        """The files of unsealed units, by the unit's number; several of one that launches share."""
        found: dict[int, list[Path]] = {}
        with io_errors(self.folder / "units", "list"):
            names = sorted(os.listdir(self.folder / "units"))
        for name in names:
            if ".open" in name and not name.endswith(PARTIAL_SUFFIX) and OWN_UNIT_FILES.fullmatch(name):
                found.setdefault(int(name.partition(".")[0]), []).append(self.folder / "units" / name)
        return found

    def rows_of_holders(self, unit: Unit, paths: Iterable[Path]) -> list[dict[str, Any]]:
        """Every row of an unsealed unit that any of its holders made safe, from their files.

        Raises StorageError for a damaged one.
        """
        rows: dict[int, dict[str, Any]] = {}
        for path in paths:
            rows = {record["position"]: record for record in read_if_there(path, unit)} | rows
        return list(rows.values())

    def read_sealed(self, unit: Unit) -> list[dict[str, Any]]:
        """The rows of a sealed unit in the order of the data. Raises as `read_sealed_texts`."""
        return [record for record, _ in self.read_sealed_texts(unit)]

    def read_sealed_texts(self, unit: Unit) -> list[tuple[dict[str, Any], str]]:
        """The rows of a sealed unit in the order of the data, each with the JSON text that it was read from.

        Raises IncompleteError when it is not sealed and StorageError, with file and offset, for
        any line that is not whole or not this unit's, and for a missing row.
        """
        path = self.sealed_path(unit)
        if not path.exists():
            raise IncompleteError(f"{self.folder} is not finished: unit {unit.number} is missing")
        lines, size = read_texts(path, start=unit.start, stop=unit.stop)
        if size != path.stat().st_size:
            raise StorageError(f"{path} is damaged at byte {size}: a sealed unit ends in the middle of a line")
        if len(lines) != unit.stop - unit.start:
            raise StorageError(f"{path} is damaged: {len(lines)} rows of {unit.stop - unit.start}")
        for record, _ in lines:
            if record["status"] == "ok" and not math.isfinite(record["score"]):
                raise StorageError(f"{path} is damaged: row {record['position']} has the score {record['score']}")
        return sorted(lines, key=lambda line: line[0]["position"])


def refuse_foreign(folder: Path) -> None:
    """Raise LadmError when `folder` exists and holds anything but a run or what a run leaves.

    Raises StorageError when it could not be created or written to.
    """
    with io_errors(folder, "use"):
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if nearest != folder or folder.is_dir():
            _require_writable(nearest, folder)
        if nearest != folder:
            return
        if not folder.is_dir():
            raise LadmError(f"{folder} is a file; give --output a folder")
        if (folder / IDENTITY_FILE).exists():
            Run.read(folder)
            return
        units = folder / "units"
        if units.is_dir() and any(units.iterdir()):
            raise LadmError(
                f"{folder} holds units of a run whose {IDENTITY_FILE} is gone; give --output another folder"
            )
        others = sorted(name for name in os.listdir(folder) if not OWN_LEFTOVERS.fullmatch(name))
    if others:
        raise LadmError(f"{folder} belongs to something else (it holds {others[0]}); give --output an empty folder")


def _require_writable(nearest: Path, folder: Path) -> None:
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        action = "write to" if nearest == folder else "create"
        raise StorageError(f"cannot {action} {folder}: {nearest} is not a folder that can be written to")


def read_if_there(path: Path, unit: Unit) -> list[dict[str, Any]]:
    """The records of a file of an unsealed unit; none where another holder has sealed it or taken it away meanwhile.

    Raises StorageError for a damaged one.
    """
    try:
        return read_lines(path, start=unit.start, stop=unit.stop)[0]
    except StorageError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOENT, errno.ESTALE):
            return []
        raise


class UnitWriter:
    """An unfinished unit being written. `done` maps the position of each row that is safe to whether it has a score.

    Each `holder` of a shared unit has a file that nobody else ever writes, begun with what others made
    safe, so that one who was taken for lost and is not cannot spoil the work of the next; of several
    who seal it the first wins.
    """

    def __init__(self, run: Run, unit: Unit, *, holder: str = "") -> None:
        self._path = run.open_path(unit, holder)
        self._sealed = run.sealed_path(unit)
        self._unit, self._shared = unit, bool(holder)
        records, size = read_lines(self._path, start=unit.start, stop=unit.stop) if self._path.exists() else ([], 0)
        self.done: dict[int, bool] = {}
        self._file = Appender(self._path, size=size)
        self._count(records)
        if holder:
            others = run.rows_of_holders(unit, run.holders().get(unit.number, ()))
            kept = [record for record in others if record["position"] not in self.done]
            if kept:
                self.append(kept)

    def append(self, records: list[dict[str, Any]]) -> None:
        """Make a batch of rows durable: one write of whole lines, one fsync."""
        for record in records:
            if record["position"] in self.done:
                raise RuntimeError(f"row {record['position']} written twice")
        self._file.append(b"".join(encode_line(record) for record in records))
        self._count(records)

    def _count(self, records: list[dict[str, Any]]) -> None:
        self.done |= {record["position"]: record["status"] == "ok" for record in records}

    def seal(self) -> None:
        """Commit the unit, which must hold all its rows."""
        if len(self.done) != self._unit.stop - self._unit.start:
            raise RuntimeError(f"unit {self._unit.number} sealed with {len(self.done)} rows")
        with io_errors(self._sealed, "seal"):
            if self._shared:
                try:
                    os.link(self._path, self._sealed)
                except (FileExistsError, FileNotFoundError):
                    if not self._sealed.exists():
                        raise
                sync_folder(self._sealed.parent)
                self._path.unlink(missing_ok=True)
            else:
                os.rename(self._path, self._sealed)
                sync_folder(self._sealed.parent)

    def close(self) -> None:
        self._file.close()
