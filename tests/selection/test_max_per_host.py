"""`--max-per 'host(rows.url):N'`: at most N rows of each host of the URLs in a column."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import Result
from datasets import load_from_disk

import ladm as front
from ladm.corpus.rows.hosts import LONGEST_AUTHORITY, _host_in, host_of
from ladm.corpus.rows.reading import open_rows
from ladm.corpus.rows.value_keys import NO_VALUE, _keys, read_value_keys
from ladm.selection.manifest_file import read_manifest
from support.documents import write_corpus
from support.files import read_object
from support.models import SMALL
from support.rows import topical_rows

Command = Callable[..., Result]
LENGTHS = [512, 400, 450, 480, 700, 490, 512, 430]
URLS = [
    "https://a.example/1",
    "http://A.example:80/2",
    "//b.example/?q",
    "a.example/3",
    "https://user@a.example./4",
    " https://b.example#5 ",
    None,
    "no URL at all",
]
HOSTS = ["a", "a", "b", "a", "a", "b", None, None]


@pytest.fixture
def run(score_rows: Any, golden: Any) -> Path:
    """Even rows are of domain 0, odd ones of domain 1."""
    return score_rows(rows_with_urls(golden))[1]


def rows_with_urls(golden: Any, urls: Sequence[Any] = URLS) -> list[dict[str, Any]]:
    rows = topical_rows(golden, LENGTHS)
    return [
        row | {"url": url, "part": k, "meta": row["meta"] | {"page": url}, "labels": [url]}
        for k, (row, url) in enumerate(zip(rows, urls, strict=True))
    ]


def taken(folder: Path) -> list[int]:
    return [position for run in read_object(folder / "manifest.json")["chosen"] for position in run["positions"]]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://example.com/a", "example.com"),
        ("HTTPS://WWW.Example.COM", "www.example.com"),
        ("http://u:p@Example.com:8080/x?y#z", "example.com"),
        ("http://name@mail.example@example.com/", "example.com"),
        ("http://example.com?x=http://other.com/", "example.com"),
        ("http://example.com#x@other.com", "example.com"),
        ("http://example.com/@other.com", "example.com"),
        ("http://example.com./a", "example.com"),
        ("http://example.com..", "example.com"),
        ("http://example.com:abc/", "example.com"),
        ("http://example.com:999999/", "example.com"),
        ("http://example.com:/", "example.com"),
        (" \t\n http://example.com/ \n", "example.com"),
        ("//example.com/a", "example.com"),
        ("example.com/a", "example.com"),
        ("example.com:80/a", "example.com"),
        ("Example.com", "example.com"),
        ("example.com?x", "example.com"),
        ("http://localhost:80/", "localhost"),
        ("s3://bucket/key", "bucket"),
        ("svn+ssh://example.com/a", "example.com"),
        ("http://a_b.example.com", "a_b.example.com"),
        ("http://127.0.0.1:8000/", "127.0.0.1"),
        ("127.0.0.1/a", "127.0.0.1"),
        ("http://[2001:DB8:0:0::1]:80/", "2001:db8::1"),
        ("http://u@[::1]", "::1"),
        ("http://[::1]:abc/", "::1"),
        ("[::1]:80/a", "::1"),
        ("http://пример.рф/я", "пример.рф"),
        ("http://ПРИМЕР.рф:80/", "пример.рф"),
        ("пример.рф", "пример.рф"),
        ("http://हिन्दी.भारत/", "हिन्दी.भारत"),
        ("http://xn--e1afmkfd.xn--p1ai/", "xn--e1afmkfd.xn--p1ai"),
        ("http://%E4%BE%8B.com/", "%e4%be%8b.com"),
        ("http://exam\nple.com/", "example.com"),
        ("", None),
        ("   ", None),
        ("hello", None),
        ("hello world.com", None),
        ("Mr. Smith went", None),
        ("e.g.", None),
        ("7", None),
        ("7.5", None),
        ("1.5e-07", None),
        ("10.1000/182", None),
        ("1.2.3.4.5/x", None),
        (".htaccess", None),
        ("a@example.com", None),
        ("mailto:a@example.com", None),
        ("data:text/html,x", None),
        ("javascript:void(0)", None),
        ("urn:isbn:123", None),
        ("file:///etc/x", None),
        ("/a/b.c", None),
        ("http:", None),
        ("http://", None),
        ("http:///a", None),
        ("http://./", None),
        ("http://:80/", None),
        ("http://exa mple.com/", None),
        ("http://example.com\x00/", None),
        ("http://exam<b>ple.com/", None),
        ("http://exam\ufffdple.com/", None),
        ("http://[::1", None),
        ("http://::1]/", None),
        ("http://[example.com]/", None),
        ("http://[v1.x]/", None),
        ("http://[::1]x/", None),
        ("http://x[::1]/", None),
        ("http://a[b@example.com/", None),
        ("http://℀.com/", None),
        (f"http://{'x' * LONGEST_AUTHORITY}.com/", None),
        ("x" * 100_000, None),
    ],
)
def test_odd_urls(url: str, host: str | None) -> None:
    assert host_of(url) == host


def test_common_urls_are_read_as_the_standard_library_reads_them() -> None:
    for authority in (
        "Example.com",
        "example.com.",
        "example.com..",
        "localhost",
        "a_b.c-d",
        "127.0.0.1",
        "-",
        ".x",
        ".",
    ):
        for rest in ("", "/", "/a:b@c", "?x", "#x"):
            assert host_of(f"http://{authority}{rest}") == _host_in(authority, has_slashes=True), authority + rest


def test_the_best_of_each_host_are_taken(ladm: Command, run: Path, tmp_path: Path) -> None:
    ranked = [document.position for document in front.open_run(run).top(100)]
    flags = ("--top", "100%", "--max-per", "host( rows.url ):1")
    dry = ladm("select", run, *flags, "-o", tmp_path / "s", "--dry-run")
    result = ladm("select", run, *flags, "-o", tmp_path / "s")
    assert (dry.exit_code, result.exit_code) == (0, 0), result.output
    counted = "4, of values with more rows than that; 2 without a value are not limited"
    for output in (dry.stdout, result.stdout):
        assert f"left out by --max-per host(rows.url):1: {counted}" in output.splitlines()
    best = {host: next(k for k in ranked if HOSTS[k] == host) for host in "ab"}
    assert taken(tmp_path / "s") == sorted([*best.values(), 6, 7])
    manifest = read_manifest(tmp_path / "s")
    assert [vars(cap) for cap in manifest.max_per] == [
        {"column": "host(rows.url)", "most": 1, "left_out": 4, "without_value": 2}
    ]
    assert list(manifest.joined_columns) == ["rows.url"]
    assert "max_per:\n- host(rows.url):1\n" in (tmp_path / "s" / "README.md").read_text()
    assert "--max-per 'host( rows.url ):1'" in read_object(tmp_path / "s" / "manifest.json")["command"]
    # The same command finds its own subset.
    again = ladm("select", run, *flags, "-o", tmp_path / "s")
    assert again.exit_code == 0, again.output
    verified = ladm("verify", tmp_path / "s")
    assert verified.exit_code == 0, verified.output
    assert ladm("report", run, "--subset", tmp_path / "s", "-o", tmp_path / "page.html").exit_code == 0
    assert "at most 1 row of one host(rows.url)" in (tmp_path / "page.html").read_text()


def test_the_same_from_a_configuration_and_from_python(ladm: Command, run: Path, tmp_path: Path) -> None:
    ranked = [document.position for document in front.open_run(run).top(100)]
    expected, counts = [], Counter[str | None]()
    for k in ranked:
        counts[HOSTS[k]] += 1
        expected += [k] if HOSTS[k] is None or counts[HOSTS[k]] <= 2 else []
    (tmp_path / "select.yaml").write_text("max_per:\n- host(rows.meta.page):2\ntop: 100%\n")
    result = ladm("select", run, "--config", tmp_path / "select.yaml", "-o", tmp_path / "s")
    assert result.exit_code == 0, result.output
    assert taken(tmp_path / "s") == sorted(expected)
    # One URL for each row, so that the second limit leaves nothing out.
    caps = ["host(rows.url):2", "rows.url:1"]
    subset = front.select(run, top="100%", max_per=caps, output=tmp_path / "t")
    assert taken(tmp_path / "t") == sorted(expected)
    found = [(cap.column, cap.left_out, cap.without_value) for cap in subset.manifest.max_per]
    assert found == [("host(rows.url)", 2, 2), ("rows.url", 0, 1)]
    with pytest.raises(front.LadmError, match=r"; --max-per host\(rows.url\):2 leaves 2 rows out$"):
        front.select(run, documents=8, max_per="host(rows.url):2", output=tmp_path / "u")


def test_the_same_host_in_two_runs(ladm: Command, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    rows = rows_with_urls(golden, [f"https://{host}.example/{k}" for k, host in enumerate("abcdaacd")])
    for name, part in (("first", rows[:4]), ("second", rows[4:])):
        assert ladm("score", save_rows(part, name), *SMALL, "-o", tmp_path / f"run-{name}").exit_code == 0
    runs = (tmp_path / "run-first", tmp_path / "run-second")
    result = ladm("select", *runs, "--top", "100%", "--max-per", "host(rows.url):1", "-o", tmp_path / "s")
    assert result.exit_code == 0, result.output
    assert read_manifest(tmp_path / "s").max_per[0].left_out == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "host(rows.url)",
            "--max-per 'host(rows.url)' is not rows.COLUMN:N, such as rows.repo:3 or host(rows.url):3; N is",
        ),
        ("host(rows.url):0", "--max-per 'host(rows.url):0' is not rows.COLUMN:N, such as rows.repo:3 or host"),
        (
            "site(rows.url):3",
            "--max-per site(rows.url):3: there is no function site; host(rows.url) is the host of a URL",
        ),
        (
            "host(url):3",
            "--max-per host(url):3: host() takes one text column of the rows, whose names begin with rows., as in "
            "host(rows.url)",
        ),
        (
            "host(meta.page):3",
            "--max-per host(meta.page):3: host() takes one text column of the rows, whose names begin ",
        ),
        ("host():3", "--max-per host():3: host() takes one text column of the rows, "),
        ("host(rows.):3", "--max-per host(rows.):3: host() takes one text column of the rows, "),
        ("host(rows.url, rows.b):3", "--max-per host(rows.url, rows.b):3: host() takes one text column of the rows, "),
        ("host(host(rows.url)):3", "--max-per host(host(rows.url)):3: host() takes one text column of the rows, "),
        (
            "host(rows.url:3",
            "--max-per host(rows.url:3: host(rows.url is no column of the rows, whose names begin with rows., as in "
            "host(rows.url):3",
        ),
        (
            ["host(rows.url):3", "host( rows.url ):2"],
            "--max-per gives host(rows.url) twice; give one number for each column",
        ),
        ("host(rows.urls):3", "ROWS has no column urls; did you mean url?"),
        ("rows.host:3", "ROWS has no column host; the host of its column url is host(rows.url)"),
        ("host(rows.part):3", "host() takes one text column, and part of ROWS holds int64"),
        ("host(rows.labels):3", "host() takes one text column, and labels of ROWS holds list<"),
        ("host(rows.meta):3", "meta of ROWS holds objects; give a key inside, such as meta.NAME"),
    ],
)
def test_bad_input_gets_one_line(
    ladm: Command, run: Path, tmp_path: Path, given: str | list[str], message: str
) -> None:
    words = [word for each in ([given] if isinstance(given, str) else given) for word in ("--max-per", each)]
    result = ladm("select", run, "--top", "50%", *words, "-o", tmp_path / "s")
    (line,) = result.stderr.splitlines()
    assert (result.exit_code, message.replace("ROWS", str(tmp_path / "rows")) in line) == (2, True), result.output
    assert not (tmp_path / "s").exists()


def test_no_row_with_a_host(run: Path, tmp_path: Path) -> None:
    with pytest.raises(front.LadmError, match="has a URL with a host in text$"):
        front.select(run, top="50%", max_per="host(rows.text):3", output=tmp_path / "s")


def test_bytes_that_are_no_text() -> None:
    texts = pa.array([b"http://a.example/\xff", b"http://a.example", b"http://a\xff.example", None], pa.binary())
    keys = _keys(pa.chunked_array([texts.view(pa.string())]), of_host=True).tolist()
    assert keys == [keys[1], keys[1], NO_VALUE, NO_VALUE]
    assert keys[1] != NO_VALUE


def test_urls_inside_of_json_text(save_rows: Any) -> None:
    urls = ["http://a.example", "https://A.example/x", 7.5, None, ["http://a.example"], "\ud800.example", True]
    rows = [{"input_ids": [1, 2, 3], "json": json.dumps({"url": url}), "host": "a.example"} for url in urls]
    data = open_rows(save_rows(rows))
    keys = read_value_keys(data, "json.url", of_host=True)[0].tolist()
    assert keys[0] != NO_VALUE
    assert keys == [keys[0]] * 2 + [NO_VALUE] * 5
    # The key of the host is that of the same text in a column, and the digest is of the whole values.
    assert read_value_keys(data, "host")[0][0] == keys[0]
    assert read_value_keys(data, "json.url", of_host=True)[1] == read_value_keys(data, "json.url")[1]


def test_a_job_with_a_limit_for_each_host(talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path)
    monkeypatch.chdir(tmp_path)
    documents = map(json.loads, gzip.decompress(Path("corpus/a.jsonl.gz").read_bytes()).splitlines())
    lines = (json.dumps(each | {"url": f"https://{'aab'[k % 3]}.example/{k}"}) for k, each in enumerate(documents))
    Path("corpus.jsonl").write_text("\n".join(lines))
    call: dict[str, Any] = {"model": talking, "output": "job", "length": 512, "span_tokens": 16}
    for column, message in (
        ("domain", r"^no row of job/rows has a URL with a host in domain$"),
        ("url", r"^there are 2 rows \(--max-per host\(rows.url\):1\), fewer than --documents 3"),
    ):
        with pytest.raises(front.LadmError, match=message):
            front.run("corpus.jsonl", **call, documents=3, max_per=f"host(rows.{column}):1")
    assert not Path("job/scores").exists(), "scored before the column was looked at"
    job = front.run("corpus.jsonl", **call, documents=2, max_per="host(rows.url):1")
    assert {host_of(row["url"]) for row in load_from_disk("job/subset")["train"]} == {"a.example", "b.example"}
    assert "max_per:\n- host(rows.url):1\n" in (job.folder / "job.yaml").read_text()
    assert front.run("corpus.jsonl", **call, documents=2, max_per="host(rows.url):1") == job
