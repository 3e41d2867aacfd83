"""Numbers of a report -> places on its pictures: scales, ticks, and the heat map as an image in the page.

All places are in the units of the SVG that the template draws; nothing here writes markup. Imports no torch.
"""

from __future__ import annotations

import base64
import io
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ladm.explain.inspected_document import InspectedDocument

Floats = npt.NDArray[np.float64]
Bars = list[tuple[float, float, float]]
"""Place, extent and length of each bar; the longest has the length 1."""

LOG_FROM_RATIO = 20.0
"""From this ratio of the highest to the lowest value a scale is logarithmic."""
BRIGHTEST_QUANTILE = 0.995
"""Parts above this quantile of a document's pairs are as bright as can be, so that a single pair does not darken all
others."""
MOST_TICKS = 6
MAP_SIDE = 420


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Values on a line of `width`: linear, or logarithmic where all are above 0 and far apart."""

    low: float
    high: float
    width: float
    logarithmic: bool

    def place(self, value: float) -> float:
        """Where on the line a value is; one outside the scale is at its end."""
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
        if len(found) > MOST_TICKS:
            # Powers of ten alone, whose mantissa begins with 1.
            found = [x for x in found if f"{x:e}"[0] == "1"]
        return [(self.place(x), f"{x:.3g}") for x in found]


def scale(values: list[float], width: float) -> Scale:
    """A scale from the lowest to the highest of the values, of which there is at least one."""
    low, high = min(values), max(values)
    if low == high:
        margin = abs(low) / 2 or 1.0
        return Scale(low=low - margin, high=high + margin, width=width, logarithmic=False)
    return Scale(low=low, high=high, width=width, logarithmic=low > 0 and high / low > LOG_FROM_RATIO)


def _round_steps(low: float, high: float) -> list[float]:
    """About five round numbers from `low` to `high`: from 1 to 3 the steps are 0.5."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first = math.ceil(low / step)
    # Twelve digits: 3 * 0.1 is 0.3 then.
    return [float(f"{k * step:.12g}") for k in range(first, math.floor(high / step) + 1)]


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """What each pair of spans adds to a score: the later span downwards, the earlier one to the right."""

    side: int
    image: str
    """A PNG as a data URI, a pixel for each pair; pairs that are not used are transparent."""
    box: tuple[float, float, float, float]
    """Where the image is: x, y, width, height."""
    ticks: list[tuple[float, str]]
    by_later: Bars
    """What each scored span adds over all its earlier ones."""
    by_earlier: Bars
    marks: list[tuple[float, float, int]]
    """The strongest pairs: x, y, number."""


def brightest(documents: Iterable[InspectedDocument]) -> float:
    """The part that has the brightest colour in all maps: that of the document with the strongest pairs."""
    largest = 0.0
    for document in documents:
        parts = np.concatenate([np.array(parts) for parts in document.part])
        # Where nearly all parts are 0, so is the quantile.
        largest = max(largest, float(np.quantile(parts, BRIGHTEST_QUANTILE)) or float(parts.max()))
    return largest or 1.0


def heat_map(document: InspectedDocument, most: float) -> HeatMap:
    """Draw the parts of a document's score on a square; parts of `most` are the brightest.

    A pixel is one pair, as wide and high as the strides between spans. With spans 0-63, d_afs 4 and n 4 the span
    j = 63 is compared with 3, 7, ..., 59: pixel 0 stands for span 3, and covers the spans 0-3.
    """
    T, l, later = document.num_tokens, document.span_tokens, document.j
    across, down = _stride(document.i), _stride([later])

    def place(span: float) -> float:
        return round(float(MAP_SIDE * (document.first_token + span * l) / T), 2)

    # NaN marks cells without a pair: they stay transparent, and count as 0 in the sums.
    top, columns = later[0] // down, 1 + max(spans[-1] // across for spans in document.i)
    cells_JC = np.full((len(later), columns), np.nan)
    for row, (spans, parts) in enumerate(zip(document.i, document.part, strict=True)):
        cells_JC[row, [span // across for span in spans]] = parts
    height, width = MAP_SIDE * down * l / T, MAP_SIDE * across * l / T
    return HeatMap(
        side=MAP_SIDE,
        image=_picture(cells_JC, most),
        box=(place(0), place(top * down), round(columns * width, 2), round(len(later) * height, 2)),
        ticks=[(round(MAP_SIDE * x / T, 1), f"{x:,.0f}") for x in _round_steps(0, T)],
        by_later=_bars(np.nansum(cells_JC, axis=1), [place((top + k) * down) for k in range(len(later))], height),
        by_earlier=_bars(np.nansum(cells_JC, axis=0), [place(k * across) for k in range(columns)], width),
        marks=[(place(pair.i + 0.5), place(pair.j + 0.5), k) for k, pair in enumerate(document.pairs, 1)],
    )


def _stride(lists: list[list[int]]) -> int:
    """The smallest step between neighbours in any of the lists."""
    return min((b - a for spans in lists for a, b in itertools.pairwise(spans)), default=1)


def _bars(values: Floats, places: list[float], extent: float) -> Bars:
    most = float(values.max()) or 1.0
    return [(x, round(extent, 2), round(float(value) / most, 4)) for x, value in zip(places, values, strict=True)]


def _picture(cells: Floats, most: float) -> str:
    from matplotlib import colormaps
    from matplotlib.image import imsave

    # Parts range over orders of magnitude; their square root leaves the weaker ones visible.
    rgba = colormaps["magma"](np.sqrt(np.nan_to_num(cells).clip(0, most) / most))
    rgba[np.isnan(cells), 3] = 0.0
    out = io.BytesIO()
    # Without the version of matplotlib, so that the same run gives the same page everywhere.
    imsave(out, rgba, format="png", origin="upper", metadata={"Software": ""})
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def shares_by_distance(document: InspectedDocument) -> list[tuple[str, float]]:
    """How much of a score comes from which distances in tokens: the range in words, and the share.

    The bounds double: of 4,096 tokens they are 256, 512, 1,024 and 2,048.
    """
    l, T = document.span_tokens, document.num_tokens
    pairs = [(j - i, part) for j, spans, parts in zip(document.j, document.i, document.part, strict=True)
             for i, part in zip(spans, parts, strict=True)]  # fmt: skip
    distances = np.array([spans * l for spans, _ in pairs])
    parts = np.array([part for _, part in pairs])
    total = float(parts.sum())
    shares = []
    for low, high in itertools.pairwise([0, *(T >> k for k in range(4, 0, -1)), T]):
        inside = (distances >= low) & (distances < high)
        name = f"under {high:,}" if not low else f"{low:,} or more" if high == T else f"{low:,} to {high - 1:,}"
        shares.append((name, float(parts[inside].sum()) / total if total else 0.0))
    return shares
