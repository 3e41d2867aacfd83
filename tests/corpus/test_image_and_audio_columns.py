"""A data set that names files and addresses in Image or Audio columns: nothing of it is opened, by any command."""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from datasets import Audio, Dataset, Features, Image, Json, LargeList, List, Value

from ladm.cli.main import main
from ladm.corpus.files.data_set import load_split
from ladm.corpus.rows.reading import open_rows
from support.models import SMALL
from support.rows import topical_rows

Command = Callable[..., Result]
SECRET = "no output may hold this sentence"


class Listener:
    """A server on a port of this machine that counts who connects."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self.port: int = server.getsockname()[1]
        self._callers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                self._callers.put(connection.recv(100).decode(errors="replace"))

    def callers(self) -> list[str]:
        """What each of those who have connected so far sent first."""
        # Connections are accepted in order: once the last one, ours, is there, so are all before it.
        with socket.create_connection(("127.0.0.1", self.port)) as last:
            last.sendall(b"the last")
            found = [self._callers.get()]
            while found[-1] != "the last":
                found.append(self._callers.get())
        return found[:-1]


@pytest.fixture
def listener() -> Iterator[Listener]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Listener(server)
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.png"
    path.write_text(SECRET)
    return path


def hostile(rows: list[dict[str, Any]], targets: list[str], folder: Path) -> str:
    """A data set whose pictures and sounds, in columns of their own and inside meta, are at the targets."""
    stored = [{"bytes": None, "path": targets[k % len(targets)]} for k in range(len(rows))]
    plain = Features({"bytes": Value("binary"), "path": Value("string")})

    def features(picture: Any, sound: Any) -> Features:
        both = {"picture": picture, "sounds": List(sound)}
        meta = {"pile_set_name": Value("string")} | both
        kinds = {"text": Value("string"), "meta": meta, "input_ids": List(Value("int32")), "index": Value("int64")}
        return Features(kinds | both)

    made = []
    for row, at in zip(rows, stored, strict=True):
        both = {"picture": at, "sounds": [at]}
        made.append(row | both | {"meta": row["meta"] | both, "text": "w5 w6 " * 100})
    # To save it with these features would open the files. So it is saved plain, and the features are written after.
    Dataset.from_list(made, features=features(dict(plain), dict(plain))).save_to_disk(str(folder))
    path = folder / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"features": features(Image(), Audio()).to_dict()}))
    return str(folder)


FIRST = ("score", "select", "verify", "inspect", "report", "prepare")
OTHERS = ("annotate", "compare", "top", "rescore", "status", "train", "run", "evaluate")
SEARCHES = ("check", "calibrate")


def hostile_rows(golden: Any, count: int, targets: list[str], folder: Path) -> str:
    """Rows of 256 tokens, no two the same."""
    data = topical_rows(golden, [256] * count)
    for k, row in enumerate(data):
        row["input_ids"] = golden["input_ids"][k % 4][7 * k : 7 * k + 256]
    return hostile(data, targets, folder)


def commands(source: str, talking: Path, made: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Calls of every command, by its name, that read the rows or what was made of them; those of `run` come first."""
    model = ("--model", talking, *SMALL[2:-1], "8")
    length = ("--length", "64", "--tokens", "256")
    calibrating = ("--rows", source, *model)
    return {
        "score": [("score", source, *model, "--signals", "cds", "--output", made / "run")],
        "select": [("select", made / "run", "--rows", source, "--tokens", "1000", "--output", made / "subset")],
        "verify": [("verify", made / "run")],
        "inspect": [("inspect", made / "run", "--top", "1")],
        "report": [("report", made / "run", "--subset", made / "subset")],
        "prepare": [("prepare", source, "--tokenizer", talking, "--length", "64", "--output", made / "rows")],
        "annotate": [("annotate", made / "run", "--rows", source)],
        "compare": [("compare", made / "run", "--output", made / "compared.html")],
        "top": [("top", made / "run", "--rows", source)],
        "rescore": [("rescore", made / "run", "--reduce", "median", "--output", made / "rescored")],
        "status": [("status", made / "run")],
        "train": [
            ("train", "--model", talking, "--rows", source, *length, "--batch-tokens", "64", "--output", made / "new")
        ],
        "run": [("run", source, *model, *length[2:], "--output", made / "job")],
        "evaluate": [
            ("evaluate", "perplexity", "--model", talking, "--rows", source, "--windows", "128", "--dtype", "float32"),
            ("evaluate", "needle", "--model", talking, "--rows", source, "--lengths", "100", "--depths", "1",
             "--dtype", "float32", "--output", made / "needle.json"),
        ],
        "check": [("check", *calibrating, "--output", made / "check")],
        "calibrate": [("calibrate", *calibrating, "--output", made / "profile.yaml")],
    }  # fmt: skip


# A calibration needs 32 documents.
@pytest.mark.parametrize(("names", "count"), [(FIRST + OTHERS, 8), pytest.param(SEARCHES, 36, marks=pytest.mark.slow)])
def test_no_command_opens_what_a_row_names(
    ladm: Command, golden: Any, talking: Path, tmp_path: Path, secret: Path, listener: Listener,
    names: tuple[str, ...], count: int,
) -> None:  # fmt: skip
    address = f"127.0.0.1:{listener.port}/a.png"
    targets = [str(secret), f"ftp://{address}", f"http://{address}"]
    source = hostile_rows(golden, count, targets, tmp_path / "hostile")
    made = tmp_path / "made"
    made.mkdir()
    calls = commands(source, talking, made)
    for name in names:
        for words in calls[name]:
            result = ladm(*words)
            assert result.exit_code == 0, (name, result.output)
            assert SECRET not in result.output, name
            assert listener.callers() == [], name
    files = [path for path in made.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path


def test_every_command_is_among_them() -> None:
    assert set(FIRST + OTHERS + SEARCHES) == set(main.commands)


def test_the_fault_is_there_without_the_precaution(golden: Any, tmp_path: Path, secret: Path) -> None:
    """The library does open it: what the test above expects is not so by itself."""
    from datasets import load_from_disk

    source = hostile(topical_rows(golden, [512]), [str(secret)], tmp_path / "hostile")
    load_from_disk(source).save_to_disk(str(tmp_path / "copy"))
    assert any(SECRET.encode() in path.read_bytes() for path in (tmp_path / "copy").iterdir())


def test_every_kind_of_nesting_is_replaced(tmp_path: Path) -> None:
    features = Features({
        "input_ids": List(Value("int32")),
        "meta": {"deep": List({"a": LargeList(Image()), "b": Json()}), "three": List(Image(), length=1)},
    })  # fmt: skip
    at = {"bytes": b"not a picture", "path": None}
    meta = {"deep": [{"a": [at], "b": {"c": 1}}], "three": [at]}
    Dataset.from_list([{"input_ids": [1], "meta": meta}], features=features).save_to_disk(str(tmp_path / "rows"))
    (row,) = open_rows(str(tmp_path / "rows")).read(0, 1)
    stored = {"bytes": "b'not a picture'", "path": None}
    assert row.meta == {"deep": [{"a": [stored], "b": {"c": 1}}], "three": [stored]}


def test_other_features_stay_what_they_are(tmp_path: Path) -> None:
    from datasets import ClassLabel

    features = Features({"input_ids": List(Value("int32")), "kind": ClassLabel(names=["x", "y"])})
    Dataset.from_dict({"input_ids": [[1]], "kind": [1]}, features=features).save_to_disk(str(tmp_path / "rows"))
    assert load_split(str(tmp_path / "rows")).features == features
