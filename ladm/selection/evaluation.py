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

from ladm.runs.columns import standardised
from ladm.selection.ranks import rank_shares
from ladm.settings.expressions import Expression, column_name

Floats = npt.NDArray[np.float64]
_BINARY = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_FUNCTIONS: dict[str, Callable[[Floats], Floats]] = {"rank": rank_shares, "z": standardised, "log": np.log}


def evaluate(expression: Expression, columns: Mapping[str, Floats]) -> Floats:
    """The value of every document: (N,). NaN where a column has none, and where the result is not finite.

    `rank(x)` is the rank of x from the lowest up over the number of documents, where equal values share their mean
    rank; `z(x)` is its distance from the mean in standard deviations. Both are over the documents in `columns`, NaN
    left out. `log` is the natural logarithm.
    """
    # No copy of a single column: it may be a file that is larger than memory.
    if expression.is_column:
        return columns[expression.names[0]]
    # A division by zero or the logarithm of a negative number makes a document without a value, which is reported.
    with np.errstate(all="ignore"):
        values_N = np.array(_value(expression.tree, columns), dtype=np.float64)
    values_N[~np.isfinite(values_N)] = np.nan
    return values_N


def _value(node: ast.expr, columns: Mapping[str, Floats]) -> Any:
    if (column := column_name(node)) is not None:
        return columns[column]
    # Only these five kinds of node are left by `parse_expression`.
    match node:
        case ast.Constant(value=number):
            return np.float64(number)  # type: ignore[arg-type]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, columns)
        case ast.UnaryOp(operand=operand):
            return _value(operand, columns)
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_value(left, columns), _value(right, columns))
        case ast.Call(func=ast.Name(id=name), args=[argument]):
            # A function of a constant alone, such as log(2), is a function of that constant for every document.
            values = np.asarray(_value(argument, columns), dtype=np.float64)
            return _FUNCTIONS[name](np.atleast_1d(values)) if values.ndim == 0 else _FUNCTIONS[name](values)
    raise AssertionError(ast.dump(node))
