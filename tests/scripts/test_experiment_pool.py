"""The pool of the selection experiment: its rules, on tiny inputs. Nothing is fetched."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from support.paths import ROOT

sys.path.append(str(ROOT / "scripts" / "experiment"))

from pool import candidates, extract, faults, fetch, formats, report, select_rows, sources
from pool.extract import Document, Source
from pool.formats import Section
from pool.imports import import_order, imported_names
from pool.rows import SharedText, cut_rows, grams

POOL = ROOT / "scripts" / "experiment" / "pool"


@pytest.fixture
def tokenizer() -> Tokenizer:
    """A token for every word; line ends belong to none."""
    vocabulary = {"?": 0} | {f"w{k}": k + 1 for k in range(300)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


def words(first: int, last: int) -> str:
    return " ".join(f"w{k}" for k in range(first, last))


def lines(number: int, *, each: int = 10) -> str:
    return "\n".join(words(k * each, (k + 1) * each) for k in range(number)) + "\n"


def test_rows_have_exactly_their_tokens_and_begin_at_a_line(tokenizer: Tokenizer) -> None:
    rows = cut_rows(lines(30), tokenizer, tokens=45, most=2)
    assert [row.ids.tolist() for row in rows] == [list(range(1, 46)), list(range(51, 96))]
    assert rows[0].text == lines(4) + words(40, 45)
    assert rows[1].text.startswith("w50 ")
    assert rows[0].ids.dtype == np.uint16


def test_a_document_gives_as_many_rows_as_it_has_text_for(tokenizer: Tokenizer) -> None:
    assert len(cut_rows(lines(30), tokenizer, tokens=45, most=9)) == 6
    assert len(cut_rows(lines(4), tokenizer, tokens=41)) == 0
    assert len(cut_rows(lines(4), tokenizer, tokens=40)) == 1


def test_a_row_of_long_words_is_tokenised_from_the_whole_text(tokenizer: Tokenizer) -> None:
    text = ("x" * 50 + "\n") * 20
    (row,) = cut_rows(text, tokenizer, tokens=15, most=1)
    assert row.text == text[: 51 * 15 - 1]


def test_13_grams_are_those_of_words() -> None:
    assert len(grams(words(0, 12))) == 0
    assert len(grams(words(0, 13))) == 1
    assert len(grams(words(0, 100))) == 88
    assert len(grams(words(0, 20) + " " + words(0, 20))) == 20, "8 as they were, and 12 across the seam"
    assert grams("A b, c. d e f g h i j k l M") == grams("a B c d e f\ng h i j k l m")


def share(a: str, b: str) -> float:
    """The rule by definition, with sets of tuples."""
    sets = []
    for text in (a, b):
        listed = text.split()
        sets.append({tuple(listed[k : k + 13]) for k in range(len(listed) - 12)})
    return len(sets[0] & sets[1]) / min(map(len, sets))


def test_the_largest_share_is_the_one_with_the_most_similar_earlier_row() -> None:
    draw = np.random.default_rng(0)
    texts = []
    for _ in range(60):
        a, b = sorted(draw.integers(0, 280, 2))
        texts.append(words(a, b + 14) + " " + words(b, b + 14))
    index = SharedText(most_shared=2.0)
    for k, text in enumerate(texts):
        expected = max((share(text, earlier) for earlier in texts[:k]), default=0.0)
        assert index.largest_share(grams(text)) == pytest.approx(expected)
        index.admit(grams(text))
    assert index.largest == 1.0


def test_a_row_that_shares_a_fifth_stays_out_and_does_not_count() -> None:
    index = SharedText()
    assert index.admit(grams(words(0, 112)))
    assert index.admit(grams(words(92, 204))), "8 of 100"
    assert not index.admit(grams(words(70, 182))), "30 of 100 with the first, 78 with the second"
    assert index.admit(grams(words(172, 284))), "20 of 100 are still allowed"
    assert index.largest == pytest.approx(0.2)


def test_what_is_imported_comes_first() -> None:
    assert import_order({"a.py": frozenset({"b"}), "b.py": frozenset(), "c.py": frozenset({"a"})}) == [
        "b.py",
        "a.py",
        "c.py",
    ]


def test_circles_and_unknown_names_are_no_obstacle() -> None:
    circle = {"a.py": frozenset({"b"}), "b.py": frozenset({"a", "os"}), "c.py": frozenset({"c"})}
    assert import_order(circle) == ["b.py", "a.py", "c.py"]
    chain = {f"m{k:04}.py": frozenset({f"m{k + 1:04}"}) for k in range(3000)}
    assert import_order(chain) == sorted(chain, reverse=True)


@pytest.mark.parametrize(
    ("path", "text", "names"),
    [
        ("x.py", "import a.b\nfrom ..c.d import e\n  from . import f, g\nimportant = 1\n", {"b", "d", "f", "g"}),
        ("x.cpp", '#include <vector>\n# include "deep/er.hpp"\n', {"vector", "er"}),
        ("x.js", "const a = require('./lib/a.js'); import b from '../b'; import c from 'c'", {"a", "b"}),
        ("x.rb", "require 'set'\n  require_relative '../y/z'\n", {"set", "z"}),
        ("x.go", 'import "fmt"\n', set()),
    ],
)
def test_imports_of_five_languages(path: str, text: str, names: set[str]) -> None:
    assert imported_names(path, text) == names


def test_short_sections_of_a_folder_are_joined_and_long_ones_stand_alone() -> None:
    lengths = [("a/1", 40), ("a/2", 70), ("a/3", 10), ("b/1", 20), ("b/2", 300), ("b/3", 30)]
    sections = [Section(name=name, text="x" * n, folder=name[0]) for name, n in lengths]
    assert [document.name for document in extract.join(sections, characters=100)] == [
        "a/1 .. 2",
        "a/3",
        "b/1",
        "b/2",
        "b/3",
    ]


def test_source_files_are_read_in_import_order_without_tests_and_links(tmp_path: Path) -> None:
    body = "\n" * 30
    for name, text in {"p/a.py": "import z", "p/z.py": "", "p/tests/t.py": "", "p/short.py": ""}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + ("" if "short" in name else body))
    (tmp_path / "p" / "link.py").symlink_to("a.py")
    source = Source(package="p", kind="sources", domain="python", format="source")
    (document,) = extract.documents(source, tmp_path, None)
    assert document.name == "p/z.py .. a.py"
    assert document.text.startswith("# p/z.py\n\n")


def test_pages_follow_their_index_and_lose_their_menus(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d", "e", "f", "index"):
        links = '<a href="f.html#x">F</a><a href="a.html">A</a>' if name == "index" else ""
        page = f"<nav>menu</nav><p>My site, page {len(name)}</p><p>about {name}</p>{links}"
        (tmp_path / f"{name}.html").write_text(page)
    (document,) = extract.documents(Source(package="p", kind="manuals", domain="d"), tmp_path, None)
    assert document.text.split() == "about f about a about b about c about d about e".split()


def test_info_files_split_into_chapters() -> None:
    text = (
        "Intro\n\x1f\nFile: x.info, Node: A\n\n1 First\n*******\n\ntext\n\x1f\nFile: x.info\n2 Second\n********\nmore\n"
    )
    assert formats.info_chapters(text) == [
        ("1 First", "1 First\n*******\n\ntext\n"),
        ("2 Second", "2 Second\n********\nmore\n"),
    ]


class PdfPage:
    """Stands for a page of pypdfium2, and for its text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def get_textpage(self) -> PdfPage:
        return self

    def get_text_range(self) -> str:
        return self.text

    def close(self) -> None:
        pass


def test_words_of_pdf_pages_are_whole() -> None:
    page = PdfPage("de\x1cne, su\x0ecient, \ufb02ow\x07, hyphen\ufffe\r\nated\r\n")
    assert formats.pdf_page_text(page) == "define, sufficient, flow, hyphenated\n\n"


def test_compressed_files_are_read_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("caf\u00e9\r\n".encode("latin-1")))
    assert formats.decode(formats.read_bytes(tmp_path / "a.txt.gz")) == "caf\u00e9\n"


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("Format: x\n\nFiles: *\nLicense: GPL-2+\n text\n\nFiles: debian/*\nLicense: MIT\n", "GPL-2+"),
        ("see /usr/share/common-licenses/LGPL-2.1 and /usr/share/common-licenses/GPL-3.", "GPL-3, LGPL-2.1"),
        ("License: GPL-2 with OpenSSL exception\nLicense: MIT", "GPL-2 with OpenSSL exception"),
        ("License: Redistribution and use in source and\n binary forms, with or without", "BSD"),
        ("Do what you like.", "free, own terms"),
    ],
)
def test_licences(text: str, licence: str) -> None:
    assert fetch.licence_of(text) == licence


def test_pieces_of_a_manual_are_used_once() -> None:
    manual = [Document(name="m", text="\n\n".join(f"paragraph {k} " + "x" * 1500 for k in range(500)))]
    made = faults.pieces_of_one_manual(manual, name="m", characters=30_000)
    numbers = [int(piece.split()[1]) for document in made for piece in document.text.split("\n\n")]
    assert len(made) == 2
    assert len(set(numbers)) == len(numbers) >= 38
    assert numbers != sorted(numbers)
    assert faults.pieces_of_one_manual(manual[:0], name="m", characters=30_000) == []


def test_only_text_counts_as_readable() -> None:
    text = Path(candidates.__file__).read_text() * 2
    assert candidates.readable(text, prose=False)
    assert not candidates.readable(text, prose=True), "source has few articles"
    assert not candidates.readable("0 1 2 3 " * 1000, prose=False)
    assert not candidates.readable("the same again and " * 1000, prose=True)


def test_packages_take_turns() -> None:
    rows = [{"package": name, "n": n} for name, n in [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("c", 0), ("c", 1)]]
    order = [(row["package"], row["n"]) for row in select_rows.turns(rows, "package")]
    assert order == [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("c", 1), ("a", 2)]


def test_pool_and_short_rows(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select_rows, "SHORT_TOKENS", 20)
    monkeypatch.setattr(select_rows, "FAULT_SHARE", 0.5)
    monkeypatch.setattr(select_rows, "POOL_ROWS", 4)

    def row(package: str, split: str, first: int, fault_kind: str = "") -> dict[str, Any]:
        text = "\n".join(f"{package}{k} w{k}" for k in range(first, first + 100))
        made = {"package": package, "split": split, "fault_kind": fault_kind, "text": text, "row_in_document": first}
        return made | {"document": "d" if first < 200 else "e", "id": f"{package}/{first}"}

    given = [
        row("a", "pool", 0),
        row("a", "pool", 50),
        row("a", "pool", 100),
        row("b", "pool", 0),
        row("b", "pool", 200),
    ]
    given += [row("c", "held_out", 0), *(row("d", "fault", first, "logs") for first in (0, 100, 200))]
    chosen, largest = select_rows.long_rows(given)
    assert [each["id"] for each in chosen] == ["c/0", "a/0", "b/0", "b/200", "a/100", "d/0", "d/100"]
    assert largest == 0
    short = select_rows.short_rows(chosen, tokenizer)
    assert [each["id"] for each in short] == ["c/0/2k", "a/0/2k", "b/0/2k", "b/200/2k", "d/0/2k"], "one a document"
    assert all(len(each["input_ids"]) == 20 for each in short)


def test_no_package_is_in_two_splits_or_reserved() -> None:
    listed = sources.read_sources(POOL / "sources.yaml")
    held_out = {source.package for source in listed if source.split == "held_out"}
    kinds = {source.kind for source in listed if source.split == "held_out"}
    assert len(held_out) >= 12
    assert len(kinds) >= 4
    assert len({source.kind for source in listed if source.split == "pool"}) >= 6
    assert "r-cran-janeaustenr" not in {source.package for source in listed}
    assert max(source.most for source in listed) <= 40
    again = Source(package=listed[0].package, kind="manuals", domain="d")
    with pytest.raises(ValueError, match="^sources.yaml lists abs-guide more than once$"):
        sources.check_disjoint([*listed, again], set())
    with pytest.raises(ValueError, match="^abs-guide: already used by the toy, the calibration or the earlier"):
        sources.check_disjoint(listed, {"abs-guide"})


def test_packages_with_other_versions_than_the_page_are_named() -> None:
    def packages(**versions: str) -> dict[str, dict[str, Any]]:
        return {
            name: {"version": version, "licence": "GPL-2", "kind": "manuals"} for name, version in versions.items()
        } | {"wheel==1.0": {"version": "1.0", "licence": "MIT", "kind": "sources"}}

    row = {"kind": "manuals", "domain": "d", "split": "pool", "fault_kind": ""}
    rows = [row | {"package": name} for name in ("a", "b", "c", "wheel==1.0")]
    page = report.markdown(rows, packages(a="1", b="2-1", c="3"), 0.1)
    assert report.other_versions(packages(a="1", b="2-1", c="3"), page) == []
    assert report.other_versions(packages(a="1", b="2-2"), page) == ["b 2-2 (2-1)", "c missing (3)"]
    committed = (POOL.parent / "results" / "pool.md").read_text()
    assert len(report.other_versions({}, committed)) > 200
