"""The judging rows, their scoring and the report: `scripts/bench/quality` from a pack of texts to tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.paths import ROOT

QUALITY = ROOT / "scripts" / "bench" / "quality"
DOCUMENTS, LISTS, TOKENS = 32, 8, 512


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The scripts can be imported here, and leave no modules of such common names behind."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(QUALITY))
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(QUALITY)):
            del sys.modules[name]


def test_a_quarter_is_taken_of_a_pool_with_a_twentieth_of_each_kind() -> None:
    from guarded import _shares

    kinds = np.array(["intact"] * 4 + ["shuffled"] * 2 + ["made list"] * 2)
    values = np.array([5.0, 4.0, 3.0, 2.0, 9.0, 1.0, 8.0, 7.0])
    everything = np.ones(8, dtype=bool)
    # The intact rows are 0.9 of the pool, 0.225 each. All lists, one of the shuffled: 0.075; then 0.175 of the best
    # intact row.
    found = _shares(kinds, values, everything, np.ones(8))
    assert found == pytest.approx({"intact": 0.175 / 0.9, "shuffled": 0.5, "made list": 1.0})
    # A ceiling keeps both bad kinds out, and then the whole quarter is intact.
    assert _shares(kinds, values, values < 6, np.ones(8)) == pytest.approx(
        {"intact": 0.25 / 0.9, "shuffled": 0.0, "made list": 0.0}
    )
    # Where fewer pass than a quarter, all that pass are taken.
    assert _shares(kinds, values, values == 5, np.ones(8))["intact"] == pytest.approx(0.25)


def test_a_ceiling_by_a_quantile_of_the_pool_keeps_out_what_is_rarer_than_that() -> None:
    from quantile_guards import taken_shares

    # 90 intact rows with scores of 1 to 90, and 10 shuffled ones above them; all have one copy share.
    rows = pa.table(
        {
            "kind": ["intact"] * 90 + ["shuffled"] * 10,
            "robust": [float(k) for k in range(1, 101)],
            "copy_share": [0.1] * 100,
        }
    )
    guards = (("copy_share", 0.0, 0.95), ("robust", 0.0, 0.95))
    rare, common = (
        taken_shares(rows, guards, by="robust", share=share, counts_B=np.ones(100)) for share in (0.04, 0.10)
    )
    # The best 5 % are 4 % shuffled rows and 1 % of intact ones: a quarter of the other 95 % is intact.
    assert rare == pytest.approx(
        {"intact": 0.2375 / 0.96, "shuffled": 0.0, "pure": 1.0, "pure of the pool": 1.0}, abs=0.01
    )
    # Half of the shuffled rows stay below the ceiling where they are a tenth of the pool, and all of these are taken.
    shares = {"intact": 0.1875 / 0.9, "shuffled": 0.5}
    assert common == pytest.approx(shares | {"pure": 0.1875 / 0.2375, "pure of the pool": 0.2 / 0.25}, abs=0.01)


def test_the_guards_of_the_pool_are_among_those_that_are_measured() -> None:
    from quantile_guards import LEVELS

    from ladm.settings.guards import POOL_GUARDS

    assert ", ".join(POOL_GUARDS) in LEVELS


def test_what_passes_a_guard_of_quantiles_and_ranks_of_a_weighted_pool() -> None:
    from quantile_guards import BOTH, passing_intact, pure_of_passing, taken_shares, weighted_ranks

    scores = [float(k) for k in range(1, 101)]
    rows = pa.table({"kind": ["intact"] * 90 + ["shuffled"] * 10, "robust": scores, "F": scores[::-1]})
    guards = (("robust", 0.0, 0.8),)
    # Of a clean pool the ceiling drops a fifth; where a tenth is above all intact rows, it drops half as many of them.
    assert passing_intact(rows, guards, share=0.0, counts_B=np.ones(100)) == pytest.approx(0.8, abs=0.02)
    assert passing_intact(rows, guards, share=0.1, counts_B=np.ones(100)) == pytest.approx(0.8 / 0.9, abs=0.02)
    # By chance: all that pass are intact, because the ceiling drops every shuffled row.
    assert pure_of_passing(rows, guards, share=0.1, counts_B=np.ones(100)) == pytest.approx(1.0, abs=0.01)
    assert pure_of_passing(rows, (), share=0.1, counts_B=np.ones(100)) == pytest.approx(0.9)
    ranks = weighted_ranks(np.array([3.0, 1.0, 1.0, 2.0]), np.array([0.25, 0.125, 0.125, 0.5]))
    assert ranks == pytest.approx([0.875, 0.125, 0.125, 0.5])
    # Opposite ranks add up to the same for every row, so that the first quarter is taken.
    assert taken_shares(rows, (), by=BOTH, share=0.1, counts_B=np.ones(100))["pure"] == pytest.approx(1.0)


@pytest.mark.parametrize("by_domain", [False, True])
def test_guards_of_domains_take_what_a_selection_takes(by_domain: bool) -> None:
    """A pool by weights, and the same pool as copies of its rows."""
    from domain_guards import taken_of

    from ladm.selection.guarding import apply_guards
    from ladm.settings.guards import Guard, Limit

    draw = np.random.default_rng(3)
    domain_B, weight_B = np.repeat([0, 1], 40), draw.integers(1, 60, 80).astype(float)
    kinds = np.where(draw.random(80) < 0.6, "intact", "shuffled")
    # The second domain has higher values, of which a ceiling over both drops most.
    columns = {"F": draw.random(80) + domain_B, "gzip": draw.random(80)}
    guards = (("gzip", 0.1, 1.0), ("F", 0.0, 0.8))
    rows = pa.table({"kind": kinds, **columns})
    found = taken_of(rows, domain_B, weight_B / weight_B.sum(), guards, by="F", by_domain=by_domain)
    # Many copies, so that no limit lies between two rows.
    copies_N = np.repeat(np.arange(80), 100 * weight_B.astype(int))
    domain_N, intact_N = domain_B[copies_N], (kinds == "intact")[copies_N]
    kept_N = np.ones(len(copies_N), dtype=np.bool_)
    limits = [
        Guard(text=column, column=column, low=Limit(value=low, is_quantile=True), by_domain=by_domain,
              high=Limit(value=high, is_quantile=True))
        for column, low, high in guards
    ]  # fmt: skip
    columns_N = {name: values_B[copies_N] for name, values_B in columns.items()}
    apply_guards(limits, columns_N, kept_N, codes_N=domain_N.astype(np.int32), names=["software", "books"], float32=())
    taken_N = np.zeros(len(copies_N), dtype=np.bool_)
    for number, domain in enumerate(("software", "books")):
        places = np.flatnonzero(kept_N & (domain_N == number))
        order = places[np.argsort(-columns_N["F"][places], kind="stable")]
        taken_N[order[: round(0.25 * len(order))]] = True
        mine_N = domain_N == number
        assert found[f"passing, {domain}"] == pytest.approx(kept_N[mine_N & intact_N].mean())
        assert found[f"pure, {domain}"] == pytest.approx(intact_N[taken_N & mine_N].mean(), abs=1e-3)
    assert found["pure"] == pytest.approx(intact_N[taken_N].mean(), abs=1e-3)
    assert found["books taken"] == pytest.approx(domain_N[taken_N].mean(), abs=1e-3)


def test_rows_within_fixed_limits_are_counted_by_kind() -> None:
    from fixed_limits import inside_by_kind

    rows = pa.table(
        {
            "kind": ["intact"] * 4 + ["shuffled"] * 2,
            "package": ["a", "a", "b", "c", "b", "c"],
            "near_share": [0.5, 0.6, 0.7, 0.8, 0.4, 0.7],
        }
    )
    found = inside_by_kind(rows, "near_share", 0.5, 0.7)
    assert {kind: value for kind, (value, _, _) in found.items()} == {"intact": 0.75, "shuffled": 0.5}
    # With other draws of the packages each of the two is taken alone.
    assert found["shuffled"][1:] == [0.0, 1.0]


def test_parts_of_a_book_do_not_overlap_and_its_pages_lose_their_markup() -> None:
    from books import PART_CHARACTERS, PARTS, parts_of, text_of_page

    book = "".join(f"{k:08d}" for k in range(PARTS * PART_CHARACTERS // 4))
    parts = parts_of(book)
    places = [book.index(part[:16]) for part in parts]
    assert [len(part) for part in parts] == [PART_CHARACTERS] * PARTS
    assert places[0] > 0
    assert all(b - a >= PART_CHARACTERS for a, b in pairwise(places))
    page = "<head><title>T</title></head><p>One &amp; <b>two</b></p><script>x()</script><p>three\n four</p>"
    assert text_of_page(page) == "One & two\n\nthree four"


def test_documents_of_the_pack_are_four_of_each_package_with_the_kinds_in_turn() -> None:
    from rows import chosen_documents

    pool = [
        {"package": f"{kind}{k}", "kind": kind, "document": f"{d}", "fault_kind": fault, "text": "abcd"}
        for kind in ("books", "sources")
        for k in range(40)
        for d in range(6)
        for fault in ("", "changelogs")
    ] + [{"package": "small", "kind": "books", "document": "0", "fault_kind": "", "text": "abcd"}]
    found = chosen_documents(pool)
    assert Counter(each["type"] for each in found) == {"books": 104, "sources": 104}
    assert set(Counter(each["package"] for each in found).values()) == {4}
    assert {each["text"] for each in found} == {"abc"}
    assert found == chosen_documents(pool)


def test_rows_of_each_kind_are_spread_over_the_packages() -> None:
    from rows import spread_rows

    from ladm.calibration.contrast import ContrastRow

    def row(k: int, kind: str) -> ContrastRow:
        return ContrastRow(ids=np.arange(4), kind=kind, half=1, document=k, packages=(f"p{k // 4}",))

    rows = [(k, row(k, "intact" if k < 40 else "shuffled")) for k in range(43)]
    found = spread_rows(rows, 10)
    assert [place for place, _ in found] == [*range(0, 40, 4), 40, 41, 42]
    assert spread_rows(rows, 100) == rows


@pytest.mark.slow
def test_from_a_pack_to_tables(talking: Any, tmp_path: Path) -> None:
    """Three parts with a tiny model, of all signals; a second call finds them finished."""
    draw = np.random.default_rng(0)
    rows = [
        {"kind": kind, "type": "x", "package": f"{kind} {k // 4}", "document": f"{k}", "half": k // 4 % 2}
        | {"text": " ".join(f"w{word}" for word in np.resize(draw.integers(2, 500, size=60 + k), 600))}
        for kind, count in (("intact", DOCUMENTS), ("real list", LISTS))
        for k in range(count)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pack.parquet")
    environment = os.environ | {"PYTHON": sys.executable, "CALIBRATED": f"{TOKENS}", "DEVICE": "cpu"}
    # No limit of time: on a busy machine the tiny model may take minutes.
    environment |= {"LIMIT": "36000", "PART_LIMIT": "36000"}
    environment |= {"SIGNALS": "cds,context-gain,longattn,text", "PROLONG_ROWS": "3", "PROLONG_PAIRS": "3"}
    parts = [f"{TOKENS}", f"{TOKENS}-8", f"{TOKENS}-prolong"]
    command = ["bash", QUALITY / "score.sh", tmp_path / "pack.parquet", talking, tmp_path / "out"]
    for words in ("== done", f"== {TOKENS} is finished"):
        done = subprocess.run([*command, *parts], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert words in done.stdout
    name = Path(talking).name
    assert sorted(path.name for path in (tmp_path / "out" / name / f"{TOKENS}").iterdir()) == [
        "run.json",
        "scores.parquet",
    ]
    report = [sys.executable, QUALITY / "report.py", tmp_path / "pack.parquet", tmp_path / "out"]
    report += ["--model", talking, "--calibrated", f"{TOKENS}", "--output", tmp_path / "report"]
    done = subprocess.run(report, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "report" / "quality.json").read_text())[name]
    table = found["auc"][f"{TOKENS}"]
    assert table["rows"] == dict.fromkeys(table["rows"], DOCUMENTS // 2) | {"real list": 4}
    assert len(table["rows"]) == 11
    for score in (
        "released",
        "median",
        "robust",
        "robust, all layers",
        "robust, after sinks",
        "signed heads",
        "gain",
        "key tokens",
        "LongAttn",
        "F",
        "gzip",
    ):
        values = {kind: value for kind, (value, _, _) in table[score].items()}
        worst = values.pop("worst")
        assert worst == pytest.approx(min(values.values()))
    pairs = found["pairs"][f"{TOKENS}"]["half 1"]
    assert pairs["robust over F"]["4 pieces"][0] == pytest.approx(
        table["robust"]["4 pieces"][0] - table["F"]["4 pieces"][0], abs=2e-4
    )
    # Of one block, repeated, a count of rare words or a compressor needs no model.
    assert table["gzip"]["repeated T/16"][0] > 0.9
    assert set(found["spearman"][f"{TOKENS}-8"]) >= {"released", "median", "robust"}
    # ProLong is judged on its own rows, and the other scores beside it on the same ones.
    beside = found["auc"][f"{TOKENS}-prolong"]
    assert beside["rows"] == dict.fromkeys(table["rows"], 3)
    assert set(beside) == set(table) | {"ProLong", "ProLong per pair"}
    assert list(found["guarded"]) == [
        "none", "ceiling", "ceiling, copy share", "text statistics", "ceiling, copy share, text statistics",
        "ceiling, copy share, text statistics, signed heads",
    ]  # fmt: skip
    scores = pq.read_table(tmp_path / "report" / "scores.parquet")
    counts = {parts[0]: 10 * DOCUMENTS + LISTS, parts[1]: 52, parts[2]: 33}
    assert Counter(scores["part"].to_pylist()) == counts
    # A row is the same one in both parts: its scores agree.
    rows = {(row["part"], row["index"]): row for row in scores.to_pylist()}
    for (part, index), row in rows.items():
        if part == parts[2]:
            assert row["ProLong"] is not None
            assert row["robust"] == rows[parts[0], index]["robust"]
    assert "| released |" in (tmp_path / "report" / "quality.md").read_text()
    # A part of one half, or without heads, only judges.
    report[report.index("--calibrated") + 1] = parts[1]
    done = subprocess.run(report, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "report" / "quality.json").read_text())[name]
    assert found["guarded"] == {}
    assert "signed heads" not in found["auc"][parts[0]]
    # Fitted to one kind alone and to all of them, from the same part; the heads are in every form.
    fits = [sys.executable, QUALITY / "signed_fits.py", tmp_path / "pack.parquet", tmp_path / "out" / name / parts[0]]
    for kind in ("4 pieces", "all", "nonsense"):
        done = subprocess.run([*fits, "--model", talking, "--kind", kind], capture_output=True, text=True, check=False)
        if kind == "nonsense":
            assert "has no rows of kind 'nonsense' in both halves, but of 2 pieces, " in done.stderr
            continue
        assert done.returncode == 0, done.stderr
        judged = json.loads(done.stdout.splitlines()[-1])["auc"]
        assert len(judged) == 4 + 4 + 1
        for row in judged.values():
            value, low, high = row["judged"]
            assert low <= value <= high
            assert (
                value == min(by_kind[0] for by_kind in row["by_kind"].values()) == row["by_kind"][row["worst_kind"]][0]
            )
            assert set(row["by_kind"]) == ({kind} if kind != "all" else set(table["rows"]) - {"intact"})
