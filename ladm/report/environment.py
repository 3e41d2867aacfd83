"""The templates of pages -> an environment in which whatever comes from the data is text. Imports no torch."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from typing import Any

from ladm.runs.columns.quartiles import quartiles_text

_BLANK_LINES = re.compile(r"\n\s*\n")
_CONTROL = {k: " " for k in (*range(32), *range(127, 160)) if k not in (9, 10)}
_DIRECTION = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), None)
"""Characters that change the direction of all text after them, so that a title could disguise what follows it."""


@functools.cache
def page_environment(*folders: str) -> Any:
    """The templates of `ladm/report`, and those of other folders of the package, with the filters that they use.

    One for all pages of a process, because compiling the templates takes longer than filling them.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=ChoiceLoader([PackageLoader("ladm", folder) for folder in (*folders, "report/templates")]),
        autoescape=True,
        # A misspelt name fails here instead of leaving a gap on the page.
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": lambda x: f"{x:,}",
        "short": lambda x: f"{x:.4g}",
        "digits": lambda x, most: f"{x:.{most}g}",
        "clean": clean,
        "tight": tight,
    }
    made.filters |= {"decimals": decimals, "fixed": lambda x, places: f"{x:,.{places}f}"}
    made.filters["rho"] = lambda value: "-" if math.isnan(value) else f"{value:.2f}"
    made.filters["quartiles"] = quartiles_text
    made.filters["percent"] = lambda x: f"{100 * x:.0f} %" if x >= 0.095 else f"{100 * x:.2g} %"
    return made


def decimals(values: Sequence[float]) -> int:
    """Decimals with which the largest of some numbers has four digits, so that a column of them is aligned."""
    largest = max((abs(value) for value in values), default=0.0)
    # Of 1e-12 too, which numbers of this size then have in common with 0.
    return min(8, max(0, 3 - math.floor(math.log10(largest)))) if largest else 0


def clean(value: Any, most: int = 160) -> str:
    """Text without control characters, cut to `most` characters."""
    text = str(value).translate(_CONTROL | _DIRECTION)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def tight(value: str, most: int) -> str:
    """The same without blank lines."""
    return clean(_BLANK_LINES.sub("\n", value), most)
