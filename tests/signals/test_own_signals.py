"""`ladm.Scorer.from_signal`: what a signal of one's own may return, and what its author reads otherwise."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

import ladm
from ladm.corpus.rows.row import Ids, Row, token_ids
from ladm.signals.scorer import ScorerOutput


class Own:
    """A signal that returns the same for every row."""

    asynchronous = False

    def __init__(self, output: Any) -> None:
        self._output = output

    def check(self, row: Row) -> Ids:
        return token_ids(row, vocab_size=100)

    def score(self, ids_BT: Any, *, low_memory: bool = False) -> Callable[[], list[ScorerOutput]]:  # noqa: ARG002
        return lambda: [self._output for _ in ids_BT]


def score(output: Any) -> ladm.RowScore:
    return ladm.Scorer.from_signal(Own(output)).score([1, 2, 3])[0]


@pytest.mark.parametrize(
    "value", [0.5, np.float32(0.5), np.float64(0.5), Fraction(1, 2), 1, np.int64(1), np.array(0.5), torch.tensor(0.5)]
)
def test_a_score_is_any_real_number(value: Any) -> None:
    found = score(ScorerOutput(score=value)).score
    assert (type(found), found) == (float, float(value))


def test_columns_are_numbers_and_lists_of_numbers() -> None:
    extras: dict[str, Any] = {"a": np.float32(0.5), "b": [1, 2], "c": np.arange(2), "d": torch.ones(2), "e": 3}
    found = score(ScorerOutput(score=None, extras=extras))
    assert found.score == 0.5
    assert found.columns == {"a": 0.5, "b": [1.0, 2.0], "c": [0.0, 1.0], "d": [1.0, 1.0], "e": 3.0}


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (ScorerOutput(score="0.5"), "gives the score as a str; return a number such as float(score)"),  # type: ignore[arg-type]
        (ScorerOutput(score=True), "gives the score as a bool; return a number such as float(score)"),
        (ScorerOutput(score=torch.ones(1)), "gives the score as a Tensor; return a number such as float(score)"),  # type: ignore[arg-type]
        (
            ScorerOutput(score=None),
            "gives no score and no column; return a number as the score or as the first of the extras",
        ),
        (
            ScorerOutput(score=None, extras={"a": [1.0, 2.0]}),
            "gives no score and a list as its first column; return a number as the score or as the first of the extras",
        ),
        *(
            (
                ScorerOutput(score=0.5, extras={"a": value}),  # type: ignore[dict-item]
                f"gives the column 'a' as {kind}; return a number or a list of numbers",
            )
            for value, kind in (
                ("1", "a str"), (None, "None"), ([1.0, None], "a list"), ([[1.0], [2.0, 3.0]], "a list"),
                (np.zeros((2, 2)), "a ndarray"), (torch.ones(1, requires_grad=True), "a Tensor"),
            )
        ),
        (ScorerOutput(score=0.5, extras=[1.0]), "gives the extras as a list; return a dict of columns by name"),  # type: ignore[arg-type]
        (0.5, "gives an object of type float for 1 row; return one ScorerOutput for each row, in a list"),
    ],
)  # fmt: skip
def test_what_a_signal_must_not_return(output: Any, message: str) -> None:
    with pytest.raises(ladm.LadmError) as caught:
        score(output)
    assert str(caught.value) == f"the signal Own {message} (ladm.signals.scorer.SignalScorer)"


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returns None from score; return a function that returns the results"),
        ([ScorerOutput(score=1.0)], "returns a list from score; return a function that returns the results"),
        (lambda: None, "gives an object of type NoneType for 1 row; return one ScorerOutput for each row, in a list"),
        (list, "gives 0 results for 1 row; return one ScorerOutput for each row, in a list"),
    ],
)
def test_a_signal_returns_a_function_with_a_result_for_each_row(
    monkeypatch: pytest.MonkeyPatch, returned: Any, message: str
) -> None:
    monkeypatch.setattr(Own, "score", lambda *_, **__: returned)
    with pytest.raises(ladm.LadmError, match=f"^the signal Own {re.escape(message)}"):
        score(None)


def test_a_number_beyond_float32_gives_no_score() -> None:
    found = score(ScorerOutput(score=0.5, extras={"a": [1.0, 1e300]}))
    assert (found.score, found.error) == (None, "a[1] is NaN or infinite")


def test_tensors_and_arrays_of_one_number_are_numbers() -> None:
    scorer = ladm.Scorer.from_signal(Own(ScorerOutput(score=0.5)))
    for ids in (list(torch.arange(5)), [np.array(k) for k in range(5)], [list(torch.arange(5))]):
        assert [row.num_tokens for row in scorer.score(ids)] == [5]
