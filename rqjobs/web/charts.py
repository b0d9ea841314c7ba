"""Computes charts as SVG paths, which the templates draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 600.0, 120.0
"""The size of the coordinate box of paths; the page scales it."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One series of a chart."""

    name: str
    css: str
    """The CSS class that sets its colour."""
    path: str
    """The ``d`` of an SVG path."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart of the last hour, with one step per minute."""

    series: tuple[Series, ...]
    top: float
    """The value at the upper edge."""
    tips: tuple[str, ...]
    """The tooltip of each step."""


def nice_top(value: float) -> float:
    """Returns the next round number that is at least ``value``, for the end of an axis."""
    if value <= 0:
        return 1.0
    size = 10.0 ** math.floor(math.log10(value))
    return next(step * size for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * size >= value * 0.9999)


def stacked_bars(layers: Sequence[Sequence[float]], top: float) -> list[str]:
    """Returns the path of each layer's bars, which are stacked on those of the layers before."""
    floor = [0.0] * len(layers[0])
    paths = []
    for layer in layers:
        paths.append(_bars(layer, floor, top))
        floor = [below + value for below, value in zip(floor, layer, strict=True)]
    return paths


def _bars(values: Sequence[float], floor: Sequence[float], top: float) -> str:
    step = WIDTH / len(values)
    words = []
    for index, (value, below) in enumerate(zip(values, floor, strict=True)):
        if value > 0:
            # A single one among thousands must still be visible.
            height = max(value / top * HEIGHT, 1.0)
            bottom = HEIGHT - below / top * HEIGHT
            words.append(
                f"M{index * step + step * 0.12:.1f} {bottom:.1f}v{-height:.1f}h{step * 0.76:.1f}v{height:.1f}z"
            )
    return "".join(words)


def line(values: Sequence[float | None], top: float) -> str:
    """Returns a line through the values, with gaps for missing ones; a single value is a short dash."""
    step = WIDTH / len(values)
    words: list[str] = []
    drawing = False
    for index, value in enumerate(values):
        if value is None:
            drawing = False
            continue
        x, y = (index + 0.5) * step, HEIGHT - min(value / top, 1.0) * HEIGHT
        lonely = not drawing and (index + 1 == len(values) or values[index + 1] is None)
        if lonely:
            words.append(f"M{x - step * 0.3:.1f} {y:.1f}h{step * 0.6:.1f}")
        else:
            words.append(f"{'L' if drawing else 'M'}{x:.1f} {y:.1f}")
        drawing = True
    return "".join(words)
