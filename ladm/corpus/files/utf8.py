"""The bytes of a text file -> its text, or an error that says how to make the file UTF-8. Imports no torch."""

from __future__ import annotations

import codecs

from ladm.errors import StorageError

_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""The first bytes of a file by its encoding; those of UTF-32 begin with those of UTF-16."""


def utf8_text(name: str, content: bytes) -> str:
    """The text of the file `name`. Raises StorageError for another encoding."""
    require_no_other_mark(name, content)
    try:
        # With -sig: the mark that Windows puts in front of UTF-8 is no part of the text.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The bytes do not say which encoding they are in, so the commonest one is named with an if. Windows-1252 has
        # all letters of Latin-1, and the quotes and dashes that files called Latin-1 often have.
        # The mark is not counted in the position.
        mark = len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0
        wrong = f"byte 0x{error.object[error.start]:02x} at {error.start + mark:,}"
        raise StorageError(
            f"cannot read {name}: it is not UTF-8 ({wrong}); if it is Latin-1 or Windows-1252, convert it: iconv -f "
            "WINDOWS-1252 -t UTF-8"
        ) from None


def require_no_other_mark(name: str, beginning: bytes) -> None:
    """Raise StorageError where the first bytes of a file show that it is UTF-16 or UTF-32."""
    for mark, encoding in _MARKS.items():
        if beginning.startswith(mark):
            raise StorageError(f"cannot read {name}: it is {encoding}; convert it: iconv -f {encoding} -t UTF-8")
