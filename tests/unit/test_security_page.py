"""docs/security.md promises only what a test shows: every row of its list names tests, and each of them exists."""

import ast
import re

import pytest

from tests.support.workers import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text()
ROWS = [
    row.strip("| ").split(" | ")
    for row in re.findall(
        r"^\| .* \|$",
        re.split(r"^## ", PAGE.partition("## Promises")[2], maxsplit=1, flags=re.MULTILINE)[0],
        re.MULTILINE,
    )
][1:]
PROMISES = [(row[0], re.findall(r"`(\w+\.py)::(\w+)`", row[1])) for row in ROWS if not row[0].startswith("**")]


@pytest.fixture(scope="module")
def tests():
    """The names of all test functions by the names of their files."""
    found = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        names = {
            node.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        found.setdefault(path.name, set()).update(names)
    return found


def test_the_list_is_complete():
    assert len(PROMISES) > 40
    assert PAGE.count("::test_") == sum(len(named) for _, named in PROMISES)


@pytest.mark.parametrize(("promise", "named"), PROMISES, ids=[promise[:60] for promise, _ in PROMISES])
def test_a_promise_has_tests_that_exist(promise, named, tests):
    assert named, "a promise without a test is not made"
    for file, name in named:
        assert name in tests.get(file, ()), f"{file} has no {name}"
