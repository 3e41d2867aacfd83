"""Lists of layers as people write them, `0-10,14` <-> numbers."""

from __future__ import annotations

from ladm.errors import UsageError
from ladm.settings.quantities import parse_whole

MOST_LAYERS = 10_000
AFTER_SINKS = "after-sinks"
"""Stands for the layers after the last one with attention sinks, which a finished run knows."""


def parse_layers(text: str | None) -> tuple[int, ...] | None:
    """`0-10,14` -> (0, 1, .., 10, 14), ascending; None stays None.

    Raises UsageError for anything that is not such a list.
    """
    if text is None:
        return None
    layers: set[int] = set()
    for part in text.split(","):
        start, dash, end = part.strip().partition("-")
        first = parse_whole(start)
        last = parse_whole(end) if dash else first
        if first is None or last is None:
            raise UsageError(f"--layers {text!r} is not a list such as 0-10,14")
        if last < first:
            raise UsageError(f"--layers {text!r}: the range {part.strip()} runs backwards")
        # Without a limit, `0-999999999999` would fill the memory before the model could refuse it.
        if last > MOST_LAYERS:
            raise UsageError(f"--layers {text!r}: no model has a layer {last}")
        layers.update(range(first, last + 1))
    return tuple(sorted(layers))


def spell_layers(layers: list[int] | tuple[int, ...]) -> str:
    """(0, 1, 2, 5) -> `0-2,5`, as `--layers` reads it."""
    ranges: list[list[int]] = []
    for layer in layers:
        if ranges and layer == ranges[-1][1] + 1:
            ranges[-1][1] = layer
        else:
            ranges.append([layer, layer])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
