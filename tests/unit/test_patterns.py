"""Every regular expression of the project takes time in proportion to its text, however hostile that is."""

from __future__ import annotations

import ast
import importlib
import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from itertools import product
from pathlib import Path
from re import _parser  # type: ignore[attr-defined]  # which letters a pattern looks for
from typing import Any

import pytest

import rqjobs
from rqjobs.config.retry_after import parse_retry_after
from rqjobs.processors.export.values import guard, guard_column

ROOT = Path(rqjobs.__file__).parent
METHODS = ("match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer")
SHORT = (16, 24, 32, 40, 48, 64, 128, 512)
LONG = 3_000
TINY = 0.002  # seconds of the processor: a thousand times what a linear pattern takes for 128 letters
SMALL = 0.01  # below it no ratio is worth a second look
EVERYWHERE = " \t\na1=+.<"
CUTS_ITS_TEXT = "generalize"
"""A function that cuts its text before a pattern of its module that is slower than that is long; tested below."""


def modules() -> Iterator[tuple[str, Path, ast.Module]]:
    """Modules that use regular expressions."""
    for file in sorted(ROOT.rglob("*.py")):
        source = file.read_text()
        if "import re\n" in source:
            parts = file.relative_to(ROOT.parent).with_suffix("").parts
            yield ".".join(parts[: -1 if parts[-1] == "__init__" else None]), file, ast.parse(source)


def compiled(value: object, depth: int = 0) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, dict) and depth < 3:
        yield from (found for item in (*value, *value.values()) for found in compiled(item, depth + 1))
    elif isinstance(value, list | tuple | set | frozenset) and depth < 3:
        yield from (found for item in value for found in compiled(item, depth + 1))
    elif isinstance(value, type) and value.__module__.startswith("rqjobs."):
        held = [item for item in vars(value).values() if not isinstance(item, type)]
        yield from (found for item in held for found in compiled(item, depth + 1))


def named_patterns() -> dict[str, tuple[re.Pattern[Any], set[str]]]:
    """Patterns that a module holds, each with the methods by which the module calls it."""
    found: dict[str, tuple[re.Pattern[Any], set[str]]] = {}
    for name, _file, tree in modules():
        used: dict[str, set[str]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in METHODS and isinstance(node.value, ast.Name):
                used.setdefault(node.value.id, set()).add(node.attr)
        for variable, value in list(vars(importlib.import_module(name)).items()):
            for number, pattern in enumerate(compiled(value)):
                found[f"{name}.{variable}[{number}]"] = pattern, used.get(variable, set())
    return found


def inline_patterns() -> dict[str, tuple[re.Pattern[Any], set[str]]]:
    """``re.sub("...", ...)`` and the like."""
    found: dict[str, tuple[re.Pattern[Any], set[str]]] = {}
    for name, _file, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in [f"re.{method}" for method in METHODS]:
                where = f"{name}:{node.lineno}"
                assert isinstance(node.args[0], ast.Constant), f"{where}: make the pattern a constant of the module"
                found[where] = re.compile(node.args[0].value), {node.func.attr}  # type: ignore[attr-defined]
    return found


@cache
def cutting_module() -> str:
    (found,) = (
        name
        for name, _file, tree in modules()
        if any(isinstance(node, ast.FunctionDef) and node.name == CUTS_ITS_TEXT for node in tree.body)
    )
    return found


def letters(pattern: re.Pattern[Any]) -> list[str]:
    """Letters that ``pattern`` looks for: its own, and one of each range and category."""
    found: dict[str, None] = {}

    def walk(node: object) -> None:
        if isinstance(node, _parser.SubPattern | list):
            for item in node:
                walk(item)
        elif isinstance(node, tuple):
            if len(node) == 2 and str(node[0]) in ("LITERAL", "NOT_LITERAL"):
                found.setdefault(chr(node[1]))
            elif len(node) == 2 and str(node[0]) == "RANGE":
                found.setdefault(chr(node[1][0]))
            elif len(node) == 2 and str(node[0]) == "CATEGORY":
                found.setdefault({"DIGIT": "1", "SPACE": " "}.get(str(node[1]).rpartition("_")[2], "a"))
            else:
                for item in node:
                    walk(item)

    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    walk(_parser.parse(text, pattern.flags & ~re.UNICODE if isinstance(pattern.pattern, bytes) else pattern.flags))
    return [letter for letter in found if not "\ud800" <= letter <= "\udfff"]


def hostile(pattern: re.Pattern[Any]) -> Iterator[Callable[[int], str]]:
    """Makers of texts that begin like a match, repeat what the pattern repeats, and end otherwise."""
    own = letters(pattern)
    chars = list(dict.fromkeys([*own[:10], *own[-4:], *EVERYWHERE]))
    units = [*chars, *map("".join, product(chars[:7], repeat=2))]
    for start, unit, end in product(("", *own[:4]), units, ("", "\x00", "!")):
        yield lambda size, start=start, unit=unit, end=end: start + unit * (size // len(unit)) + end  # type: ignore[misc]


def seconds(pattern: re.Pattern[Any], method: str, text: str, times: int = 1) -> float:
    given: Any = text.encode("latin-1", "replace") if isinstance(pattern.pattern, bytes) else text
    least = float("inf")
    for _ in range(times):
        began = time.thread_time()
        if method in ("sub", "subn"):
            getattr(pattern, method)(given[:0], given)
        elif method == "finditer":
            list(pattern.finditer(given))
        else:
            getattr(pattern, method)(given)
        least = min(least, time.thread_time() - began)
    return least


def slow_text(pattern: re.Pattern[Any], methods: set[str], long: int = LONG) -> str | None:
    """A text that takes more than its length, in words; None if there is none among those that are tried."""
    for make in hostile(pattern):
        for method in methods or {"search", "fullmatch"}:
            for size in SHORT:
                if seconds(pattern, method, make(size)) > TINY and seconds(pattern, method, make(size), 5) > TINY:
                    return f"{method} of {make(8)!r}, repeated to {size} letters: more than {TINY} s"
            if seconds(pattern, method, make(long)) < SMALL / 20:
                continue
            once, four = (seconds(pattern, method, make(size), 3) for size in (long, 4 * long))
            if four > SMALL and four > 9 * once:
                return f"{method} of {make(8)!r}: {once:.4f} s for {long} letters, {four:.4f} s for four times as many"
    return None


def test_no_pattern_of_a_module_is_slower_than_its_text_is_long() -> None:
    found = named_patterns()
    assert len(found) > 30
    slow = {
        name: text
        for name, (pattern, methods) in found.items()
        if not name.startswith(f"{cutting_module()}.") and (text := slow_text(pattern, methods))
    }
    assert not slow


def test_no_pattern_within_a_function_is_slower_than_its_text_is_long() -> None:
    found = inline_patterns()
    assert len(found) > 10
    slow = {name: text for name, (pattern, methods) in found.items() if (text := slow_text(pattern, methods))}
    assert not slow


@pytest.mark.parametrize(
    ("pattern", "method"),
    [
        ('([;\\t|]"?[\\s]*)(?=[=+])', "sub"),  # what guarded CSV cells once
        (r"(a+)+b", "search"),
        (r"(a|aa)+$", "match"),
        (r"\s+$", "search"),
        (r"(\w+\.?)*@", "match"),
    ],
)
def test_a_slow_pattern_is_found(pattern: str, method: str) -> None:
    assert slow_text(re.compile(pattern), {method}, long=1_000) is not None


def test_a_pattern_is_compiled_where_the_test_finds_it() -> None:
    within = [
        f"{name}:{node.lineno}"
        for name, _file, tree in modules()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "re.compile"
    ]
    assert not within, "make the pattern a constant of the module"


@pytest.mark.parametrize("unit", [".", "a1", "1.", "a@", "1 "])
def test_a_long_error_has_its_cause_at_once(unit: str) -> None:
    began = time.thread_time()
    getattr(importlib.import_module(cutting_module()), CUTS_ITS_TEXT)(unit * 100_000)
    assert time.thread_time() - began < 10  # the pattern alone takes minutes


@pytest.mark.parametrize("unit", ["\t", " ", ";\t", "=", "+1 ", "(1) ", "1.", "\x01=", "\r\n", "\u200b"])
def test_two_hundred_thousand_letters_of_a_cell_cost_nothing(unit: str) -> None:
    began = time.thread_time()
    for start in ("", "+49 ", "+1", "x;"):
        text = start + unit * (200_000 // len(unit)) + "x"
        assert guard(text) in (text, f"'{text}")
        guard_column([text, "x"])
        parse_retry_after(text, limit=timedelta(hours=1))
    assert time.thread_time() - began < 20  # it was more than a minute for 80,000 tabs
