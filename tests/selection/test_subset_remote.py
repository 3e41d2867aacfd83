"""Subsets that leave the machine: at addresses of fsspec, and on a stand-in for the Hub."""

from __future__ import annotations

import base64
import http.server
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from click.testing import Result

from ladm.api.pipeline import select as in_python
from ladm.selection import writing
from support.rows import topical_rows
from support.subset_formats import LENGTHS, NPY_FILES, files, select

Command = Callable[..., Result]


@pytest.fixture
def scored(score_rows: Any, golden: Any) -> tuple[str, Path]:
    return score_rows(topical_rows(golden, LENGTHS))


def test_a_subset_at_an_address(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    output = "memory://bucket/subset"
    assert select(ladm, scored, output, "--format", "megatron").exit_code == 0
    names = sorted(memory.find("/bucket/subset"))
    assert names == [
        f"/bucket/subset/{name}"
        for name in ("README.md", "SHA256SUMS", "manifest.json", "rows.parquet", "train.bin", "train.idx")
    ]
    assert select(ladm, scored, tmp_path / "m", "--format", "megatron").exit_code == 0
    assert memory.cat_file("/bucket/subset/train.bin") == (tmp_path / "m" / "train.bin").read_bytes()
    again = select(ladm, scored, output)
    assert (again.exit_code, again.stderr) == (1, f"ladm: {output} exists already; give another --output\n")
    # A path of this machine would be memory:/bucket/python.
    made = in_python(scored[1], rows=scored[0], tokens="2k", output="memory://bucket/python")
    assert made.folder == os.fspath(made) == "memory://bucket/python"
    local = f"file://{tmp_path}/local"
    assert select(ladm, scored, local, "--format", "npy").exit_code == 0
    assert (tmp_path / "local" / "tokens.npy").is_file()
    unknown = select(ladm, scored, "nowhere://x")
    assert (unknown.exit_code, unknown.stderr) == (1, "ladm: --output nowhere://x: Protocol not known: nowhere\n")


def test_a_full_temporary_folder_is_named(
    ladm: Command, scored: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "absent"))
    for flags in (("--output", "memory://bucket/full"), ("--dry-run",)):
        result = ladm("select", scored[1], "--rows", scored[0], "--tokens", "2k", *flags)
        assert (result.exit_code, result.stderr) == (
            74, f"ladm: cannot make a temporary folder in {tmp_path}/absent: No such file or directory\n"
        )  # fmt: skip
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        result = select(ladm, scored, "memory://bucket/full", "--format", "npy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert result.exit_code == 74
    remedy = "set TMPDIR to a folder with more room"
    assert re.fullmatch(
        rf"ladm: cannot write {tmp_path}/ladm-tmp-\w+/subset: File too large; {remedy}\n", result.stderr
    )
    assert not list(tmp_path.glob("ladm-tmp-*"))


def test_a_stopped_upload_is_no_subset_and_is_replaced(
    ladm: Command, scored: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    output, put = "memory://bucket/subset", type(memory).put_file

    def put_one(self: Any, source: str, place: str, **more: Any) -> None:
        if place.endswith("manifest.json"):
            raise OSError("the connection was reset")
        put(self, source, place, **more)

    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "put_file", put_one)
        stopped = select(ladm, scored, output, "--format", "npy")
    assert (stopped.exit_code, stopped.stderr) == (74, f"ladm: cannot write {output}: the connection was reset\n")
    assert "/bucket/subset/manifest.json" not in memory.find("/bucket/subset")
    # Another format, so that a file which stays would be seen.
    assert select(ladm, scored, output, "--format", "megatron").exit_code == 0
    names = {path.rpartition("/")[2] for path in memory.find("/bucket/subset")}
    assert names == {"README.md", "SHA256SUMS", "manifest.json", "rows.parquet", "train.bin", "train.idx"}
    memory.pipe_file("/bucket/other/notes.txt", b"mine")
    refused = select(ladm, scored, "memory://bucket/other")
    assert (refused.exit_code, refused.stderr) == (
        1,
        "ladm: memory://bucket/other exists already (it holds /bucket/other/notes.txt); give another --output\n",
    )
    assert memory.cat_file("/bucket/other/notes.txt") == b"mine"


class HubStandIn(http.server.BaseHTTPRequestHandler):
    """What the Hub answers to the making of a data set, a list of its files and commits of small ones."""

    made: ClassVar[list[dict[str, Any]]] = []
    files: ClassVar[dict[str, bytes]] = {}

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        # The client accepts addresses of the Hub that it talks to alone.
        hub = f"http://{self.headers['Host']}"
        if self.path == "/api/repos/create":
            HubStandIn.made.append(json.loads(body))
            answer: dict[str, Any] = {"url": f"{hub}/datasets/org/subset", "name": "org/subset", "id": "1"}
        elif "/preupload/" in self.path:
            wanted = json.loads(body)["files"]
            answer = {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in wanted]}
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    HubStandIn.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    del HubStandIn.files[line["value"]["path"]]
            answer = {"commitOid": "0" * 40, "commitUrl": f"{hub}/datasets/org/subset/commit/0", "success": True}
        else:
            answer = {"errors": [], "warnings": []}
        self.answer(answer)

    def do_GET(self) -> None:
        if "/tree/" not in self.path:
            self.send_error(404)
            return
        files = HubStandIn.files.items()
        self.answer([{"type": "file", "path": path, "size": len(content), "oid": "0"} for path, content in files])

    def do_HEAD(self) -> None:
        self.send_error(404)

    def answer(self, found: Any) -> None:
        content = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def hub() -> Iterator[str]:
    HubStandIn.made, HubStandIn.files = [], {}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), HubStandIn)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def python_with_hub(address: str, *words: Any) -> subprocess.CompletedProcess[str]:
    # A process of its own, because the client reads the address of the Hub when it is imported.
    environment = os.environ | {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_x", "NO_PROXY": "*"}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def run_with_hub(scored: tuple[str, Path], output: Path, address: str, *flags: str) -> subprocess.CompletedProcess[str]:
    words = ["select", scored[1], "--rows", scored[0], "--tokens", "2k", "-o", output, "--push", "org/subset"]
    return python_with_hub(address, "-m", "ladm", *words, *flags)


def test_push_uploads_the_subset_in_one_commit(scored: tuple[str, Path], tmp_path: Path, hub: str) -> None:
    done = run_with_hub(scored, tmp_path / "p", hub)
    assert done.returncode == 0, done.stderr
    assert HubStandIn.made[0]["name"] == "subset"
    assert HubStandIn.made[0].get("private") or HubStandIn.made[0].get("visibility") == "private"
    assert HubStandIn.files == {
        str(path.relative_to(tmp_path / "p")): path.read_bytes() for path in files(tmp_path / "p")
    }
    assert 'load_dataset("org/subset", split="train")' in HubStandIn.files["README.md"].decode()


@pytest.mark.slow
def test_a_second_push_takes_the_place_of_the_first(scored: tuple[str, Path], tmp_path: Path, hub: str) -> None:
    first = tmp_path / "first"
    (first / "data").mkdir(parents=True)
    names = [f"data/train-{k:05d}-of-00003.parquet" for k in range(3)]
    for name in (*names, "manifest.json", "notes.md"):
        (first / name).write_text(name)
    push = "import pathlib, sys; from ladm.selection.formats.hub_push import push_subset; push_subset("
    words = f"{push}pathlib.Path(sys.argv[1]), 'org/subset', remedy='')"
    done = python_with_hub(hub, "-c", words, first)
    assert done.returncode == 0, done.stderr
    assert set(HubStandIn.files) == {*names, "manifest.json", "notes.md"}
    # One shard, then none: what was there of rows goes, and nothing else does.
    for flags, data in (((), {"data/train-00000-of-00001.parquet"}), (("--format", "npy"), NPY_FILES)):
        output = tmp_path / f"p{len(flags)}"
        done = run_with_hub(scored, output, hub, *flags)
        assert done.returncode == 0, done.stderr
        assert set(HubStandIn.files) == {*data, "README.md", "SHA256SUMS", "manifest.json", "notes.md"}
        assert HubStandIn.files["manifest.json"] == (output / "manifest.json").read_bytes()
    card = HubStandIn.files["README.md"].decode()
    assert 'folder = snapshot_download("org/subset", repo_type="dataset")\n' in card
    assert 'np.load(f"{folder}/tokens.npy"' in card


def test_a_failed_push_leaves_the_subset(scored: tuple[str, Path], tmp_path: Path) -> None:
    done = run_with_hub(scored, tmp_path / "p", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.startswith("ladm: --push org/subset: "), done.stderr
    assert done.stderr.endswith(
        f"; the subset is in {tmp_path}/p: hf upload org/subset {tmp_path}/p --repo-type dataset "
        "--delete 'data/train-*'\n"
    )
    assert (tmp_path / "p" / "manifest.json").is_file()


def test_the_upload_that_is_proposed_is_one_of_a_folder_here(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []
    monkeypatch.setattr(writing, "push_subset", lambda _folder, _repository, *, remedy: found.append(remedy))
    for name in ("a b", "s3://bucket/subset"):
        writing._push(name, "org/x", Path("staging"))
    flags = "--repo-type dataset --delete 'data/train-*'"
    assert found == [
        f"the subset is in a b: hf upload org/x 'a b' {flags}",
        f"the subset is in s3://bucket/subset; copy it to a FOLDER of this machine, and hf upload org/x FOLDER {flags}",
    ]
