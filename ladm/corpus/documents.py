"""Sources -> documents with text and meta, in order: JSONL (.gz, .zst), Parquet, text, a data set, a Hub id.

Every path may be anything fsspec opens. Imports no torch.
"""

from __future__ import annotations

import glob
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import fsspec
import pyarrow.parquet as pq

from ladm.corpus.data_set import load_train_split
from ladm.errors import LadmError, StorageError, one_line
from ladm.modeling.facts import HUB_ID

_JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
_PACKED_SUFFIXES = (".gz", ".zst", ".bz2", ".xz")
_BATCH_ROWS = 256


@dataclass(frozen=True)
class Source:
    """One file, or one data set. `key` changes when its content does, as far as that is quick to see."""

    name: str
    kind: Literal["json", "parquet", "text", "dataset"]
    key: str


@dataclass(frozen=True)
class Document:
    """A record of a source, and where it is for messages. `fields` is None for a line that is not a JSON object."""

    where: str
    fields: dict[str, Any] | None


def find_sources(names: list[str]) -> list[Source]:
    """The files behind file names, folders, globs and Hub ids, in a fixed order.

    Raises LadmError for a name that is none of these, or a folder without a file of a known kind.
    """
    sources: list[Source] = []
    for name in names:
        sources += _find(name)
    return sources


def _find(name: str) -> list[Source]:
    path = Path(name)
    if path.is_dir():
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            return [Source(name, "dataset", "")]
        files = [str(file) for file in sorted(path.rglob("*")) if file.is_file() and _kind(file.name)]
        if not files:
            raise LadmError(f"{name} holds no .jsonl, .parquet or .txt file and is no data set saved by save_to_disk")
        return [_file(file) for file in files]
    if not path.exists() and _is_pattern(name):
        found = _matching(name)
        if not found:
            raise LadmError(f"no such source: {name} matches no file")
        return [source for each in found for source in ([_file(each)] if "://" in each else _find(each))]
    if path.is_file() or "://" in name:
        return [_file(name)]
    if not path.exists() and HUB_ID.fullmatch(name) and not _kind(name):
        return [Source(name, "dataset", "")]
    raise LadmError(f"no such source: {name} is neither a file, a folder nor a Hub id such as org/name")


def _is_pattern(name: str) -> bool:
    # In an address `?` and `[` have meanings of their own.
    return any(sign in name for sign in ("*" if "://" in name else "*?["))


def _matching(pattern: str) -> list[str]:
    """What a glob matches, in the order of the names."""
    if "://" not in pattern:
        return sorted(glob.glob(pattern, recursive=True))
    try:
        system, path = fsspec.url_to_fs(pattern)
        return [str(system.unstrip_protocol(found)) for found in sorted(system.glob(path))]
    except (OSError, ValueError, ImportError) as error:
        raise LadmError(f"no such source: {pattern}: {one_line(error)}") from None


def _file(name: str) -> Source:
    kind = _kind(name)
    if kind is None:
        raise LadmError(f"{name}: unknown kind of file; its name must end in .jsonl, .parquet or .txt (.gz, .zst)")
    try:
        system, path = fsspec.url_to_fs(name)
        info = system.info(path)
        local = "mtime" in info and "ino" in info
        return Source(name, kind, f"{info['size']} {info['mtime']}" if local else str(system.ukey(path)))
    except (OSError, ValueError, ImportError) as error:
        raise LadmError(f"no such source: {name}: {one_line(error)}") from None


def _kind(name: str) -> Literal["json", "parquet", "text"] | None:
    bare = name.lower()
    for suffix in _PACKED_SUFFIXES:
        bare = bare.removesuffix(suffix)
    if bare.endswith(_JSON_SUFFIXES):
        return "json"
    if bare.endswith(".parquet"):
        return "parquet"
    return "text" if bare.endswith((".txt", ".md")) else None


def read_documents(source: Source, *, text_key: str, domain_key: str) -> Iterator[Document]:
    """The documents of a source, in its order. A text file is one document, whose text is under `text_key`.

    Of tables only the columns of text, domain and `meta` are read. Raises StorageError for a file that cannot be
    read to its end.
    """
    columns = {key.split(".")[0] for key in (text_key, domain_key)} | {"meta"}
    try:
        if source.kind == "json":
            yield from _json(source.name)
        elif source.kind == "parquet":
            yield from _parquet(source.name, columns)
        elif source.kind == "text":
            with fsspec.open(source.name, "rt", encoding="utf-8", compression="infer") as file:
                yield Document(source.name, _nested(text_key, file.read()))
        else:
            yield from _dataset(source.name, columns)
    except LadmError:
        raise
    except Exception as error:
        # Each of gzip, zstandard, Arrow and the file systems behind fsspec raises exceptions of its own.
        raise StorageError(f"cannot read {source.name}: {one_line(error)}") from None


def _nested(key: str, value: str) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}  # type: ignore[assignment]
    return value  # type: ignore[return-value]


def _json(name: str) -> Iterator[Document]:
    with fsspec.open(name, "rb", compression="infer") as file:
        # The zstandard reader has no lines of its own.
        lines = io.BufferedReader(file) if name.lower().endswith(".zst") else file
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield Document(f"{name} line {number}", _json_object(line))


def _json_object(line: bytes) -> dict[str, Any] | None:
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


def _parquet(name: str, columns: set[str]) -> Iterator[Document]:
    with fsspec.open(name, "rb") as file:
        table = pq.ParquetFile(file)
        present = [column for column in table.schema_arrow.names if column in columns]
        number = 0
        for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=present):
            for fields in batch.to_pylist():
                yield Document(f"{name} row {number}", fields)
                number += 1


def _dataset(name: str, columns: set[str]) -> Iterator[Document]:
    dataset = load_train_split(name).with_format(None)
    present = [column for column in dataset.column_names if column in columns]
    for number, fields in enumerate(dataset.select_columns(present)):
        yield Document(f"{name} row {number}", dict(fields))
