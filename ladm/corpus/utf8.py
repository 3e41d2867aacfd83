"""The bytes of a text file -> its text, or an error that says how to make the file UTF-8. Imports no torch."""

from __future__ import annotations

from ladm.errors import StorageError

_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def utf8_text(name: str, content: bytes) -> str:
    """The text of the file `name`. Raises StorageError for another encoding."""
    require_no_utf16(name, content)
    try:
        # With -sig: the mark that Windows puts in front of UTF-8 is no part of the text.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The bytes do not say which encoding they are in, so the commonest one is named with an if. Windows-1252 has
        # all letters of Latin-1, and the quotes and dashes that files called Latin-1 often have.
        wrong = f"byte 0x{error.object[error.start]:02x} at {error.start:,}"
        raise StorageError(
            f"cannot read {name}: it is not UTF-8 ({wrong}); if it is Latin-1 or Windows-1252, make it UTF-8: "
            "iconv -f WINDOWS-1252 -t UTF-8"
        ) from None


def require_no_utf16(name: str, beginning: bytes) -> None:
    """Raise StorageError where the first bytes of a file show that it is UTF-16."""
    if beginning.startswith(_UTF_16_MARKS):
        raise StorageError(f"cannot read {name}: it is UTF-16; make it UTF-8: iconv -f UTF-16 -t UTF-8")
