"""Retry-After (RFC 9110, 10.2.3), as webhooks, mail APIs and ManyChat read it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from rqjobs.config.retry_after import parse_retry_after
from rqjobs.errors import RetryLater
from rqjobs.processors.email.backends.http import Answer
from rqjobs.processors.manychat.answers import retry_after
from rqjobs.processors.webhook.response_policy import failure
from rqjobs.processors.webhook.transfer import Response

NOW = datetime(1994, 11, 6, 8, 49, 7, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30),
        (" 30 ", 30),
        ("0", 0),
        ("9" * 400, 3600),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 30),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 30),
        ("Sun Nov  6 08:49:37 1994", 30),
        ("Sun, 06 Nov 1994 08:49:37 -0000", 30),
        ("Sun, 06 Nov 1994 09:49:37 +0100", 30),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600),
        ("Fri, 31 Dec 9999 23:59:59 -1200", 3600),
        ("", None),
        (None, None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("\u0663\u0660", None),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 99999999 08:49:37 GMT", None),
        ("1," * 100_000, None),
    ],
)
def test_seconds_and_dates(value: str | None, seconds: int | None) -> None:
    expected = None if seconds is None else timedelta(seconds=seconds)
    assert parse_retry_after(value, limit=HOUR, now=NOW) == expected


def test_a_date_is_counted_from_the_date_of_the_answer() -> None:
    value, date = "Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:00 GMT"
    assert parse_retry_after(value, limit=HOUR, date=date) == timedelta(seconds=37)
    assert parse_retry_after(value, limit=HOUR, date="nonsense", now=NOW) == timedelta(seconds=30)


@given(st.text(max_size=120))
@example("Thu, 01 Jan 0001 00:00:00 +9999")
@example("Mon, 1 Jan 1 00:00:00 -99999999")
def test_no_text_breaks_it(value: str) -> None:
    wait = parse_retry_after(value, limit=HOUR, now=NOW)
    assert wait is None or timedelta() <= wait <= HOUR


def test_every_reader_takes_dates() -> None:
    headers = {"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT", "Date": "Sun, 06 Nov 1994 08:49:07 GMT"}
    assert retry_after(headers) == timedelta(seconds=30)
    assert Answer(429, CaseInsensitiveDict(headers), None).retry_after(HOUR) == timedelta(seconds=30)
    error = failure(Response(status=503, retry_after=headers["Retry-After"]), NOW, HOUR)
    assert isinstance(error, RetryLater)
    assert error.after == timedelta(seconds=30)
