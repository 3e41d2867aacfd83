"""The address of the Hub -> why it cannot be reached, found out in seconds. Imports no torch.

Without a network the Hub's clients repeat each request for 25 s, and a name that was meant as a path makes several.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit
from urllib.request import getproxies

_REMEMBERED_SECONDS = 30.0
_lock = threading.Lock()
_found: list[tuple[float, str, str | None]] = []
"""When the latest look was, at which address, and its result."""


def hub_problem() -> str | None:
    """Why the Hub cannot be reached; None where it answers, or where only a request can show whether it does.

    Such as behind a proxy, or offline by `HF_HUB_OFFLINE`. `HF_ENDPOINT` may name another Hub. One that does not take
    a connection within `HF_HUB_ETAG_TIMEOUT` (10 s) cannot be reached: no request is given more time for it.
    """
    from huggingface_hub import constants

    try:
        address = urlsplit(constants.ENDPOINT)
        port = address.port or (80 if address.scheme == "http" else 443)
    except ValueError as error:
        return f"HF_ENDPOINT is {constants.ENDPOINT}: {error}"
    if constants.HF_HUB_OFFLINE or not address.hostname or {address.scheme, "all"} & getproxies().keys():
        return None
    with _lock:
        now = time.monotonic()
        if not _found or _found[0][1] != constants.ENDPOINT or now - _found[0][0] > _REMEMBERED_SECONDS:
            problem = _connection_problem(address.hostname, port, seconds=constants.HF_HUB_ETAG_TIMEOUT)
            _found[:] = [(time.monotonic(), constants.ENDPOINT, problem)]
        return _found[0][2]


def _connection_problem(host: str, port: int, *, seconds: float) -> str | None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return f"{host}: {error.strerror or error}"
    # Of a name that no host can have.
    except ValueError as error:
        return f"{host}: {error}"
    # One address of each family, because some networks have no way for one of the two.
    addresses = list({family: address for family, *_, address in reversed(found)}.items())
    problem = f"{host}: it has no address"
    for family, address in addresses:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as connection:
                connection.settimeout(seconds / len(addresses))
                connection.connect(address)
            return None
        except OSError as error:
            problem = f"{host}: {error.strerror or error}"
    return problem


@contextlib.contextmanager
def cached_data_sets_alone() -> Iterator[None]:
    """Let `datasets` look in its cache and send no request, as `HF_HUB_OFFLINE` does for a whole process."""
    import datasets

    # Nothing is put back to what another thread found in the meantime.
    with _offline_lock:
        before, datasets.config.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE, True
        try:
            yield
        finally:
            datasets.config.HF_HUB_OFFLINE = before


_offline_lock = threading.RLock()
