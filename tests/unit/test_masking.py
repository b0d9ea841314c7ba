"""Secrets are hidden wherever they are shown: by the names of fields, in URLs, in texts of errors, in logs."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from rqjobs.broker.attempts import reason_of
from rqjobs.config.logs import JsonFormatter, TextFormatter
from rqjobs.security.masking import MASK, is_secret_name, mask, mask_text, unmask

SECRET = "hunter2SECRET"

NAMES = (
    "pwd", "pin", "otp", "private_key", "signature", "auth", "bearer", "jwt", "session", "session_id", "access_key",
    "sessionId", "userPin", "user_pin", "PRIVATE-KEY", "privateKey", "X-Api-Key", "Authorization", "apiKey", "sig",
    "accessKeyId", "clientSecret", "refresh_token", "passphrase", "reset_link", "magicLink", "oauth", "Set-Cookie",
)  # fmt: skip
PLAIN_NAMES = ("shipping", "opinion", "author", "authors", "hotpot", "sessions", "design", "keyboard", "key", "name",
               "pinned", "code", "link", "spin")  # fmt: skip

TEXTS = (
    f"https://a.example/x?token={SECRET}",
    f"https://a.example/x?a=1&key={SECRET}&b=2",
    f"/x?sig={SECRET}#f",
    f"https://a.example/x#access_token={SECRET}",
    f"https://a.example/reset-password/{SECRET}",
    f"https://a.example/account/reset/step/{SECRET}?x=1",
    "https://a.example/invite/4711-hunter2SECRET",
    f"https://user:{SECRET}@a.example/",
    f"https://{SECRET}@a.example/",
    f"redis://:{SECRET}@host:6379/0",
    f"https://hooks.chat.example/services/T0/B0/aB3{SECRET}xYz012345",
    f"https://s3.example/b?X-Amz-Signature={SECRET}&X-Amz-Credential={SECRET}&X-Amz-Security-Token={SECRET}",
    f"https://s3.example/b?X%2DAmz%2DSignature={SECRET}",
    f"password={SECRET}",
    f"login failed: pwd='{SECRET} more'",
    f'{{"password": "{SECRET}"}}',
    f"{{'userPin': '{SECRET}', 'n': 1}}",
    f"{{'headers': b'{SECRET}'}}",
    f"Authorization: Bearer {SECRET}",
    f"sent Authorization: {SECRET} to it",
    f"X-Api-Key: {SECRET}",
    f"Bearer {SECRET}",
    f"a JWT eyJhbGciOiJIUzI1NiJ9.eyJ{SECRET}.{SECRET} expired",
    f"whsec_{SECRET}AAAA",
    f"sk_live_{SECRET}",
    f"GET https://a.example/?token={SECRET} answered 500: token={SECRET}",
)
PLAIN = (
    "https://a.example/orders/4711?page=2&sort=name",
    "https://a.example/blog/2024-11-a-post-with-a-long-title-of-words",
    "https://a.example/jobs/00063dbe4f2d1a0c5f1e2d3c",
    "ValueError: the token was not valid",
    "connection refused: 10.0.0.1:443",
    "https://a.example/users/0b9f2c1e-4d5a-4a8b-9c3d-2e1f0a9b8c7d",
    "n=1 key=value",
    "RuntimeError: session: closed by peer",
    "the endpoint answered 503",
    "job 12:30:01 a=b",
    "no such host as auth.example",
    "mail to a@b.example was refused",
    "basic authentication is needed",
)


@pytest.mark.parametrize("name", NAMES)
def test_values_of_secret_names_are_masked_at_any_depth(name: str) -> None:
    job = {"a": [{name: SECRET}, {name: {"x": [SECRET, 4711]}}], "n": 1}
    shown = mask(job)
    assert SECRET not in json.dumps(shown)
    assert "4711" not in json.dumps(shown)
    assert shown["n"] == 1
    assert unmask(shown, job) == job


@pytest.mark.parametrize("name", PLAIN_NAMES)
def test_other_names_are_shown(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize("text", TEXTS)
def test_a_secret_in_a_text_is_hidden_everywhere(text: str) -> None:
    shown = mask_text(text)
    assert SECRET not in shown
    assert MASK in shown
    assert mask_text(shown) == shown
    assert SECRET not in reason_of(f"Traceback (most recent call last):\nValueError: {text}")
    assert SECRET not in json.dumps(mask({"deep": [{"note": text}]}))
    for formatter in (TextFormatter(), JsonFormatter()):
        assert SECRET not in formatter.format(record(text))


@pytest.mark.parametrize("text", PLAIN)
def test_a_text_without_secrets_is_shown_as_it_is(text: str) -> None:
    assert mask_text(text) == text


def test_the_rest_of_a_url_is_shown() -> None:
    url = f"GET https://u:p@a.example:8443/v1/reset/x1?page=2&token={SECRET}&sort=up#top answered 500"
    assert mask_text(url) == (
        f"GET https://{MASK}@a.example:8443/v1/reset/{MASK}?page=2&token={MASK}&sort=up#top answered 500"
    )


def record(text: str) -> logging.LogRecord:
    try:
        raise ValueError(text)
    except ValueError:
        made = logging.LogRecord("rqjobs", logging.INFO, __file__, 1, "failed %s", (text,), sys.exc_info())
    made.fields = {"error": text, "seconds": 0.5}
    return made


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_with_something_hidden_is_put_back_or_refused(text: str) -> None:
    job: dict[str, Any] = {"note": text, "list": [text]}
    assert unmask(mask(job), job) == job
    with pytest.raises(ValueError, match="changed"):
        unmask({**job, "note": mask_text(text) + " and more"}, job)
    assert unmask({**job, "note": "another"}, job)["note"] == "another"


UNITS = (
    "a=",
    "token=",
    'a="',
    "://",
    "://a@",
    "?token=",
    "&",
    "a:",
    '"a":"',
    "Bearer ",
    "bearer 1",
    "eyJ",
    "eyJaaaaaaaa.",
    "whsec_",
    "-",
    "x-",
    "a-",
    "=b'",
    "://a/reset/",
    "/1",
    "password=' ",
)


def steps(text: str) -> int:
    """Lines of Python that masking runs; the patterns themselves are in test_patterns.py."""
    count = 0

    def trace(*_: object) -> Any:
        nonlocal count
        count += 1
        return trace

    sys.settrace(trace)
    try:
        mask_text(text)
    finally:
        sys.settrace(None)
    return count


@pytest.mark.parametrize("unit", UNITS)
def test_masking_takes_time_in_proportion_to_the_text(unit: str) -> None:
    once, four = (steps(unit * (size // len(unit))) for size in (2_000, 8_000))
    assert four <= 5 * once + 100
