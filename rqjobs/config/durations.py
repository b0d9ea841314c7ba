"""Durations and rates in the form of settings and options: ``2s``, ``1.5m``, ``10/s``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import timedelta

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"\s*+(\d+(?:\.\d+)?)\s*+(ms|s|m|h|d|)\s*+")
_LONGEST = 365_000 * 86400.0  # seconds: a thousand years; larger values overflow dates
_RATE = re.compile(r"\s*+(\d+(?:\.\d+)?)\s*+/\s*+(\d*)\s*+(s|m|h|d)\s*+")


def parse_duration(text: str | float | timedelta) -> timedelta:
    """Returns the duration of ``text``: ``500ms``, ``2s``, ``5m``, ``1h``, ``2d``; a bare number is in seconds.

    Raises:
        ValueError: ``text`` is not a duration, negative, or longer than a thousand years.
    """
    seconds: float
    if isinstance(text, timedelta):
        seconds = text.total_seconds()
    elif isinstance(text, int | float) and not isinstance(text, bool):
        seconds = text
    elif isinstance(text, str) and (match := _DURATION.fullmatch(text)):
        seconds = float(match[1]) * _UNITS[match[2] or "s"]
    else:
        raise ValueError(f"{text!r} is not a duration; write 500ms, 2s, 5m, 1h or 2d")
    if seconds < 0:
        raise ValueError(f"{text!r} is negative; a duration is zero or more")
    if not seconds <= _LONGEST:  # also refuses NaN
        raise ValueError(f"{text!r} is not a duration of a thousand years at most")
    return text if isinstance(text, timedelta) else timedelta(seconds=seconds)


def parse_explicit_duration(value: str | float | timedelta) -> timedelta:
    """Returns the duration of ``value``, which must have a unit.

    For options in which callers might mean milliseconds by a bare number.

    Args:
        value: a timedelta, or text such as ``500ms``, ``2s``, ``5m``, ``1h``, ``2d``.

    Raises:
        ValueError: ``value`` is a number without a unit, or :func:`parse_duration` refuses it.
    """
    number: float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value)) and not match[2]:
        number = float(match[1])
    if number is None or not 0 <= number <= _LONGEST:
        return parse_duration(value)
    short = f"{number:.15g}"
    bull = format_duration(timedelta(milliseconds=number))
    raise ValueError(
        f'{value!r} is a bare number; write "{short}s" or timedelta(seconds={short}). '
        f'Bull counts milliseconds, there it means "{bull}"'
    )


def format_duration(duration: timedelta) -> str:
    """Returns ``duration`` in its largest suitable unit: ``2s``, ``1.5m``, ``3h``."""
    seconds = duration.total_seconds()
    if 0 < abs(seconds) < 1:
        return f"{_short(seconds * 1000)}ms"
    for unit in ("d", "h", "m"):
        if abs(seconds) >= _UNITS[unit]:
            return f"{_short(seconds / _UNITS[unit])}{unit}"
    return f"{_short(seconds)}s"


def spell(duration: timedelta) -> str:
    """Returns ``duration`` for people, in at most two units: ``4 ms``, ``45s``, ``3m 5s``, ``2h 10m``, ``4d 1h``."""
    seconds = duration.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    left = round(seconds)
    parts = [(left // 86400, "d"), (left // 3600 % 24, "h"), (left // 60 % 60, "m"), (left % 60, "s")]
    first = next(index for index, (number, _) in enumerate(parts) if number)
    return " ".join(f"{number}{unit}" for number, unit in parts[first : first + 2] if number)


def _short(number: float) -> str:
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"  # noqa: PLR2004  # never 1e+03


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket of ``count`` tokens, refilled evenly over ``period``."""

    count: float
    period: timedelta

    @property
    def per_second(self) -> float:
        """The rate per second."""
        return self.count / self.period.total_seconds()

    def __str__(self) -> str:
        return f"{self.count:g}/{format_duration(self.period)}"


def parse_rate(text: str | Rate) -> Rate:
    """Returns the rate of ``text``: ``10/s``, ``100/m``, ``5/10s``.

    Raises:
        ValueError: ``text`` is not a rate above zero.
    """
    if isinstance(text, Rate):
        return text
    match = _RATE.fullmatch(str(text))
    if match is None or not 0 < float(match[1]) < math.inf or float(match[2] or 1) == 0:
        raise ValueError(f"{text!r} is not a rate; write 10/s, 100/m or 5/10s")
    return Rate(float(match[1]), parse_duration(f"{match[2] or 1}{match[3]}"))
