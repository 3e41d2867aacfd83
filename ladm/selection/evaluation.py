"""An expression and its columns -> one number a document. Imports no torch.

Shape suffix: N documents.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ladm.runs.columns.by_name import standardised
from ladm.selection.ranks import rank_shares
from ladm.selection.windows import document_mean
from ladm.settings.expressions import DOCUMENT_MEAN, Expression, column_name

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_BINARY = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_FUNCTIONS: dict[str, Callable[[Floats], Floats]] = {"rank": rank_shares, "z": standardised, "log": np.log}


def evaluate(expression: Expression, columns: Mapping[str, Floats], *, read_documents: Callable[[], Ints]) -> Floats:
    """The value of every document: (N,). NaN where a column has none, and where a step of the result is not finite.

    `rank(x)` is the rank of x from the lowest up over the number of documents, where equal values share their mean
    rank; `z(x)` is its distance from the mean in standard deviations. Both are over the documents in `columns`, NaN
    left out. `log` is the natural logarithm. `document_mean(x)` is the mean of x over the rows of the same document;
    `read_documents` gives the number of each row's document, and is called only for it.
    """
    # No copy of a single column: it may be a file that is larger than memory.
    if expression.is_column:
        return columns[expression.names[0]]
    functions = _FUNCTIONS
    if expression.has_document_mean:
        documents_N = read_documents()
        functions = {**_FUNCTIONS, DOCUMENT_MEAN: lambda values_N: document_mean(values_N, documents_N)}
    # A division by zero or the logarithm of a negative number makes a document without a value, which is reported.
    with np.errstate(all="ignore"):
        values_N = np.array(_value(expression.tree, columns, functions), dtype=np.float64)
        # -x of 0 is -0, which is equal to 0 but shown as another number.
        values_N += 0.0
    return _without_infinite(values_N)


def _without_infinite(values: Any) -> Floats:
    """The same values, infinite ones replaced by NaN."""
    values = np.asarray(values, dtype=np.float64)
    return np.where(np.isinf(values), np.nan, values) if np.isinf(values).any() else values


def _value(node: ast.expr, columns: Mapping[str, Floats], functions: Mapping[str, Callable[[Floats], Floats]]) -> Any:
    if (column := column_name(node)) is not None:
        return columns[column]
    # Only these five kinds of node are left by `parse_expression`.
    match node:
        case ast.Constant(value=number):
            return np.float64(number)  # type: ignore[arg-type]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, columns, functions)
        case ast.UnaryOp(operand=operand):
            return _value(operand, columns, functions)
        case ast.BinOp(left=left, op=op, right=right):
            # At each step, and not at the end alone: rank(1 / x) would rank an infinite value above all others, and
            # z(1 / x) would have no mean.
            return _without_infinite(
                _BINARY[type(op)](_value(left, columns, functions), _value(right, columns, functions))
            )
        case ast.Call(func=ast.Name(id=name), args=[argument]):
            # A function of a constant alone, such as log(2), is a function of that constant for every document.
            values = np.asarray(_value(argument, columns, functions), dtype=np.float64)
            return _without_infinite(functions[name](np.atleast_1d(values) if values.ndim == 0 else values))
    raise AssertionError(ast.dump(node))
