"""Errors of one cause are one group; errors of two are two."""

import pytest

from rqjobs.dead_letters.fingerprint import generalize


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Failed to connect to 10.0.0.1:9999 after 0 ms", "Failed to connect to 10.0.0.2:8080 after 13 ms"),
        ("no answer within 1.5 s", "no answer within 12.25 s"),
        ("no user ada@example.com", "no user bob@example.com"),
        ("job 0660ffd5b0a8a30ea7544c88 is gone", "job 0661087f1b94600dd979aa95 is gone"),
        ("no file image-37.png", "no file image-999.png"),
        ("no file image-37.png", "no file image-1036.png"),
        ("row 123 of 500 is bad", "row 7 of 12,000 is bad"),
        ("KeyError: 123", "KeyError: 404"),
        ("order #17 not found", "order #404 not found"),
        ("timed out after 120 s (30 % done)", "timed out after 90 s (5 % done)"),
        ("2026-01-02T03:04:05 is past", "2025-11-30T23:59:59 is past"),
        ("table_1 is missing", "table_12 is missing"),
        ("connection to db:5432 failed", "connection to db:5433 failed"),
    ],
)
def test_failures_that_differ_only_in_details_share_a_fingerprint(one: str, other: str) -> None:
    assert generalize(one) == generalize(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("the endpoint answered 404", "the endpoint answered 410"),
        ("535 5.7.8 wrong password", "535 5.7.9 wrong password"),
        ("[Errno 111] refused", "[Errno 113] refused"),
        ("HTTPError: 404 Client Error: Not Found", "HTTPError: 500 Server Error: x"),
        ("the endpoint answered 404", "the endpoint answered 500"),
        ("SMTPDataError: (550, b'no')", "SMTPDataError: (451, b'no')"),
        ("SMTPRecipientsRefused: 550 5.1.1 no user", "SMTPRecipientsRefused: 552 5.2.2 full"),
        ("exited with code 137", "exited with code 1"),
        ("SendGrid answered 401: x", "SendGrid answered 403: x"),
        ("curl: (7) x", "curl: (28) x"),
        ("ManyChat: error 3011", "ManyChat: error 3012"),
        ("no route by IPv4", "no route by IPv6"),
    ],
)
def test_different_failures_have_different_fingerprints(one: str, other: str) -> None:
    assert generalize(one) != generalize(other)
