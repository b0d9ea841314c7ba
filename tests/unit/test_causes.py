"""Errors of one cause are one group; errors of two are two."""

import pytest

from rqjobs.causes import generalize


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Failed to connect to 10.0.0.1:9999 after 0 ms", "Failed to connect to 10.0.0.2:8080 after 13 ms"),
        ("no answer within 1.5 s", "no answer within 12.25 s"),
        ("no user ada@example.com", "no user bob@example.com"),
        ("job 0660ffd5b0a8a30ea7544c88 is gone", "job 0661087f1b94600dd979aa95 is gone"),
    ],
)
def test_one_cause(one: str, other: str) -> None:
    assert generalize(one) == generalize(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("the endpoint answered 404", "the endpoint answered 410"),
        ("535 5.7.8 wrong password", "535 5.7.9 wrong password"),
        ("[Errno 111] refused", "[Errno 113] refused"),
    ],
)
def test_two_causes(one: str, other: str) -> None:
    assert generalize(one) != generalize(other)
