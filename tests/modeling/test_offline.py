"""Names of the Hub on a machine that cannot reach it: one line within seconds, and the cache is still read."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import datasets
import pytest
from click.testing import Result
from huggingface_hub import constants

from ladm.modeling import hub_access
from support.documents import DOCUMENTS, write_jsonl
from support.rows import rows_of


class ConnectError(Exception):
    """As the Hub's client raises."""


PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of a machine with a network and without a proxy, of which nothing is remembered."""
    monkeypatch.setattr(hub_access, "_found", [])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def closed() -> Iterator[str]:
    """An address that takes no connection."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def test_only_what_is_certain_is_a_problem(monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", closed)
    assert hub_access.hub_problem() == "127.0.0.1: Connection refused"
    monkeypatch.setattr(constants, "ENDPOINT", "https://no-such-host.invalid")
    assert str(hub_access.hub_problem()).startswith("no-such-host.invalid: ")
    # A proxy may find what this machine does not, and whoever is offline on purpose knows.
    with monkeypatch.context() as patch:
        patch.setenv("HTTPS_PROXY", "http://proxy.invalid:3128")
        assert hub_access.hub_problem() is None
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert hub_access.hub_problem() is None
    for wrong in ("http://localhost:99999", "http://[::1", f"http://{'a' * 70}.org"):
        monkeypatch.setattr(constants, "ENDPOINT", wrong)
        assert hub_access.hub_problem(), wrong
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert hub_access.hub_problem() is None


def test_a_hub_without_an_answer_gets_the_time_of_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    class Silent(socket.socket):
        def connect(self, _address: Any) -> None:
            given.append(self.gettimeout())
            raise TimeoutError("timed out")

    monkeypatch.setattr(hub_access.socket, "socket", Silent)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 7)
    assert (hub_access.hub_problem(), given) == ("127.0.0.1: timed out", [7.0])


@pytest.mark.parametrize(
    "missing",
    ["source", pytest.param("tokenizer", marks=pytest.mark.slow), pytest.param("rows", marks=pytest.mark.slow)],
)
def test_a_name_that_is_nothing_fails_within_seconds(
    tmp_path: Path, tokenizer: str, golden_lm: Path, closed: str, missing: str
) -> None:  # fmt: skip
    source = write_jsonl(tmp_path / "d.jsonl", DOCUMENTS)
    words = {
        "source": ("prepare", "nowhere", "--tokenizer", tokenizer),
        "tokenizer": ("prepare", str(source), "--tokenizer", "nowhere"),
        "rows": ("score", "org/nowhere", "--model", str(golden_lm)),
    }[missing]
    names = {name for name in os.environ if name.lower() not in PROXIES} - {"HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"}
    environment = {name: os.environ[name] for name in names} | {"HF_ENDPOINT": closed, "HF_HOME": str(tmp_path / "hub")}
    found = subprocess.run(
        [sys.executable, "-m", "ladm", *words, "-o", "out"], cwd=tmp_path, env=environment, capture_output=True,
        text=True, timeout=100, check=False,
    )  # fmt: skip
    what, here = ("tokenizer", "a folder here") if missing == "tokenizer" else ("data set", "a file nor a folder here,")
    name = "org/nowhere" if missing == "rows" else "nowhere"
    assert (found.returncode, found.stdout, found.stderr) == (
        1,
        "",
        f"ladm: no such {what}: {name} is neither {here} nor in the cache, and the Hub cannot be reached "
        "(127.0.0.1: Connection refused)\n",
    )
    assert not (tmp_path / "out").exists()


def test_a_data_set_in_the_cache_is_read(
    ladm: Callable[..., Result], tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:  # fmt: skip
    monkeypatch.setattr(constants, "ENDPOINT", closed)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    was_offline = []

    def cached(*_arguments: Any, **_keywords: Any) -> Any:
        was_offline.append(datasets.config.HF_HUB_OFFLINE)
        return datasets.DatasetDict(train=datasets.Dataset.from_list(DOCUMENTS))

    monkeypatch.setattr(
        "datasets.load_dataset_builder", Mock(side_effect=lambda *_, **__: Mock(config=cached() and None))
    )
    monkeypatch.setattr("datasets.load_dataset", cached)
    result = ladm("prepare", "org/set", "--tokenizer", tokenizer, "--length", "40", "--output", tmp_path / "rows")
    assert result.exit_code == 0, result.output
    assert len(rows_of(tmp_path / "rows")) == len(DOCUMENTS)
    assert set(was_offline) == {True}
    assert datasets.config.HF_HUB_OFFLINE is False


@pytest.mark.parametrize(
    "address", ["hf://datasets/org/set/d.jsonl", "hf://datasets/org/set", "hf://datasets/org/set/*"]
)
def test_an_address_of_the_hub_is_no_traceback(
    ladm: Callable[..., Result], tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:  # fmt: skip
    # Neither an OSError nor one of Python's own.
    monkeypatch.setattr("fsspec.url_to_fs", Mock(side_effect=ConnectError("Connection refused")))
    result = ladm("prepare", address, "--tokenizer", tokenizer, "--output", tmp_path / "rows")
    assert (result.exit_code, result.stderr) == (1, f"ladm: no such source: {address}: Connection refused\n")
