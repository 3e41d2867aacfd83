"""Numbers of a report -> places on its pictures: scales, ticks, dots, and the heat map as an image in the page.

All places are in the units of the SVG that the template draws; nothing here writes markup.
"""

from __future__ import annotations

import base64
import io
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LOG_FROM_RATIO = 20.0
BRIGHTEST = 0.995
"""The quantile of a document's pairs that its brightest pixels stand for: a single pair does not darken the rest."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Values on a line of `width`: linear, or by their logarithms where all are above 0 and far apart."""

    low: float
    high: float
    width: float
    logarithmic: bool

    def place(self, value: float) -> float:
        low, high, x = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, x = math.log(low), math.log(high), math.log(x)
        return round(float(self.width * (x - low) / (high - low)), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Round numbers and their places."""
        if not self.logarithmic:
            return [(self.place(x), f"{x:.4g}") for x in _round_steps(self.low, self.high)]
        exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found = [m * 10.0**e for e in exponents for m in (1, 2, 5) if self.low <= m * 10.0**e <= self.high]
        thin = found if len(found) <= 6 else [x for x in found if f"{x:e}"[0] == "1"] or found[:: len(found) // 5]
        return [(self.place(x), f"{x:.3g}") for x in thin]


def scale(values: list[float], width: float) -> Scale:
    """A scale that holds all of the values, of which there is at least one."""
    low, high = min(values), max(values)
    if low == high:
        apart = abs(low) / 2 or 1.0
        return Scale(low=low - apart, high=high + apart, width=width, logarithmic=False)
    return Scale(low=low, high=high, width=width, logarithmic=low > 0 and high / low > LOG_FROM_RATIO)


def _round_steps(low: float, high: float, aim: int = 5) -> list[float]:
    rough = (high - low) / aim
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first = math.ceil(low / step)
    return [round(k * step, 12) for k in range(first, math.floor(high / step) + 1)]


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """What each pair of spans adds to a score, later spans downwards, earlier ones to the right."""

    side: int
    image: str
    """A PNG as a data URI, a pixel for each pair; one that is not used is transparent."""
    box: tuple[float, float, float, float]
    """Where the image is: x, y, width, height."""
    ticks: list[tuple[float, str]]
    by_later: list[tuple[float, float, float]]
    """For each scored span its place, its extent, and how much it adds, of the most that any does."""
    by_earlier: list[tuple[float, float, float]]
    marks: list[tuple[float, float, int]]
    """The strongest pairs: x, y, number."""


def brightest(documents: Iterable[dict[str, Any]]) -> float:
    """The part that is drawn as the brightest in all squares: that of the document that has the brightest."""
    each = [np.concatenate([np.array(parts) for parts in found["part"]]) for found in documents]
    return max((float(np.quantile(parts, BRIGHTEST)) or float(parts.max()) for parts in each), default=0.0) or 1.0


def heat_map(found: dict[str, Any], most: float, side: int = 420) -> HeatMap:
    """Draw what `ladm inspect` found of a document on a square of `side`; parts of `most` are the brightest.

    With strides above 1 a pixel is as large as they are, and stands where its pair does.
    """
    T, l, later = found["num_tokens"], found["span_tokens"], found["j"]
    across, down = _stride(found["i"]), _stride([later])

    def place(span: float) -> float:
        return round(float(side * (found["first_token"] + span * l) / T), 2)

    top, columns = later[0] // down, 1 + max(spans[-1] // across for spans in found["i"])
    cells_JC = np.full((len(later), columns), np.nan)
    for row, (spans, parts) in enumerate(zip(found["i"], found["part"], strict=True)):
        cells_JC[row, [span // across for span in spans]] = parts
    height, width = side * down * l / T, side * across * l / T
    return HeatMap(
        side=side,
        image=_picture(cells_JC, most),
        box=(place(0), place(top * down), round(columns * width, 2), round(len(later) * height, 2)),
        ticks=[(round(side * x / T, 1), f"{x:,.0f}") for x in _round_steps(0, T)],
        by_later=_bars(np.nansum(cells_JC, axis=1), [place((top + k) * down) for k in range(len(later))], height),
        by_earlier=_bars(np.nansum(cells_JC, axis=0), [place(k * across) for k in range(columns)], width),
        marks=[(place(pair["i"] + 0.5), place(pair["j"] + 0.5), k) for k, pair in enumerate(found["pairs"], 1)],
    )


def _stride(lists: list[list[int]]) -> int:
    return min((b - a for spans in lists for a, b in itertools.pairwise(spans)), default=1)


def _bars(values: Floats, places: list[float], extent: float) -> list[tuple[float, float, float]]:
    most = float(values.max()) or 1.0
    return [(x, round(extent, 2), round(float(value) / most, 4)) for x, value in zip(places, values, strict=True)]


def _picture(cells: Floats, most: float) -> str:
    from matplotlib import colormaps
    from matplotlib.image import imsave

    rgba = colormaps["magma"](np.sqrt(np.nan_to_num(cells).clip(0, most) / most))
    rgba[np.isnan(cells), 3] = 0.0
    out = io.BytesIO()
    imsave(out, rgba, format="png", origin="upper", metadata={"Software": ""})
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def shares_by_distance(found: dict[str, Any]) -> list[tuple[str, float]]:
    """How much of a score comes from how far back, in tokens: bounds that double, and shares of the whole."""
    l, T = found["span_tokens"], found["num_tokens"]
    distances, parts = [], []
    for j, spans, values in zip(found["j"], found["i"], found["part"], strict=True):
        distances += [(j - i) * l for i in spans]
        parts += values
    total = sum(parts)
    far, of = np.array(distances), np.array(parts)
    bounds = [T >> k for k in range(4, 0, -1)]
    edges = [0, *bounds, T]
    shares = []
    for low, high in itertools.pairwise(edges):
        share = float(of[(far >= low) & (far < high)].sum() / total) if total else 0.0
        name = f"under {high:,}" if not low else f"{low:,} or more" if high == T else f"{low:,} to {high - 1:,}"
        shares.append((name, share))
    return shares
