"""The explorer of a page in headless Chromium: what a person sees, drags, types and downloads there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.browser import DESKTOP, PHONE, Browser, chromium
from support.models import SMALL
from support.pages import HOSTILE
from support.rows import topical_rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="no Chromium; ./scripts/test.sh --all installs one where it can"),
]
DOCUMENTS = 40
LENGTHS = [700 - 4 * k for k in range(DOCUMENTS)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = chromium()
    assert program is not None
    opened = Browser(program)
    yield opened
    opened.close()


@pytest.fixture
def run(score_once: Any, save_rows: Any, golden: Any, tmp_path: Path) -> Path:
    """Documents of three domains, whose texts and names try to be more than text."""
    rows = topical_rows(golden, LENGTHS)
    for k, row in enumerate(rows):
        row["meta"] = json.dumps({"pile_set_name": ["prose", "code", HOSTILE[0]][k % 3], "title": HOSTILE[k % 6]})
        row["text"] = f"document {k}\n{HOSTILE[k % 4]}\u2028<!-- \u202e\nlast line"
        row["id"] = f"id-{k}"
    return Path(score_once(save_rows(rows), output=tmp_path / "run"))


@pytest.fixture
def page(ladm: Any, run: Path) -> Path:
    assert ladm("report", run).exit_code == 0
    return run / "report.html"


@pytest.fixture
def page_of_subset(ladm: Any, run: Path, tmp_path: Path) -> Path:
    selected = ("select", run, "--rows", tmp_path / "rows", "--tokens", "9000", "--output", tmp_path / "subset")
    assert ladm(*selected).exit_code == 0
    assert ladm("report", run, "--subset", tmp_path / "subset").exit_code == 0
    return run / "report.html"


TAKEN = "document.getElementById('x-total').textContent"
LISTED = "[...document.querySelectorAll('#x-list summary')].map((one) => one.getAttribute('aria-label'))"


def choose(browser: Browser, name: str, value: str, event: str = "change") -> None:
    """Set a control as a person would, with the event that this causes."""
    browser.run(
        f"(() => {{ const one = document.getElementById('{name}'); one.value = {json.dumps(value)};"
        f" one.dispatchEvent(new Event('{event}')); }})()"
    )


def taken(browser: Browser) -> tuple[int, int]:
    """Documents and tokens that the cut takes."""
    found = re.match(r"Takes ([\d,]+) of [\d,]+ documents \(.*?\) and ([\d,]+) of", browser.run(TAKEN))
    assert found is not None
    return int(found[1].replace(",", "")), int(found[2].replace(",", ""))


def test_the_cut_moves_by_keyboard_and_counts_what_it_takes(browser: Browser, page: Path) -> None:
    browser.open(page)
    data = json.loads(browser.run("document.getElementById('x-data').textContent"))
    score = data["columns"][0]
    seen = set()
    browser.run("document.getElementById('x-cut').focus()")
    for times in (1, 25, 25):
        browser.press("ArrowRight", 39, times=times)
        cut = int(browser.run("document.getElementById('x-cut').value"))
        expected = [document[1] for document in data["documents"] if document[7][0] >= score["edges"][cut]]
        assert taken(browser) == (len(expected), sum(expected))
        marked = browser.run("document.querySelectorAll('#x-list .mark.on').length")
        assert marked == min(25, len(expected))
        words = browser.run("document.getElementById('x-cut').getAttribute('aria-valuetext')")
        assert f"{len(expected)} documents" in words
        assert f"--min-score {score['edges'][cut]} " in browser.run("document.getElementById('x-command').textContent")
        seen.add(len(expected))
    assert len(seen) > 1
    browser.press("Home", 36)
    assert taken(browser) == (DOCUMENTS, sum(LENGTHS))
    browser.press("End", 35)
    assert taken(browser) == (0, 0)
    assert browser.problems() == []
    assert [url for url in browser.requests() if not url.startswith("data:image/png")] == [page.as_uri()]


def test_the_command_that_the_page_shows_takes_what_it_says(ladm: Any, browser: Browser, page: Path) -> None:
    browser.open(page)
    documents, tokens = taken(browser)
    command = browser.run("document.getElementById('x-command').textContent").split()
    assert command[:2] == ["ladm", "select"]
    output = page.parent.parent / "by-command"
    assert ladm(*command[1:-1], str(output)).exit_code == 0
    manifest = json.loads((output / "manifest.json").read_text())
    assert (manifest["taken_documents"], manifest["taken_tokens"]) == (documents, tokens)


def test_the_histogram_can_be_dragged(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run("document.getElementById('x-all').scrollIntoView({ block: 'center' })")
    box = browser.run("(() => { const b = document.getElementById('x-all').getBoundingClientRect();"
                      " return [b.left, b.top, b.width, b.height]; })()")  # fmt: skip
    left, top, width, height = box
    at = {"y": top + height / 2, "button": "left", "buttons": 1, "clickCount": 1}
    browser.call("Input.dispatchMouseEvent", type="mousePressed", x=left + width * 0.25, **at)
    assert browser.run("document.getElementById('x-cut').value") == "50"
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=left + width * 0.75, **at)
    assert browser.run("document.getElementById('x-cut').value") == "150"
    browser.call("Input.dispatchMouseEvent", type="mouseReleased", x=left + width * 0.75, **at)


def test_a_subset_is_shown_as_selected(browser: Browser, page_of_subset: Path) -> None:
    browser.open(page_of_subset)
    manifest = json.loads((page_of_subset.parent.parent / "subset" / "manifest.json").read_text())
    assert taken(browser) == (manifest["taken_documents"], manifest["taken_tokens"])
    assert browser.run("document.getElementById('x-cut').hidden")
    choose(browser, "x-group", "all")
    browser.run("document.getElementById('x-more').click()")
    assert sum("not taken" not in label for label in browser.run(LISTED)) == manifest["taken_documents"]
    assert browser.run("document.getElementById('x-cut-title').textContent") == "Cut of the subset"
    assert browser.run("document.querySelectorAll('#x-domains .cut').length") == 3
    # Another column has the same documents filled, and no cut of the subset.
    choose(browser, "x-column", "1")
    assert taken(browser) == (manifest["taken_documents"], manifest["taken_tokens"])
    assert browser.run("document.getElementById('x-cut-title').textContent") == "The subset as selected"
    assert browser.run("document.querySelectorAll('#x-domains .cut').length") == 0
    browser.run("document.querySelector('input[value=share]').click()")
    choose(browser, "x-cut", "100", event="input")
    assert taken(browser) == (DOCUMENTS, sum(LENGTHS))
    assert browser.problems() == []


def test_one_domain_is_shown_once(ladm: Any, browser: Browser, run: Path) -> None:
    found = []
    for flags in ((), ("--domain-key", "none")):
        assert ladm("report", run, *flags).exit_code == 0
        browser.open(run / "report.html")
        hidden = [
            browser.run(f"document.getElementById('{name}').hidden") for name in ("x-domain-choice", "x-by-domain")
        ]
        found.append((hidden, browser.run("document.querySelector('#x-list bdi').textContent").startswith("id-")))
        assert browser.problems() == []
    assert found == [([False, False], False), ([True, True], True)]


def test_a_guarded_subset_is_marked_and_can_be_listed(ladm: Any, browser: Browser, run: Path, tmp_path: Path) -> None:
    subset = tmp_path / "guarded"
    flags = ("--within", "length:-680", "--top", "30%", "--domain-key", "none")
    assert ladm("select", run, "--rows", tmp_path / "rows", *flags, "--output", subset).exit_code == 0
    assert ladm("report", run, "--subset", subset, "--domain-key", "none").exit_code == 0
    browser.open(run / "report.html")
    manifest = json.loads((subset / "manifest.json").read_text())
    ids = {f"id-{position}" for position in manifest["chosen"][0]["positions"]}
    assert 0 < len(ids) < DOCUMENTS
    assert taken(browser) == (manifest["taken_documents"], manifest["taken_tokens"]) == (len(ids), taken(browser)[1])
    for group, expected in (("taken", ids), ("left", {f"id-{k}" for k in range(DOCUMENTS)} - ids)):
        choose(browser, "x-group", group)
        browser.run("document.getElementById('x-more').click()")
        labels = browser.run(LISTED)
        assert {re.search(r"id-\d+", label)[0] for label in labels} == expected
        assert {label.endswith(", not taken") for label in labels} == {group == "left"}
    # Whoever drags a cut still sees which documents the subset has.
    browser.run("document.querySelector('input[value=value]').click()")
    choose(browser, "x-group", "taken")
    browser.run("document.querySelector('#x-list details').open = true")
    assert browser.wait_until("document.querySelector('#x-list .values')?.textContent").endswith("in the subset yes")
    assert browser.problems() == []


def test_search_domain_order_and_download(browser: Browser, page: Path, tmp_path: Path) -> None:
    browser.open(page)
    data = json.loads(browser.run("document.getElementById('x-data').textContent"))
    choose(browser, "x-domain", str(data["domains"].index("code")))
    choose(browser, "x-group", "all")
    labels = browser.run(LISTED)
    assert len(labels) == 13
    assert all(", code, " in label for label in labels)
    names = [column["name"] for column in data["columns"]]
    choose(browser, "x-column", str(names.index("length")))
    choose(browser, "x-order", "up")
    lengths = [int(re.search(r"length (\d+)", label)[1]) for label in browser.run(LISTED)]  # type: ignore[index]
    assert lengths == sorted(LENGTHS[k] for k in range(DOCUMENTS) if k % 3 == 1)
    choose(browser, "x-search", "ID-1", event="input")
    wanted = [k for k in range(DOCUMENTS) if k % 3 == 1 and str(k).startswith("1")]
    assert len(browser.run(LISTED)) == len(wanted)
    browser.downloads_to(tmp_path)
    browser.run("document.getElementById('x-download').click()")
    browser.wait_for("Browser.downloadProgress", state="completed")
    assert (tmp_path / "ids.txt").read_text().split() == [f"id-{k}" for k in sorted(wanted, key=lambda k: LENGTHS[k])]
    choose(browser, "x-search", "no such words", event="input")
    assert browser.run("document.getElementById('x-found').textContent").startswith("0 documents")
    assert browser.problems() == []


def test_a_document_opens_by_keyboard_and_from_the_scatter(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run("document.querySelector('#x-list summary').focus()")
    browser.press("Enter", 13)
    opened = browser.wait_until("document.querySelector('#x-list details[open] .lines')?.textContent")
    assert re.match(r"document \d+\n", opened)
    browser.run("document.querySelector('#x-list details[open]').open = false")
    name = browser.run("(() => { const one = document.querySelectorAll('#x-scatter circle')[3];"
                       " one.dispatchEvent(new Event('click')); return one.textContent; })()")  # fmt: skip
    assert browser.run("document.activeElement.getAttribute('aria-label')").count(name.split(" ")[0]) == 1
    assert browser.problems() == []


def test_hostile_text_is_only_text(browser: Browser, page: Path) -> None:
    browser.open(page)
    choose(browser, "x-group", "all")
    browser.run("document.getElementById('x-more').click()")
    browser.run("document.querySelectorAll('#x-list details').forEach((one) => { one.open = true; })")
    browser.wait_until(f"document.querySelectorAll('#x-list .lines').length === {DOCUMENTS}")
    assert HOSTILE[0] in browser.run("document.getElementById('x-list').textContent")
    assert browser.run("document.querySelectorAll('img, iframe, [onerror], a[href^=http]').length") == 0
    assert browser.run("document.querySelectorAll('script').length") == 2
    assert "\u202e" not in browser.run("document.body.textContent")
    # Another script, such as one that slipped through the escaping, is refused by the policy of the page.
    browser.run("(() => { const one = document.createElement('script'); one.textContent = 'window.slipped = 1';"
                " document.body.append(one); })()")  # fmt: skip
    assert browser.run("typeof window.slipped") == "undefined"
    assert "script-src" in "".join(browser.problems())


def luminance(colour: str) -> float:
    """Relative luminance of a colour as a browser gives it, by WCAG 2."""
    parts = [float(x) / 255 for x in re.findall(r"[\d.]+", colour)[:3]]
    red, green, blue = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_looks_at_any_width_in_light_and_dark(
    browser: Browser, page_of_subset: Path, size: tuple[int, int], *, dark: bool
) -> None:
    for scripts in (True, False):
        browser.open(page_of_subset, size=size, dark=dark, scripts=scripts)
        assert browser.call("Page.getLayoutMetrics")["cssContentSize"]["width"] == size[0]
    browser.open(page_of_subset, size=size, dark=dark)
    taken, other, paper = browser.run(
        "[['#x-all .is', 'fill'], ['#x-all .not', 'stroke'], ['body', 'backgroundColor']]"
        ".map(([one, what]) => getComputedStyle(document.querySelector(one))[what])"
    )
    # Filled against hollow: the inside of a hollow mark is the paper.
    assert contrast(taken, paper) >= 3
    assert contrast(other, paper) >= 3
    browser.picture(page_of_subset.parent / f"{size[0]}-{dark}.png")


def test_every_control_has_a_name(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.call("Accessibility.enable")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"combobox", "slider", "radio", "button", "searchbox", "textbox", "image", "table", "list"}
    controls = [node for node in nodes if not node["ignored"] and node["role"]["value"] in roles]
    found = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in controls}
    assert {role for role, _ in found} >= {"combobox", "slider", "radio", "button", "searchbox", "image", "table"}
    assert ("searchbox", "Search in ids, sources, texts and metadata") in found
    assert ("combobox", "Column") in found
    unnamed = [role for role, name in found if not name and role not in ("table", "list")]
    assert unnamed == []


def test_without_script_the_page_shows_its_lists(browser: Browser, page: Path) -> None:
    browser.open(page, scripts=False)
    # Scripts of the page do not run, but the protocol can still read it.
    found = browser.call("DOM.getDocument", depth=-1)
    node = browser.call("DOM.querySelector", nodeId=found["root"]["nodeId"], selector="#explorer")["nodeId"]
    with pytest.raises(Exception, match="box model"):
        browser.call("DOM.getBoxModel", nodeId=node)
    node = browser.call("DOM.querySelector", nodeId=found["root"]["nodeId"], selector="#x-static details")["nodeId"]
    assert browser.call("DOM.getBoxModel", nodeId=node)["model"]["height"] > 0


def test_the_table_of_quartiles_fits_a_desktop(
    ladm: Any, browser: Browser, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    """With all the columns that a run scored by `robust` shows there."""
    rows = topical_rows(golden, [400 + 8 * k for k in range(8)])
    scored = ladm("score", save_rows(rows), *SMALL, "--score", "robust", "--output", tmp_path / "run")
    assert scored.exit_code == 0, scored.output
    assert ladm("report", tmp_path / "run").exit_code == 0
    browser.open(tmp_path / "run" / "report.html", size=DESKTOP)
    table = "document.querySelector('table.quartiles')"
    names = browser.run(f"[...{table}.querySelectorAll('th')].map((one) => one.textContent).join(' ')")
    assert names == (
        "domain documents score (robust) released gzip_ratio far_rare unigram_entropy repeated_13grams digits"
    )
    assert browser.run(f"{table}.parentElement.scrollWidth <= {table}.parentElement.clientWidth")
