"""The page of `ladm report`: its numbers are the run's, data is only shown as text, and it needs no network."""

from __future__ import annotations

import json
import re
import shutil
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ladm.explain.inspected_document import InspectedDocument, SpanPair, SpanText
from ladm.report.charts import brightest, heat_map, scale, shares_by_distance
from ladm.report.domain_quartiles import BOX_WIDTH, COLUMNS, MOST_COLUMNS, quartile_table
from ladm.report.environment import decimals
from ladm.report.overview import MOST_DOMAINS, RunOverview, readable_meta
from ladm.runs.columns.by_name import read_columns
from ladm.runs.folder import Run
from support.files import read_lines, read_object
from support.models import SMALL
from support.pages import HOSTILE, Page, require_harmless
from support.paths import GOLDEN
from support.rows import topical_rows


@pytest.fixture
def make_run(ladm: Any, save_rows: Any, golden: Any, tmp_path: Path) -> Callable[..., Path]:
    def make(domains: list[str], model: Path = GOLDEN, bad: int = 0) -> Path:
        rows = topical_rows(golden, [700 - 8 * k for k in range(len(domains))])
        for row, domain in zip(rows, domains, strict=True):
            row["meta"] = {"pile_set_name": domain, "title": domain}
        for row in rows[len(rows) - bad :]:
            row["input_ids"] = [511, 512, 513]
        folder = save_rows([row | {"meta": json.dumps(row["meta"])} for row in rows])
        result = ladm("score", folder, *SMALL, "--model", model, "--output", tmp_path / "run")
        assert result.exit_code == 0, result.output
        return tmp_path / "run"

    return make


def test_the_page_has_medians_and_quartiles_by_domain_and_column(ladm: Any, make_run: Any) -> None:
    run = make_run(["prose", "code", "prose", "code", "prose", "lists"])
    assert ladm("report", run).exit_code == 0
    text = (run / "report.html").read_text()
    page = Page(text)
    table = read_columns(Run.read(run), ["score", "robust", "gzip_ratio"])
    domains = np.array(["prose", "code", "prose", "code", "prose", "lists"])[table["position"].to_numpy()]
    section = Page(text[text.index('<h2 id="quartiles">') : text.index('<h2 id="why">')]).text
    # The run's score is the released one, which is not shown twice; what the run lacks has no column.
    heading = "domain documents score (released) robust gzip_ratio far_rare unigram_entropy repeated_13grams digits"
    assert heading in section
    places = [section.index(f" {name} ", len(heading)) for name in by_median(table["score"].to_numpy(), domains)]
    assert places == sorted(places)
    for domain, count in (("prose", 3), ("code", 2), ("lists", 1)):
        cells = []
        for name in ("score", "robust"):
            low, middle, high = (
                f"{x:.3g}" for x in np.quantile(table[name].to_numpy()[domains == domain], (0.25, 0.5, 0.75))
            )
            cells.append(f"{middle} {low} to {high}")
        assert f" {domain} {count} {' '.join(cells)} " in section
    assert "all documents 6 " in section
    require_harmless(page)


def by_median(values: Any, domains: Any) -> list[str]:
    """The domains, the one with the highest median first."""
    return sorted(set(domains.tolist()), key=lambda name: -float(np.median(values[domains == name])))


def test_the_table_of_quartiles_is_bounded() -> None:
    count = MOST_DOMAINS + 7
    rng = np.random.default_rng(0)
    codes = np.arange(3 * count) % count
    overview = RunOverview(domains={f"d{k}": array("d", [1.0]) for k in range(count)})
    overview.codes.extend(codes.tolist())
    values = rng.normal(size=3 * count)
    columns = {name: values + k for k, name in enumerate(COLUMNS)}
    columns |= {"score": values, "robust": values * (1 + 1e-9), "gain": np.full(3 * count, np.nan), "other": values}
    table = quartile_table(columns, overview)
    assert (len(table.domains), table.domains_left_out) == (MOST_DOMAINS, 7)
    # Empty columns and those of no interest are left out; the score by name is the run's own.
    assert table.columns == ["score (robust)", *(name for name in COLUMNS[1:] if name not in ("robust", "gain"))]
    medians = [row.boxes[0].quartiles[1] for row in table.domains if row.boxes[0]]
    assert medians == sorted(medians, reverse=True)
    for row in (table.all_documents, *table.domains):
        for box in row.boxes:
            assert box is not None
            assert 0 <= box.places[0] <= box.places[1] <= box.places[2] <= BOX_WIDTH
    columns["digits"] = np.where(codes == 0, np.nan, values)
    missing = [row.boxes[-1] for row in quartile_table(columns, overview).domains if row.name == "d0"]
    assert missing == [None]
    many = {name: rng.normal(size=3 * count) for name in COLUMNS}
    assert len(quartile_table(many, overview).columns) <= MOST_COLUMNS


def test_the_page_shows_what_the_run_holds(ladm: Any, make_run: Any, talking: Path) -> None:
    run = make_run(["prose", "code", "prose", "code", "prose", "lists"], model=talking, bad=1)
    assert ladm("inspect", run, "--top", "1", "--bottom", "1").exit_code == 0
    result = ladm("report", run)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"page: {run}/report.html\n", "")
    page = Page((run / "report.html").read_text())
    require_harmless(page)
    ranked = read_lines(run / "sorted_by_score.jsonl")
    assert "Long-range dependency scores of 5 documents" in page.text
    assert "1 without a score" in page.text
    assert "outside_vocabulary 1 row 5: id 512 at token 1 is outside" in page.text
    places = decimals([ranked[0]["score"]])
    for row in ranked:
        domain = json.loads(row["meta"])["pile_set_name"]
        shown = f"{row['rank']} {row['score']:.{places}f} {domain} {row['index']} {row['num_tokens']}"
        assert f"{shown} pile_set_name {domain} · title {domain}" in page.text
    for row in (ranked[0], ranked[-1]):
        shown = f"{row['score']:.{places}f} · {json.loads(row['meta'])['pile_set_name']}"
        assert page.text.count(f"Rank {row['rank']} · index {row['index']} · score {shown}") == 1
    dots = [attributes for tag, attributes in page.tags if tag == "circle" and attributes.get("r") == "3.5"]
    assert len(dots) == 5
    found = json.loads(next(iter(sorted((run / "inspected").iterdir()))).read_text())
    for token in found["pairs"][0]["later"]["tokens"]:
        assert token.strip() in page.text
    assert page.text.count("% of the score, from ") == sum(
        len(read_object(path)["pairs"]) for path in (run / "inspected").iterdir()
    )
    shown = [float(x) for x in re.findall(r"(?:under [\d,]+|to [\d,]+|or more) ([\d.]+) %", page.text)]
    assert sum(shown) == pytest.approx(200, abs=3)


def test_the_same_run_gives_the_same_page(ladm: Any, make_run: Any, tmp_path: Path) -> None:
    run = make_run(["a", "b", "a"])
    assert ladm("inspect", run).exit_code == 0
    for name in ("one.html", "two.html"):
        assert ladm("report", run, "--output", tmp_path / name).exit_code == 0
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert not (run / "report.html").exists()
    assert ladm("report", run, "--output", tmp_path / "one.html").exit_code == 0
    for path in (run / "run.json", run / "scores.parquet"):
        before = path.read_bytes()
        result = ladm("report", run, "--output", path)
        message = f"ladm: --output {path} exists already and was not written by this command; give another\n"
        assert (result.exit_code, result.stderr, path.read_bytes()) == (2, message, before)


def test_hostile_data_is_only_shown_as_text(ladm: Any, make_run: Any, talking: Path) -> None:
    run = make_run(["plain", *HOSTILE], model=talking)
    assert ladm("inspect", run).exit_code == 0
    for path in sorted((run / "inspected").iterdir()):
        found = read_object(path)
        found["excerpt"] = HOSTILE[0]
        for pair in found["pairs"]:
            for side in ("earlier", "later"):
                pair[side]["tokens"] = (HOSTILE * 2)[: len(pair[side]["tokens"])]
                pair[side]["before"] = HOSTILE[1]
        path.write_text(json.dumps(found))
    assert ladm("report", run).exit_code == 0
    content = (run / "report.html").read_bytes()
    page = Page(content.decode())
    require_harmless(page)
    assert HOSTILE[0] in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert not set(content) & {0, 27}
    assert "x" * 200 not in page.text


def test_unusual_meta_is_shown_unchanged(
    score_once: Any, ladm: Any, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    rows = topical_rows(golden, [700, 692, 684, 676])
    for row, meta in zip(rows, ["plain words", "[" * 5000, None, "x"], strict=True):
        row |= {"meta": meta, "chunked_index": 7}
    score_once(save_rows(rows), output=tmp_path / "run")
    for key, domains in {"meta.pile_set_name": {"(none) 4"}, "meta": {"plain words 1", "(none) 1"}}.items():
        assert ladm("report", tmp_path / "run", "--domain-key", key).exit_code == 0
        page = Page((tmp_path / "run" / "report.html").read_text())
        require_harmless(page)
        assert {domain for domain in domains if domain not in page.text} == set()
        assert " 0, 7 700 plain words " in page.text


def test_more_domains_than_are_shown(ladm: Any, make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ladm.report import overview

    run = make_run(["a", "b", "c"])
    monkeypatch.setattr(overview, "MOST_DOMAINS", 2)
    monkeypatch.setattr("ladm.report.page.MOST_DOMAINS", 2)
    assert ladm("report", run).exit_code == 0
    assert "Not shown: 1 smaller domain." in Page((run / "report.html").read_text()).text
    monkeypatch.setattr(overview, "MOST_DOMAINS_COUNTED", 2)
    result = ladm("report", run)
    assert (result.exit_code, result.stderr) == (
        1, f"ladm: {run} has more than 2 domains by meta.pile_set_name; give a coarser --domain-key, or none\n",
    )  # fmt: skip


def test_a_run_without_inspections_shows_the_commands(ladm: Any, make_run: Any) -> None:
    run = make_run(["a", "b"])
    assert ladm("report", run).exit_code == 0
    page = Page((run / "report.html").read_text())
    assert f"ladm inspect {run} ladm report {run} Best" in page.text
    odd = run.parent / "it's"
    run.rename(odd)
    assert ladm("report", odd, "--domain-key", "meta.title", "--output", run.parent / "p.html").exit_code == 0
    page = Page((run.parent / "p.html").read_text())
    options = f"--output {run.parent}/p.html --domain-key meta.title"
    quoted = "'" + str(odd).replace("'", "'\"'\"'") + "'"
    assert f"ladm inspect {quoted} ladm report {quoted} {options}" in page.text


def test_domains_by_a_column_that_the_run_repeats(
    score_once: Any, ladm: Any, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    rows = topical_rows(golden, [700, 692, 684, 676])
    for k, row in enumerate(rows):
        row |= {"source": "web" if k else None, "domain": "prose", "meta": {"pile_set_name": None if k else "code"}}
    score_once(save_rows(rows), output=tmp_path / "run")
    # By the default key, a row whose meta has no domain has that of its column.
    for flags, domains in (
        (("--domain-key", "source"), ["(none) 1", "web 3"]),
        (("--domain-key", "domain"), ["prose 4"]),
        ((), ["code 1", "prose 3"]),
    ):
        result = ladm("report", tmp_path / "run", *flags)
        assert result.exit_code == 0, result.output
        page = Page((tmp_path / "run" / "report.html").read_text())
        assert [domain for domain in domains if domain not in page.text] == []
        data = json.loads(page.scripts[0])
        assert sorted(data["domains"]) == [domain.rsplit(" ", 1)[0] for domain in domains]


def test_a_subset_is_shown_with_its_lowest_score(ladm: Any, make_run: Any, tmp_path: Path) -> None:
    run = make_run(["a", "b", "a", "b", "a", "b"])
    subset = tmp_path / "subset"
    selected = ("select", run, "--rows", tmp_path / "rows", "--tokens", "1500")
    assert ladm(*selected, "--output", subset).exit_code == 0
    result = ladm("report", run, "--subset", subset)
    assert result.exit_code == 0, result.output
    manifest = read_object(subset / "manifest.json")
    page = Page((run / "report.html").read_text())
    assert f"{manifest['taken_documents']} selected, {manifest['taken_tokens']:,} tokens" in page.text
    places = decimals([read_lines(run / "sorted_by_score.jsonl")[0]["score"]])
    for domain in manifest["domains"].values():
        assert f"{domain['taken_documents']} {domain['lowest_score_taken']:.{places}f}" in page.text
    filled = [a for t, a in page.tags if t == "circle" and a["r"] == "3.5" and a["class"] == "is"]
    assert len(filled) == manifest["taken_documents"]
    again = tmp_path / "again"
    assert ladm("rescore", run, "--layers", "1", "--output", again).exit_code == 0
    result = ladm("report", again, "--subset", subset)
    assert (result.exit_code, result.stderr) == (1, f"ladm: {subset} was not selected from {again}\n")
    result = ladm("report", run, "--subset", subset, "--domain-key", "meta.title")
    assert result.stderr == (
        f"ladm: {subset} was selected with --domain-key meta.pile_set_name; give the same --domain-key\n"
    )
    manifest["run"]["dtype"] = "bfloat16"
    (subset / "manifest.json").write_text(json.dumps(manifest))
    result = ladm("report", run, "--subset", subset)
    assert (result.exit_code, result.stderr) == (1, f"ladm: {subset} was not selected from {run}\n")
    (subset / "manifest.json").write_text(json.dumps(manifest | {"domains": 1}))
    result = ladm("report", run, "--subset", subset)
    assert result.stderr == f"ladm: {subset}/manifest.json is not a manifest of ladm select: domains is 1\n"
    result = ladm("report", run, "--subset", tmp_path)
    assert result.stderr == f"ladm: {tmp_path} is not a subset of ladm select: it has no manifest.json\n"


def test_error_messages_of_report(ladm: Any, make_run: Any, tmp_path: Path) -> None:
    run = make_run(["a", "b", "a"])
    # These rows have no such column, which the run would repeat.
    result = ladm("report", run, "--domain-key", "source")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (
        2,
        f"ladm: --domain-key source: {run} stores only meta, id, domain and source of the rows; give one of them, or "
        "none",
    )
    assert ladm("report", run, "--domain-key", "none").exit_code == 0
    result = ladm("report", run, "--domain-key", "meta.absent")
    assert (result.exit_code, result.stderr) == (
        0, "warning   no document has meta.absent, so all are one domain; give --domain-key another key\n",
    )  # fmt: skip
    assert "(none) 3" in Page((run / "report.html").read_text()).text
    result = ladm("report", run, "--output", tmp_path / "absent" / "page.html")
    assert (result.exit_code, result.stderr) == (
        74, f"ladm: cannot write {tmp_path}/absent/page.html: {tmp_path}/absent is not a writable folder\n",
    )  # fmt: skip
    assert ladm("inspect", run, "--top", "1").exit_code == 0
    (path,) = (run / "inspected").iterdir()
    whole = read_object(path)
    cases: list[tuple[Any, int, str]] = [
        (whole | {"format": 0}, 1, f"{path} was made by another version of ladm; remove it, or run ladm inspect again"),
        (whole | {"score": 1.0}, 1, f"{run}/inspected explains row {whole['position']}, but the run has another "
         "score for it; remove that folder, or run ladm inspect again"),
        ({k: v for k, v in whole.items() if k != "part"}, 74, f"{path} is damaged: KeyError: 'part'; remove it, or run "
         "ladm inspect again"),
        (whole | {"part": whole["part"][:-1]}, 74, f"{path} is damaged: ValueError: not every pair has a part and a "
         "PFS; remove it, or run ladm inspect again"),
        (whole | {"num_tokens": 300}, 74, f"{path} is damaged: ValueError: its scored spans are out of "
         "order or end after the last token; remove it, or run ladm inspect again"),
        (whole | {"position": 1e999}, 74, f"{path} is damaged: OverflowError: cannot convert float infinity to "
         "integer; remove it, or run ladm inspect again"),
        (whole | {"i": [spans[::-1] for spans in whole["i"]]}, 74, f"{path} is damaged: ValueError: its earlier spans "
         "are out of order; remove it, or run ladm inspect again"),
        (whole | {"part": [[float("nan")] * len(x) for x in whole["part"]]}, 74, f"{path} is damaged: ValueError: a "
         "part or a PFS is not a finite number; remove it, or run ladm inspect again"),
        (whole | {"pairs": [1]}, 74, f"{path} is damaged: TypeError: 'int' object is not subscriptable; remove it, or "
         "run ladm inspect again"),
        ([], 74, f"{path} is damaged: it does not hold a JSON object; restore it from a copy, or "
         "make it again"),
    ]  # fmt: skip
    for content, code, message in cases:
        path.write_text(json.dumps(content))
        result = ladm("report", run)
        assert (result.exit_code, result.stderr) == (code, f"ladm: {message}\n")
    path.write_text("{")
    result = ladm("report", run)
    assert (result.exit_code, result.stderr[: len(f"ladm: {path} is damaged: ")]) == (74, f"ladm: {path} is damaged: ")
    path.unlink()
    path.mkdir()
    assert ladm("report", run).stderr == f"ladm: cannot read {path}: Is a directory\n"
    shutil.rmtree(run / "inspected")
    (run / "inspected").write_text("")
    assert ladm("report", run).stderr == f"ladm: {run}/inspected is a file; move it away\n"
    (run / "inspected").unlink()
    (run / "errors.jsonl").unlink()
    result = ladm("report", run)
    assert (result.exit_code, result.stderr) == (
        3, f"ladm: {run} is not finished: errors.jsonl missing; run the same ladm score command again\n",
    )  # fmt: skip


def test_scales_and_their_ticks() -> None:
    line = scale([0.02, 0.5, 0.11], 400)
    assert line.logarithmic
    assert (line.place(0.02), line.place(0.1), line.place(0.5)) == (0, 200, 400)
    assert [text for _, text in line.ticks()] == ["0.02", "0.05", "0.1", "0.2", "0.5"]
    assert [text for _, text in scale([1.0, 3.0], 100).ticks()] == ["1", "1.5", "2", "2.5", "3"]
    # Scores may be of any size.
    assert [text for _, text in scale([2e-13, 4e-13], 100).ticks()] == ["2e-13", "2.5e-13", "3e-13", "3.5e-13", "4e-13"]
    assert scale([2.0, 2.0], 100).place(2.0) == 50
    assert len(scale([1e-9, 1.0], 100).ticks()) <= 11
    assert scale([0.0, 0.0], 100).place(0.0) == 50


@pytest.mark.parametrize(("d_afs", "d_cds"), [(1, 1), (3, 2), (4, 4)])
def test_a_pixel_is_at_the_place_of_its_pair(d_afs: int, d_cds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one pair that adds to the score there is one bright pixel, and it is under its mark."""
    import base64
    import io

    import matplotlib
    from matplotlib.image import imread

    j = list(range(12 + (63 - 12) % d_cds, 64, d_cds))
    i = [list(range(k - 4, 0, -d_afs))[::-1] for k in j]
    part = [[0.0] * len(spans) for spans in i]
    row, column = len(j) // 2, len(i[len(j) // 2]) // 2
    part[row][column] = 2.0
    nothing = SpanText(first_token=0, tokens=[], weights=[], before="", after="")
    pair = SpanPair(i=i[row][column], j=j[row], part=2.0, pfs=1.0, later=nothing, earlier=nothing)
    found = InspectedDocument(
        made_with={}, position=0, index=0, chunked_index=None, num_tokens=64 * 16 + 5, score=2.0, score_here=2.0,
        span_tokens=16, first_token=5, columns=[], j=j, i=i, pfs=part, part=part, excerpt="", pairs=[pair],
    )  # fmt: skip
    monkeypatch.setitem(matplotlib.rcParams, "image.origin", "lower")
    drawn = heat_map(found, brightest([found]))
    picture = imread(io.BytesIO(base64.b64decode(drawn.image.removeprefix("data:image/png;base64,"))))
    bright = [(y, x) for y in range(picture.shape[0]) for x in range(picture.shape[1]) if picture[y, x, 0] > 0.9]
    assert len(bright) == 1
    ((at_x, at_y, number),) = drawn.marks
    x, y, width, height = drawn.box
    assert number == 1
    assert int((at_y - y) / height * picture.shape[0]) == bright[0][0]
    assert int((at_x - x) / width * picture.shape[1]) == bright[0][1]
    assert [length for _, _, length in drawn.by_later].index(1.0) == row
    distance = (j[row] - i[row][column]) * 16
    (where,) = [name for name, share in shares_by_distance(found) if share == 1.0]
    low = 0 if where.startswith("under") else int(where.split()[0].replace(",", ""))
    assert low <= distance


def test_metadata_in_words() -> None:
    """Other values than text are shown as in the corpus, which is JSON, and not as Python writes them."""
    for meta in (
        given := {"title": "Acts", "year": 1611, "ok": True, "host": None, "deep": {"q": "é"}},
        json.dumps(given),
    ):
        assert readable_meta(meta) == 'title Acts · year 1611 · ok true · host null · deep {"q": "é"}'
    assert [readable_meta(meta) for meta in (None, "plain", [1, None], '["a"]', True)] == [
        "", "plain", "[1, null]", '["a"]', "true",
    ]  # fmt: skip
