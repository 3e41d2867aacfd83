"""A URL -> its host: `example.com` of `http://user@Example.com:8080/page`. Imports no numpy."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from urllib.parse import urlsplit

LONGEST_AUTHORITY = 1000
"""Characters of user, host and port together. A host has at most 253; where there are more, it is some other text."""
_FLAGS = re.ASCII | re.IGNORECASE
_SLASHES = r"(?:[a-z][a-z0-9+.-]*:)?//"
_END = r"(?:[/?#]|\Z)"
# Nearly all URLs of a corpus, for which `urlsplit` would take ten times as long.
_PLAIN = re.compile(rf"{_SLASHES}([a-z0-9_.-]{{0,252}}[a-z0-9_-])\.*{_END}", _FLAGS)
_BEGINNING = re.compile(rf"(?P<slashes>{_SLASHES})?(?P<authority>[^/?#]{{1,{LONGEST_AUTHORITY}}}){_END}", _FLAGS)
# What stands around brackets is an error to some versions of Python only.
_BRACKETS = re.compile(r"(?:[^\[\]]*@)?\[[^\[\]]*\](?::.*)?")
# Not what a browser shows of other scripts, which has marks besides letters, and not the percent sign of its encoding.
_IN_NO_HOST = re.compile(r"[\s\x00-\x20!\"#$&'()*+,/:;<=>?@\[\\\]^`{|}~\x7f\ufffd]")
# A number such as 7.5 is no host, nor is a text of one word.
_CLEARLY_HOST = re.compile(r"[^.].*\.[^\W\d_][^.]+|\d{1,3}(?:\.\d{1,3}){3}")


def host_of(text: str) -> str | None:
    """The host of a URL; None where there is none.

    Lower case, without user, port, the brackets of IPv6 and dots at the end; otherwise as it is written: with `www.`,
    and neither decoded from nor encoded into the `xn--` of IDNA. `example.com/page` and `//example.com/page` are URLs
    too; without `//` a host has a dot and ends in a name of letters, such as com, or is an IPv4 address.
    """
    text = text.strip()
    plain = _PLAIN.match(text)
    if plain is not None:
        return plain[1].lower()
    found = _BEGINNING.match(text)
    return None if found is None else _host_in(found["authority"], has_slashes=found["slashes"] is not None)


def _host_in(authority: str, *, has_slashes: bool) -> str | None:
    # Without // it is an e-mail address.
    if "@" in authority and not has_slashes:
        return None
    try:
        # It leaves the case of what is behind a percent sign, as in %E4.com.
        host = (urlsplit(f"//{authority}").hostname or "").lower().rstrip(".")
        if "[" in authority:
            return str(IPv6Address(host)) if _BRACKETS.fullmatch(authority) else None
    # Brackets without an end or an address, and letters that stand for signs such as a slash.
    except ValueError:
        return None
    if not host or _IN_NO_HOST.search(host) or not (has_slashes or _CLEARLY_HOST.fullmatch(host)):
        return None
    return host
