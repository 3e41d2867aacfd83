"""Names of files -> what they hold, and which of them are documents. Imports no torch."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from pathlib import PurePath, PurePosixPath
from typing import Literal
from urllib.parse import unquote

_JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
_PACKED_SUFFIXES = (".gz", ".zst", ".bz2", ".xz")
_ABOUT_DATA = frozenset(
    "dataset_dict.json state.json dataset_info.json dataset_infos.json prepare.json dropped.jsonl manifest.json".split()
)
"""What programs write beside data."""
_UNREAD_DATA = frozenset("csv tsv arrow feather orc avro zip tar tgz 7z rar xml warc h5 npy npz pkl sqlite bin".split())
"""Ends of names of files that may be the corpus, in a form that is not read."""
_NEVER_TEXT = _UNREAD_DATA | frozenset(
    "pdf ps djvu epub mobi doc docx odt rtf ppt pptx xls xlsx ods png jpg jpeg gif webp bmp tif tiff ico mp3 wav flac "
    "ogg mp4 mkv avi mov webm exe dll so o a pyc class jar whl deb rpm iso pt pth safetensors gguf".split()
)
"""Ends of names of files that are no plain text; read as one, each would be an error about its encoding."""
_CARDS = frozenset(
    "readme license licence licenses copying copyright notice authors citation contributing changelog changes "
    "code_of_conduct security checksums sha256sums md5sums".split()
)
_PARTITION_KEY = re.compile(r"[A-Za-z_][\w%.-]*")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""What a folder is called whose files have no value for the key."""


def name_as_text(name: str) -> str:
    r"""The name of a file as JSON can hold it: `caf\xe9.txt` where a byte of it is no UTF-8.

    Such a byte is half of a surrogate pair to Python, which opens the file by it, and no text to anything else.
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def kind_of(name: str) -> Literal["json", "parquet", "text"] | None:
    """The kind of a file, as its name says; None: no kind that is read."""
    bare = without_packing(name)
    if bare.endswith(_JSON_SUFFIXES):
        return "json"
    if bare.endswith(".parquet"):
        return "parquet"
    return "text" if bare.endswith((".txt", ".md")) else None


def may_be_text(name: str) -> bool:
    """May a file of no known kind be one plain text, such as book.tex, util.py or `copyright`?"""
    # `https://.../a.jsonl?download=true` holds JSON, although its kind is not known by its end.
    path = name.partition("?")[0] if "://" in name else name
    return kind_of(path) is None and _suffix(path)[1:] not in _NEVER_TEXT


def is_named_text(name: str, pattern: str) -> bool:
    """Does a glob ask for this file as a text: by its suffix, `src/**/*.[ch]`, or by its whole name, `*/copyright`?

    A glob such as `d/*` asks for no kind of file, and not for the scripts that stand beside data.
    """
    base, wanted = PurePosixPath(name).name, PurePosixPath(pattern).name
    if base.startswith(".") or not may_be_text(base):
        return False
    suffix, wanted_suffix = _suffix(base), _suffix(wanted)
    asks = suffix and any(map(str.isalnum, wanted_suffix)) and fnmatch.fnmatchcase(suffix, wanted_suffix)
    return bool(asks) or (base == wanted and "://" not in name)


def _suffix(name: str) -> str:
    return PurePosixPath(without_packing(name)).suffix


def partition_of(name: str) -> dict[str, str]:
    """`lake/lang=en/year=2024/a.parquet` -> `{"lang": "en", "year": "2024"}`: what Hive, Spark and DuckDB write so."""
    found = {}
    for part in name.split("/")[:-1]:
        key, is_there, value = part.partition("=")
        if is_there and _PARTITION_KEY.fullmatch(key) and value not in ("", _NO_VALUE):
            found[unquote(key)] = unquote(value)
    return found


def suffix_with_packing(name: str) -> str:
    """The end of a file's name that a pattern must have: `.tex`, `.TEX` or `.tex.gz`; empty where there is none."""
    packed = PurePosixPath(name).suffix if is_packed_name(name) else ""
    suffix = PurePosixPath(name.removesuffix(packed)).suffix
    return suffix and suffix + packed


def without_packing(name: str) -> str:
    """The name in lower case, without `.gz` and the like."""
    bare = name.lower()
    for suffix in _PACKED_SUFFIXES:
        bare = bare.removesuffix(suffix)
    return bare


def is_packed_name(name: str) -> bool:
    """Does the name say that the file is compressed?"""
    return name.lower().endswith(_PACKED_SUFFIXES)


def is_document(file_name: str) -> bool:
    """Is it read where a folder or a glob leads to it?"""
    return bool(kind_of(file_name)) and not file_name.startswith(".") and file_name not in _ABOUT_DATA


def without_cards(names: Iterable[str]) -> list[str]:
    """The names that are no card or licence; all of them where there is nothing else.

    A folder may be nothing but a file called README.md, and then that is the document.
    """
    found = list(names)
    return [name for name in found if not _is_card(PurePosixPath(name))] or found


def is_beside_data(path: PurePath) -> bool:
    """Is it a file that is left out where it is named beside data: a card, a licence, a script?

    A table or an archive is none, and is refused, because half of the corpus may be in it.
    """
    if kind_of(path.name) is not None:
        return _is_card(path) or not is_document(path.name)
    return path.name.startswith(".") or _suffix(path.name)[1:] not in _UNREAD_DATA


def is_about_data(file_name: str) -> bool:
    """Is it a card or a licence, whatever its kind, or a record that a program wrote beside data?"""
    return file_name in _ABOUT_DATA or _has_name_of_card(file_name)


def _is_card(path: PurePath) -> bool:
    return kind_of(path.name) == "text" and _has_name_of_card(path.name)


def _has_name_of_card(file_name: str) -> bool:
    """Such as README.md, LICENSE and LICENSE-MIT.txt."""
    return file_name.split(".")[0].split("-")[0].lower() in _CARDS
