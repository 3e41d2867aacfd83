"""Expressions of columns to rank by and guards to keep within, as `ladm select` reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladm.errors import UsageError
from ladm.selection.evaluation import evaluate
from ladm.selection.ranks import average_ranks
from ladm.settings.expressions import parse_expression, parse_expressions, spell_column
from ladm.settings.guards import BandGuard, Guard, Limit, parse_guard


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", [4, 1, np.nan, 2]),
        ("-a + 2 * b", [-4 + 2, -1 + 4, np.nan, -2 + 6]),
        ("(a - b) / b", [3, -0.5, np.nan, -1 / 3]),
        ("rank(a)", [1, 1 / 3, np.nan, 2 / 3]),
        ("rank(a) + rank(b)", [1 + 1 / 4, 1 / 3 + 2 / 4, np.nan, 2 / 3 + 3 / 4]),
        ("rank(-a)", [1 / 3, 1, np.nan, 2 / 3]),
        ("log(a) * 1", [np.log(4), 0, np.nan, np.log(2)]),
        ("1 / (a - 1)", [1 / 3, np.nan, np.nan, 1]),
        ("log(a - 4)", [np.nan] * 4),
        ("rank(1 / (a - 1))", [1 / 2, np.nan, np.nan, 1]),
        ("z(1 / (a - 1))", [-1, np.nan, np.nan, 1]),
        ("z(log(a - 1))", [1, np.nan, np.nan, -1]),
        ("1 / (1 / (a - 1))", [3, np.nan, np.nan, 1]),
        ("rank(1 / 0) * b", [np.nan] * 4),
        ("b + log(1) + z(3)", [1, 2, 9, 3]),
    ],
)
def test_an_expression_by_hand(text: str, expected: list[float]) -> None:
    columns = {"a": np.array([4, 1, np.nan, 2]), "b": np.array([1.0, 2.0, 9.0, 3.0])}
    np.testing.assert_allclose(evaluate(parse_expression(text), columns, read_documents=_not_needed), expected)


def _not_needed() -> Any:
    raise AssertionError("which documents rows are of is read for document_mean alone")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("document_mean(a)", [2, 2, 2, 6, np.nan]),
        ("document_mean(a) - a", [-2, np.nan, 2, 0, np.nan]),
        ("document_mean(rank(a))", [1 / 2, 1 / 2, 1 / 2, 1, np.nan]),
        ("rank(document_mean(a))", [1 / 2, 1 / 2, 1 / 2, 1, np.nan]),
        ("document_mean(1 / a)", [1 / 4, 1 / 4, 1 / 4, 1 / 6, np.nan]),
    ],
)
def test_the_mean_over_the_rows_of_a_document(text: str, expected: list[float]) -> None:
    expression = parse_expression(text)
    assert expression.has_document_mean
    columns = {"a": np.array([4, np.nan, 0, 6, np.nan])}
    documents_N = np.array([7, 7, 7, -3, 9])
    np.testing.assert_allclose(evaluate(expression, columns, read_documents=lambda: documents_N), expected)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("rows.quality", ("rows.quality",)),
        ("rank(score) + rank(rows.meta.quality)", ("score", "rows.meta.quality")),
        ("-other.score + rows['language-score'] * 2", ("other.score", "rows.language-score")),
        ("rows['a.b'].c - rows.a.b.c", ("rows.a.b.c",)),
        ("rows['class']", ("rows.class",)),
    ],
)
def test_the_names_of_columns_beside_the_run(text: str, names: tuple[str, ...]) -> None:
    expression = parse_expression(text)
    assert expression.names == names
    columns = {name: np.array([float(k + 1)]) for k, name in enumerate(names)}
    assert evaluate(expression, columns, read_documents=_not_needed).shape == (1,)
    assert expression.is_column == (len(names) == 1 and "-" not in text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("score", "score"),
        ("rows.quality", "rows.quality"),
        ("rows.meta.edu-score", 'rows.meta["edu-score"]'),
        ('rows.a"b\\c', 'rows["a\\"b\\\\c"]'),
        ("rows.class", 'rows["class"]'),
        ("rows.\N{GRINNING FACE}", 'rows["\N{GRINNING FACE}"]'),
        ("rows.\N{LATIN SMALL LIGATURE FI}eld", 'rows["\N{LATIN SMALL LIGATURE FI}eld"]'),
    ],
)
def test_the_name_of_a_column_as_an_expression(name: str, text: str) -> None:
    assert spell_column(name) == text
    assert parse_expression(text).names == (name,)


def test_a_comma_inside_quotes_does_not_divide_a_list() -> None:
    texts = [each.text for each in parse_expressions("score, rank(rows[\"a,b\"]) ,rows['c\\',d'] + 1")]
    assert texts == ["score", 'rank(rows["a,b"])', "rows['c\\',d'] + 1"]
    for text in ("a,,b", 'a,"b', "", "a,"):
        with pytest.raises(UsageError, match="is not an expression of"):
            parse_expressions(text)


def test_a_name_that_no_expression_has() -> None:
    assert spell_column("their-signal") is None


@given(values=st.lists(st.integers(0, 5), max_size=30))
def test_ranks_agree_with_counting(values: list[int]) -> None:
    expected = [sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values]
    assert average_ranks(np.array(values, dtype=np.float64)).tolist() == expected


@pytest.mark.parametrize(
    "text",
    ["__import__('os')", "a.b()", "rank(a).b", "a[b]", "(a + b)['c']", "rank.a(b)", "a['b'].c(a)", "a[b'c']",
     "a ** 2", "a if b else a", "lambda: a", "a[0]", "f(a)", "rank(a, b)", "rank()", "'a'",
     "True + a", "a < b", "[a]", "rank(x=a)", "1e999 * a", "a // b", "a @ b", "~a", "not a", "(b := a)", "a and b",
     "1j * a", "rank(*a)"],
)  # fmt: skip
def test_an_expression_allows_nothing_else(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not allowed; an expression has columns, numbers"):
        parse_expression(text)


@pytest.mark.parametrize("text", ["", "a +", "a b", "(" * 400 + "a" + ")" * 400, "a\0", "-" * 999 + "a"])
def test_what_is_no_expression(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--by .* is not an expression of columns, numbers"):
        parse_expression(text)


def test_an_expression_without_a_column_or_too_long() -> None:
    with pytest.raises(UsageError, match="--by '1 \\+ 2' has no column in it"):
        parse_expression("1 + 2")
    with pytest.raises(UsageError, match="--by has 1,001 characters; at most 1,000 are read"):
        parse_expression("a" * 1001)


# Guards


@pytest.mark.parametrize(
    ("limits", "low", "high"),
    [
        ("0.2-0.5", 0.2, 0.5), ("-0.2", None, 0.2), ("0.2-", 0.2, None), ("-1.5--0.5", -1.5, -0.5), ("-1-", -1, None),
        ("--2", None, -2), ("-1-1", -1, 1), ("1e-3-2E-3", 1e-3, 2e-3), (".5-1.", 0.5, 1), ("3-3", 3, 3),
    ],
)  # fmt: skip
def test_limits_are_values(limits: str, low: float | None, high: float | None) -> None:
    guard = parse_guard(f"a:b:{limits}")
    assert isinstance(guard, Guard)
    expected = [None if value is None else Limit(value=value) for value in (low, high)]
    assert (guard.column, [guard.low, guard.high]) == ("a:b", expected)


def test_limits_are_quantiles_or_a_band() -> None:
    guard = parse_guard("a:20%-97.5%")
    low, high = Limit(value=0.2, is_quantile=True), Limit(value=0.975, is_quantile=True)
    assert guard == Guard(text="a:20%-97.5%", column="a", low=low, high=high)
    assert parse_guard("profile") == BandGuard(text="profile", column=None)
    assert parse_guard("a:profile") == BandGuard(text="a:profile", column="a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "--within 'a' is not COLUMN:LOW-HIGH, such as gzip_ratio:20%-80%, nor pool, pool/domain or profile"),
        (
            ":1-2",
            "--within ':1-2' is not COLUMN:LOW-HIGH, such as gzip_ratio:20%-80%, nor pool, pool/domain or profile",
        ),
        ("a:", "--within 'a:': '' is not LOW-HIGH, such as 0.2-0.5, 20%-80%, -0.5 or 0.2-"),
        ("a:-", "--within 'a:-': '-' is not LOW-HIGH, such as 0.2-0.5, 20%-80%, -0.5 or 0.2-"),
        ("a:5", "--within 'a:5': '5' is not LOW-HIGH, such as 0.2-0.5, 20%-80%, -0.5 or 0.2-"),
        ("a:x-2", "--within 'a:x-2': 'x-2' is not LOW-HIGH, such as 0.2-0.5, 20%-80%, -0.5 or 0.2-"),
        ("a:nan-1", "--within 'a:nan-1': 'nan-1' is not LOW-HIGH, such as 0.2-0.5, 20%-80%, -0.5 or 0.2-"),
        ("a:2-1", "--within 'a:2-1': 2 is above 1"),
        ("a:80%-20%", "--within 'a:80%-20%': 80% is above 20%"),
        ("a:20%-101%", "--within 'a:20%-101%': 101% is not a quantile from 0% to 100%"),
        ("a:-1e999", "--within 'a:-1e999': 1e999 is too large for a number; leave that end open"),
        ("a:-5%-20%", "--within 'a:-5%-20%': -5% is not a quantile from 0% to 100%"),
    ],
)
def test_invalid_guards(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_guard(text)
    assert str(error.value) == message


def test_zero_has_no_sign() -> None:
    """`-far_rare` is 0 where `far_rare` is, and shown as -0 it would look like another value."""
    columns = {"x": np.array([0.0, 1.0, -0.0])}
    for text in ("-x", "-1 * x", "-x + -x", "rank(x) - rank(x)"):
        values_N = evaluate(parse_expression(text), columns, read_documents=_not_needed)
        assert not np.signbit(values_N[values_N == 0]).any(), text
