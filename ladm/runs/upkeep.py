"""A run folder -> how far it is, whether it is sound; its failed rows taken back, or all of it removed. No torch."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from ladm.corpus.rows import open_rows
from ladm.errors import IncompleteError, LadmError
from ladm.runs.folder import (
    IDENTITY_FILE,
    INSPECTED,
    OWN_LEFTOVERS,
    OWN_UNIT_FILES,
    PAGE_MARK,
    REPORT_FILE,
    Run,
    Unit,
    read_if_there,
)
from ladm.runs.lines import encode_line, read_lines
from ladm.runs.results import (
    ERRORS_FILE,
    PARQUET_FILE,
    SORTED_FILE,
    columns_of,
    is_finished,
    json_line,
    read_scores,
    result_line,
)
from ladm.scoring.engines.shard import units_held
from ladm.storage.files import MARKED_BYTES, SORTING, naming, sync_folder, write_whole

RATE_OVER_UNITS = 64
ROWS_AT_A_TIME = 10_000
_ERROR_LINE = re.compile(rb'^\{"position": \d+, "status": "error", .*$', re.MULTILINE)
_OWN = re.compile(rf"run\.json|{OWN_LEFTOVERS.pattern}|report\.html\.[0-9a-f]+\.partial")
_OF_INSPECT = re.compile(r"\d+\.json(\.[0-9a-f]+\.partial)?")


@dataclass
class Status:
    """How far a run is. `rows_a_second` is over the units sealed last, None before the second of them."""

    finished: bool
    units: int
    sealed: int
    rows: int
    done: int
    errors: Counter[str] = field(default_factory=Counter)
    rows_a_second: float | None = None
    held: dict[int, str] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float | None:
        """At the rate of late, None where there is none."""
        return None if not self.rows_a_second else (self.rows - self.done) / self.rows_a_second


def status(run: Run) -> Status:
    """Read how far a run is, without a lock; a run that is being worked on may be further by the time it is told."""
    _require_rescored_whole(run)
    waiting = {unit.number for unit in run.unsealed()}
    found = Status(
        finished=is_finished(run),
        units=len(run.units),
        sealed=len(run.units) - len(waiting),
        rows=run.num_rows,
        done=0,
        held=units_held(run),
    )
    if is_rescored(run):
        found.sealed, found.done = found.units, run.num_rows
        with (run.folder / ERRORS_FILE).open("rb") as lines:
            found.errors.update(json.loads(line)["error_type"] for line in lines)
        return found
    sealed_at: list[tuple[float, int]] = []
    holders = run.holders()
    for unit in run.units:
        path = run.sealed_path(unit)
        if unit.number in waiting:
            found.done += _count_open(holders.get(unit.number, []), found.errors)
        else:
            with contextlib.suppress(FileNotFoundError):
                found.done += unit.stop - unit.start
                sealed_at.append((path.stat().st_mtime, unit.stop - unit.start))
                found.errors.update(_error_types(path.read_bytes()))
    found.rows_a_second = _rate(sorted(sealed_at)[-RATE_OVER_UNITS:])
    return found


def _count_open(paths: list[Path], errors: Counter[str]) -> int:
    """Whole lines of an unfinished unit: those of the holder who is furthest."""
    best = b""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            content = path.read_bytes()
            best = max(best, content[: content.rfind(b"\n") + 1], key=len)
    errors.update(_error_types(best))
    return best.count(b"\n")


def _error_types(content: bytes) -> Iterator[str]:
    """The kinds of the rows without a score among the lines of a unit."""
    for line in _ERROR_LINE.findall(content):
        with contextlib.suppress(ValueError, KeyError):
            yield json.loads(line)["error_type"]


def _require_rescored_whole(run: Run) -> None:
    """Raise IncompleteError for what a rescoring left that was stopped."""
    if is_rescored(run) and not is_finished(run):
        raise IncompleteError(f"{run.folder} is not finished: run its ladm rescore again")


def is_rescored(run: Run) -> bool:
    """Was it made by `ladm rescore`? Then it has results and no units."""
    return "rescored_from" in run.identity.get("about", {})


def _rate(sealed_at: list[tuple[float, int]]) -> float | None:
    """Rows a second of these units, from the times between their seals; a pause of the run is not counted."""
    gaps = [(later - earlier, rows) for (earlier, _), (later, rows) in itertools.pairwise(sealed_at)]
    if not gaps:
        return None
    usual = sorted(gap for gap, _ in gaps)[len(gaps) // 2]
    counted = [(gap, rows) for gap, rows in gaps if gap <= max(20 * usual, 1.0)]
    seconds = sum(gap for gap, _ in counted)
    return sum(rows for _, rows in counted) / seconds if seconds > 0 else None


def verify(run: Run, *, deep: bool) -> Iterator[str]:
    """What is wrong with a run, a line each; nothing when all is well.

    Checksums of every line of every unit, that every row is there once, that the result files hold
    exactly what the units hold; `deep`: that model and rows are still those of the identity. An
    unfinished run is looked at as far as it is.
    """
    _require_rescored_whole(run)
    lines: dict[int, int] = {}
    errors: list[bytes] = []
    unfinished = False
    holders = run.holders() if not is_rescored(run) else {}
    for unit in run.units if not is_rescored(run) else ():
        try:
            if run.sealed_path(unit).exists():
                for record in run.read_sealed(unit):
                    if record["status"] == "ok":
                        lines[record["position"]] = xxhash.xxh3_64_intdigest(result_line(record).encode())
                    else:
                        errors.append(json_line(record))
            else:
                unfinished = True
                for path in holders.get(unit.number, ()):
                    _read_open(path, unit)
        except LadmError as error:
            yield str(error)
    if is_finished(run):
        yield from _verify_results(run, None if is_rescored(run) or unfinished else (lines, errors))
        if unfinished:
            yield f"{run.folder} has results, and units of it are missing"
    if deep:
        yield from _verify_identity(run)


def _read_open(path: Path, unit: Unit) -> None:
    try:
        read_if_there(path, unit)
    except LadmError as error:
        raise LadmError(f"{error}; without that file its rows are scored again") from None


def _verify_results(run: Run, expected: tuple[dict[int, int], list[bytes]] | None) -> Iterator[str]:
    """Do the result files hold the rows of the units, and the same ones, in order?"""
    sorted_path = run.folder / SORTED_FILE
    try:
        table = read_scores(run.folder, columns_of(run.folder))
        error_lines = (run.folder / ERRORS_FILE).read_bytes().splitlines(keepends=True)
    except LadmError as error:
        yield str(error)
        return
    if not {"position", "score"} <= set(table.column_names):
        yield f"{run.folder / PARQUET_FILE} is damaged: it has columns {', '.join(table.column_names)}"
        return
    scores, positions = table["score"].to_pylist(), table["position"].to_pylist()
    if scores != sorted(scores, reverse=True):
        yield f"{run.folder / PARQUET_FILE} is not in order"
    if len(set(positions)) != len(positions):
        yield f"{run.folder / PARQUET_FILE} has a row twice"
    if len(positions) + len(error_lines) != run.num_rows:
        yield f"{run.folder}: {len(positions)} scores and {len(error_lines)} errors are not {run.num_rows} rows"
    rows = (row for batch in table.to_batches(ROWS_AT_A_TIME) for row in batch.to_pylist())
    with sorted_path.open("rb") as lines:
        for count, (line, row) in enumerate(itertools.zip_longest(lines, rows), 1):
            if line is None or row is None or not _is_line(line, row):
                yield f"{sorted_path}, line {count}, and row {count} of {PARQUET_FILE} do not say the same"
                return
            if expected is not None and not _is_of_unit(line, count, expected[0].get(row["position"])):
                yield f"{sorted_path} is damaged at line {count}: it is not what the unit holds"
                return
    if expected is not None and error_lines != expected[1]:
        yield f"{run.folder / ERRORS_FILE} is not what the units hold"


def _is_line(line: bytes, row: dict[str, Any]) -> bool:
    """Do a line of the sorted file and a row of the Parquet file say the same?"""
    try:
        shown = {key: value for key, value in row.items() if key != "position"}
        return bool(json.loads(line) == shown | {"meta": json.loads(row["meta"])})
    except (ValueError, KeyError, TypeError):
        return False


def _is_of_unit(line: bytes, rank: int, expected: int | None) -> bool:
    front = f'{{"rank": {rank}, '.encode()
    return line.startswith(front) and xxhash.xxh3_64_intdigest(line[len(front) : -1]) == expected


def _verify_identity(run: Run) -> Iterator[str]:
    from ladm.modeling.facts import model_facts, model_identity

    about = run.identity["about"]
    try:
        if model_identity(model_facts(about["model"]).folder) != run.identity["model"]["sha256"]:
            yield f"the model {about['model']} is no longer the one that scored"
    except LadmError as error:
        yield f"the model cannot be compared: {error}"
    try:
        if open_rows(about["rows"], limit=run.num_rows).identity() != run.identity["data"]:
            yield f"the rows {about['rows']} are no longer those that were scored"
    except LadmError as error:
        yield f"the rows cannot be compared: {error}"


def forget_errors(run: Run) -> int:
    """Take back every row without a score, so that it is tried again; returns how many there were.

    Only for who holds the folder. Killed at any moment it leaves the run resumable.
    """
    taken = 0
    unsealed = {unit.number for unit in run.unsealed()}
    for unit in run.units:
        path = run.open_path(unit) if unit.number in unsealed else run.sealed_path(unit)
        if not path.exists():
            continue
        records, _ = read_lines(path, start=unit.start, stop=unit.stop)
        kept = [record for record in records if record["status"] == "ok"]
        if len(kept) == len(records):
            continue
        taken += len(records) - len(kept)
        _remove(run.folder, SORTED_FILE, PARQUET_FILE, ERRORS_FILE)
        write_whole(run.open_path(unit), [encode_line(record) for record in kept])
        if unit.number not in unsealed:
            with naming(path, "remove"):
                path.unlink()
                sync_folder(path.parent)
    return taken


def delete_run(folder: Path) -> None:
    """Remove a run: the files that a run is made of, and nothing else.

    Raises LadmError where there is no run, or where its folder holds something else besides.
    """
    Run.read(folder)
    results = {SORTED_FILE, PARQUET_FILE, ERRORS_FILE}
    if _is_page(folder / REPORT_FILE):
        results.add(REPORT_FILE)
    ours = {*results, INSPECTED}
    others = [p.name for p in folder.iterdir() if p.name not in ours and not _OWN.fullmatch(p.name)]
    others += [f"units/{p.name}" for p in (folder / "units").glob("*") if not OWN_UNIT_FILES.fullmatch(p.name)]
    others += [f"{INSPECTED}/{p.name}" for p in (folder / INSPECTED).glob("*") if not _OF_INSPECT.fullmatch(p.name)]
    if others:
        raise LadmError(
            f"{folder} holds more than a run ({sorted(others)[0]}); move that away, or give another --output"
        )
    # The results first and the identity last: stopped anywhere in between it is still a run.
    _remove(folder, *results)
    with naming(folder, "remove from"):
        for path in [*(folder / "units").glob("*"), *folder.glob("*.partial")]:
            path.unlink(missing_ok=True)
        if (folder / "units").exists():
            sync_folder(folder / "units")
        if (folder / INSPECTED).exists():
            shutil.rmtree(folder / INSPECTED)
        for left in folder.iterdir():
            if SORTING.fullmatch(left.name):
                shutil.rmtree(left)
    _remove(folder, IDENTITY_FILE)


def _is_page(path: Path) -> bool:
    """Is it a page of ours, and not a file of somebody's with that name?"""
    return path.is_file() and PAGE_MARK.encode() in path.read_bytes()[:MARKED_BYTES]


def _remove(folder: Path, *names: str) -> None:
    with naming(folder, "remove from"):
        for name in names:
            (folder / name).unlink(missing_ok=True)
        sync_folder(folder)


def describe(found: Status) -> dict[str, Any]:
    """The status as JSON."""
    return {
        "finished": found.finished, "units": found.units, "sealed": found.sealed, "rows": found.rows,
        "done": found.done, "errors": dict(found.errors), "rows_a_second": found.rows_a_second,
        "seconds_left": found.seconds_left, "held": found.held,
    }  # fmt: skip
