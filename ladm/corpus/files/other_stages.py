"""Names given as documents or rows -> an error where one is what another command reads or wrote. Imports no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ladm.corpus.files.data_set import FILES_OF_A_SAVED_SET
from ladm.errors import LadmError, UsageError
from ladm.settings.pipeline import JOB_FILE, ROWS, SCORES
from ladm.storage.json_object import read_json_object

WORK_FOLDER = ".preparing"
"""Of a preparation that is not finished, in the folder of its rows."""
# Written by stages that come after this one, whose modules must not be imported here.
_RUN, _UNITS, MANIFEST = "run.json", "units", "manifest.json"
_WITHOUT_TEXT = ("megatron", "npy")
"""Formats of a subset that hold token ids alone; the others can be prepared again, with another tokenizer."""
_FILES_OF_A_SUBSET = ("*.bin", "*.npy", "data", *FILES_OF_A_SAVED_SET)
"""Each format of a subset has one of these."""


def require_documents(names: Iterable[str]) -> None:
    """Raise UsageError, with the command that was meant, for a run, a job or a subset without texts."""
    for name in names:
        folder = Path(name)
        if (folder / _RUN).is_file() and (folder / _UNITS).is_dir():
            raise UsageError(
                f"{name} is a run of ladm score, not documents; choose its best documents with: ladm select {name} "
                "--tokens N -o subset"
            )
        if _is_job(folder):
            raise UsageError(
                f"{name} is a job of ladm run, not documents; choose other documents of it with: ladm select {name} "
                "--tokens N -o subset"
            )
        form = format_of_subset(folder)
        if form in _WITHOUT_TEXT:
            raise UsageError(
                f"{name} is a subset in the format {form}, which has no texts; write one that has them: ladm select "
                "RUN --tokens N --format parquet -o SUBSET"
            )


def require_finished_rows(name: str) -> None:
    """Raise LadmError, with the command that was meant, for what is no data set of rows but known to be something else.

    That is a file, a run, a job, a subset in another format, or the output of a `ladm prepare` that was stopped.
    """
    place = Path(name)
    if any((place / file).exists() for file in FILES_OF_A_SAVED_SET):
        return
    problem = None
    if place.is_file():
        problem = (
            f"is a file, not a folder of rows; make rows of documents: ladm prepare {name} --tokenizer MODEL -o ROWS"
        )
    elif (place / _RUN).is_file():
        problem = "is a run of ladm score, not rows; give the rows that it scored"
    elif _is_job(place):
        has_rows = any((place / ROWS / file).exists() for file in FILES_OF_A_SAVED_SET)
        advice = f"its rows are {place / ROWS}" if has_rows else "give the rows that it scored"
        problem = f"is a job of ladm run, not rows; {advice}"
    elif (place / WORK_FOLDER).is_dir():
        problem = "has no rows yet: its ladm prepare was stopped; run that command again"
    elif (form := format_of_subset(place)) is not None:
        problem = (
            f"is a subset in the format {form}, but rows are read from the format arrow; select again with --format "
            "arrow"
        )
    if problem is not None:
        raise LadmError(f"{name} {problem}")


def documents_as_rows(name: str, file: Path) -> str:
    """Why `file`, which `name` is or has in it, is not read as rows, and how rows are made of it."""
    if file.suffix == ".parquet" and has_token_ids(file):
        files = name if Path(name).is_file() else Path(name) / "*.parquet"
        return f"{file} has token ids, but {_rows_of_parquet(files)}"
    return (
        f"{file} holds documents, not rows of token ids; make rows of them first: ladm prepare {name} --tokenizer "
        "MODEL -o rows"
    )


def has_token_ids(file: Path) -> bool:
    """Is it a Parquet file on this machine with a column of token ids?"""
    # A file that is no Parquet is for `ladm prepare`, which says what is wrong with it.
    with contextlib.suppress(OSError, pa.ArrowException):
        return "input_ids" in pq.read_schema(file).names
    return False


def first_with_token_ids(names: Iterable[str]) -> str | None:
    """The first of these Parquet files that is on this machine; None where it has no token ids.

    One is enough, because the files of a corpus are alike, and there may be very many.
    """
    name = next((name for name in names if Path(name).is_file()), None)
    return name if name is not None and has_token_ids(Path(name)) else None


def ids_without_texts(file: str, text_key: str) -> str:
    """Why no documents are read from a Parquet file of token ids, and how rows are made of it."""
    return f"{file} has token ids and no {text_key}, but {_rows_of_parquet(file)}"


def _rows_of_parquet(files: str | Path) -> str:
    return (
        "rows are read from a folder saved by the datasets library; make one in Python: load_dataset('parquet', "
        f"data_files='{files}').save_to_disk('rows')"
    )


def _is_job(folder: Path) -> bool:
    # Somebody's own settings, next to documents, may have the same name.
    return (folder / JOB_FILE).is_file() and any((folder / name).is_dir() for name in (ROWS, SCORES))


def format_of_subset(folder: Path) -> str | None:
    """The format of a subset that `ladm select` wrote; None for any other folder."""
    path = folder / MANIFEST
    # Many programs write a manifest.json; only next to what one of these formats has is it worth reading.
    if not path.is_file() or not any(any(folder.glob(pattern)) for pattern in _FILES_OF_A_SUBSET):
        return None
    try:
        manifest = read_json_object(path)
    except LadmError:
        return None
    return str(manifest["format"]) if {"format", "taken_tokens"} <= manifest.keys() else None
