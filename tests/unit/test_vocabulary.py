"""A thing has one name: a word that was given up for another is no name of a module, class, function or parameter."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "rqjobs"

RETIRED = [
    "apart", "bell", "brake", "bury", "cause", "causes", "covers", "doze", "effect", "fleet", "judge", "keeper",
    "lazily", "line", "lines", "linger", "mend", "meter", "nudge", "obey", "orders", "pace", "question", "questions",
    "repair", "special", "taken", "wire", "word", "words",
]  # fmt: skip

ALLOWED = {
    "pace": "a public option: rqjobs webhooks replay --pace, rqjobs.webhooks.replay(pace=...)",
    "encoded_words": "the term of RFC 2047",
    # A line of text or of a chart; as the name of a queue the word is retired.
    "_check_line": "rqjobs/jobs/email.py",
    "_last_line": "rqjobs/broker/attempts.py",
    "_line": "rqjobs/errors.py",
    "_line_of": "rqjobs/policies.py",
    "_lines": "rqjobs/processors/export/pdf.py",
    "is_line": "rqjobs/config/addresses.py",
    "line": "rqjobs/web/charts.py, rqjobs/processors/webhook/transfer.py, rqjobs/processors/export/right_to_left.py",
    "lines": "rqjobs/processors/export/pdf.py, rqjobs/worker/runners/child_process.py",
    "reply_line": "rqjobs/processors/email/replies.py",
}


def words_of(name: str) -> set[str]:
    """The words of a name in snake case or camel case."""
    return set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_"))


def names(path: Path) -> Iterator[str]:
    """The names that a module gives to itself, to classes, functions and parameters."""
    yield path.stem
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg


def found() -> set[tuple[str, str]]:
    """Every name that holds a retired word, with its file."""
    return {
        (name, str(path.relative_to(PACKAGE.parent)))
        for path in sorted(PACKAGE.rglob("*.py"))
        for name in names(path)
        if words_of(name) & set(RETIRED)
    }


def test_no_name_holds_a_retired_word() -> None:
    assert {(name, path) for name, path in found() if name not in ALLOWED} == set()


def test_every_exception_is_still_needed() -> None:
    assert ALLOWED.keys() == {name for name, _path in found()}


@pytest.mark.parametrize(
    ("name", "word"), [("_TakenJob", "taken"), ("run_special", "special"), ("BulkRequeue", None), ("outlines", None)]
)
def test_a_name_is_split_into_its_words(name: str, word: str | None) -> None:
    assert words_of(name) & set(RETIRED) == ({word} if word else set())
