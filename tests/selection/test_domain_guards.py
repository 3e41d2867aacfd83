"""Guards of `ladm select` whose quantiles are those of each domain."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladm.cli.display import _guard_table
from ladm.errors import LadmError, UsageError
from ladm.runs.folder import Run
from ladm.selection.guarding import GuardManifest, apply_guards
from ladm.selection.manifest_file import read_manifest
from ladm.settings.guards import POOL_GUARDS, Guard, Limit, parse_guard, parse_guards
from ladm.settings.value_guards import ValueGuard, parse_value_guard, spell_value
from ladm.storage.json_object import CHECKSUM
from support.commands import Command
from support.runs import add_signal
from support.subsets import selected


def test_how_they_are_written() -> None:
    assert parse_guard("far_rare:-80%/domain") == Guard(
        text="far_rare:-80%/domain", column="far_rare", high=Limit(value=0.8, is_quantile=True), by_domain=True
    )
    mixed = parse_guard("rows.quality:0.5-90%/domain")
    assert isinstance(mixed, Guard)
    assert (mixed.low, mixed.column, mixed.by_domain) == (Limit(value=0.5), "rows.quality", True)
    assert [(guard.text, guard.by_domain) for guard in parse_guards(["pool/domain"]) if isinstance(guard, Guard)] == [
        (f"{text}/domain", True) for text in POOL_GUARDS
    ]
    # Another column of the rows may hold such a text, which is then in quotes.
    text = spell_value("-80%/domain")
    assert text == '"-80%/domain"'
    assert parse_guard(f"rows.x:{text}") == parse_value_guard(f"rows.x:{text}")
    assert isinstance(parse_guard("rows.x:web/domain"), ValueGuard)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "length:100-400/domain",
            "--within 'length:100-400/domain': /domain is for quantiles, such as length:-80%/domain; a value is the "
            "same in every domain",
        ),
        (
            "length:-/domain",
            "--within 'length:-/domain': '-/domain' is not LOW-HIGH, such as 0.2-0.5, 20%-80%, -0.5 or 0.2-",
        ),
        (
            "profile/domain",
            "--within 'profile/domain' is not COLUMN:LOW-HIGH, such as gzip_ratio:20%-80%, nor pool, pool/domain or "
            "profile",
        ),
        (
            "length:profile/domain",
            "--within 'length:profile/domain': 'profile/domain' is not LOW-HIGH, such as 0.2-0.5, 20%-80%, -0.5 or "
            "0.2-",
        ),
        (
            "length:/domain",
            "--within 'length:/domain': '/domain' is not LOW-HIGH, such as 0.2-0.5, 20%-80%, -0.5 or 0.2-",
        ),
        ("length:80%-20%/domain", "--within 'length:80%-20%/domain': 80% is above 20%"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_guard(text)
    assert str(error.value) == message


_VALUES = st.one_of(st.floats(-5, 5), st.just(float("nan")))


@given(st.lists(st.tuples(st.integers(0, 3), _VALUES), min_size=1, max_size=40), st.floats(0, 0.5), st.floats(0.5, 1))
def test_each_domain_has_its_own_quantiles(documents: list[tuple[int, float]], low: float, high: float) -> None:
    codes, values = np.array([d for d, _ in documents], np.int32), np.array([x for _, x in documents])
    guard = Guard(
        text="x:10%-90%/domain", column="x", low=Limit(value=low, is_quantile=True),
        high=Limit(value=high, is_quantile=True), by_domain=True,
    )  # fmt: skip
    names = ["a", "b", "c", "d"]
    expected, limits = np.zeros(len(codes), np.bool_), {}
    for code, name in enumerate(names):
        known = [x for d, x in documents if d == code and not np.isnan(x)]
        if known:
            limits[name] = [float(np.quantile(known, low)), float(np.quantile(known, high))]
            expected |= (codes == code) & (values >= limits[name][0]) & (values <= limits[name][1])
    kept = np.ones(len(codes), np.bool_)
    if not expected.any():
        why = "no document that was left for it has a value of x" if np.isnan(values).all() else "give it wider limits"
        with pytest.raises(LadmError, match=f"leaves no document; {why}"):
            apply_guards([guard], {"x": values}, kept, codes_N=codes, names=names, float32=())
        return
    (found,) = apply_guards([guard], {"x": values}, kept, codes_N=codes, names=names, float32=())
    assert kept.tolist() == expected.tolist()
    assert (found.low, found.high, found.limits_by_domain) == (None, None, limits)
    assert sum(found.dropped.values()) + found.without_value + kept.sum() == len(codes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x:-80%/domain", "x of at most the 80% quantile of each domain"),
        ("x:7%-/domain", "x of at least the 7% quantile of each domain"),
        ("x:10%-90%/domain", "x from the 10% to the 90% quantile of each domain"),
        ("x:0-90%/domain", "x from 0 to the 90% quantile of each domain"),
        # A value is no quantile of a domain.
        ("x:20%-0.5/domain", "x from the 20% quantile of each domain to 0.5"),
    ],
)
def test_the_limits_in_words(text: str, words: str) -> None:
    found, _ = _applied(text, [0.0, 0.25, 0.5], [0, 0, 0])
    assert found.limits_text == words


def _applied(text: str, values: list[float], codes: list[int]) -> tuple[GuardManifest, list[bool]]:
    """What a guard of the column `x` dropped, and which documents it kept."""
    kept = np.ones(len(values), np.bool_)
    (found,) = apply_guards(
        [parse_guard(text)], {"x": np.array(values)}, kept, codes_N=np.array(codes, np.int32),  # type: ignore[list-item]
        names=["a", "b", "c"], float32=(),
    )  # fmt: skip
    return found, kept.tolist()


def test_domains_of_few_documents_and_without_values() -> None:
    nan = float("nan")
    # Of one document nothing is dropped, of two one; domain c has no value.
    found, kept = _applied("x:-95%/domain", [9.0, 1.0, 2.0, nan, nan], [0, 1, 1, 1, 2])
    assert kept == [True, True, False, False, False]
    assert found.limits_by_domain == {"a": [None, 9.0], "b": [None, pytest.approx(1.95)]}
    assert (found.dropped, found.without_value) == ({"b": 1}, 2)


def test_a_value_where_a_quantile_was_meant() -> None:
    message = (
        "--within x:10-90%/domain leaves no document; its lower limit is above its upper one in every domain; "
        "quantiles have a % at both ends, such as 10%-90%"
    )
    with pytest.raises(LadmError) as error:
        _applied("x:10-90%/domain", [1.0, 2.0, 3.0], [0, 0, 1])
    assert str(error.value) == message
    # The limits are in order in domain b alone, where no document lies between them.
    with pytest.raises(LadmError, match="leaves no document; give it wider limits$"):
        _applied("x:1-50%/domain", [0.0, 0.5, 0.0, 4.0], [0, 0, 1, 1])


def test_a_domain_of_high_values_keeps_its_share(ladm: Command, scored: tuple[str, Path]) -> None:
    rows, run = scored
    # Documents 1, 5 and 7 are of domain 1. Row 3 has no score.
    weight = {0: 0.1, 1: 10, 2: 0.2, 4: 0.3, 5: 20, 6: 0.4, 7: 30}
    add_signal(Run.read(run), "other", {"weight": weight})
    everything = ("--rows", rows, "--documents", "100", "--allow-small-pool")
    assert selected(ladm, run, *everything, "--within", "weight:-60%")["positions"] == [0, 2, 4, 6]
    flags = (*everything, "--within", "weight:30%-70%/domain")
    found = selected(ladm, run, *flags)
    assert found["positions"] == [2, 4, 5]
    assert found["guards"] == [
        {"given": "weight:30%-70%/domain", "column": "weight", "low": None, "high": None,
         "dropped": {"domain 0": 2, "domain 1": 2}, "without_value": 0,
         "limits_by_domain": {"domain 0": pytest.approx([0.19, 0.31]), "domain 1": pytest.approx([16, 24])}},
    ]  # fmt: skip
    line = (
        "dropped by --within weight:30%-70%/domain: 4, keeping weight from the 30% to the 70% quantile of each domain "
        "(domain 0 2, domain 1 2)"
    )
    assert line in found["table"]
    subset = run.parent / "subset"
    manifest = read_manifest(subset)
    assert manifest.guards[0].limits_by_domain == found["guards"][0]["limits_by_domain"]
    # The same command finds its subset, and the page shows the guard.
    assert ladm("select", run, *flags, "--output", subset).exit_code == 0
    assert ladm("report", run, "--rows", rows, "--subset", subset).exit_code == 0
    assert "weight from the 30% to the 70% quantile of each domain" in (run / "report.html").read_text()
    # Without domain 1, and in one domain of all, the quantiles are others.
    assert selected(ladm, run, *flags, "--exclude-domain", "domain 1")["positions"] == [2, 4]
    assert selected(ladm, run, *flags, "--domain-key", "none")["positions"] == [1, 4, 6]


def test_the_line_of_a_guard_names_the_domains_that_lost_most() -> None:
    dropped = {f"d{k:02d}": k % 7 + 1 for k in range(30)}
    manifest = SimpleNamespace(guards=[GuardManifest(
        given="x:-1", column="x", low=None, high=1.0, dropped=dropped, without_value=0
    )])  # fmt: skip
    (line,) = _guard_table(manifest)  # type: ignore[arg-type]
    assert line.startswith("dropped by --within x:-1: 115, keeping x of at most 1 (d06 7, d13 7, d20 7, d27 7, d05 6, ")
    assert line.endswith(", d04 5, d11 5, d18 5, d25 5, and 18 domains more)")


def test_a_manifest_with_limits_that_its_guard_does_not_have(ladm: Command, scored: tuple[str, Path]) -> None:
    rows, run = scored
    selected(ladm, run, "--rows", rows, "--documents", "2", "--within", "length:-90%")
    path = run.parent / "subset" / "manifest.json"
    content = json.loads(path.read_text())
    del content[CHECKSUM]
    content["guards"][0]["limits_by_domain"] = {}
    path.write_text(json.dumps(content))
    with pytest.raises(LadmError, match="limits_by_domain is there for 'length:-90%'"):
        read_manifest(path.parent)
