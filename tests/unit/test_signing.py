"""Signatures: the standard's own vector, and both ways against PyPI's implementation."""

import json
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from rqjobs.security.signing import InvalidSignature, parse_secret, sign, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + "QUJD" * 10


def test_the_vector_of_the_standard():
    signature = sign([parse_secret(SECRET)], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def headers(signature, stamp, webhook_id="msg_1"):
    return {"Webhook-Id": webhook_id, "webhook-timestamp": str(stamp), "webhook-signature": signature}


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers()))
def test_the_reference_implementation_and_ours_verify_each_others_signatures(payload):
    body, now = json.dumps(payload), int(time.time())
    ours = sign([parse_secret(OTHER), parse_secret(SECRET)], "msg_1", now, body.encode())
    Webhook(SECRET).verify(body, headers(ours, now))
    theirs = Webhook(SECRET).sign("msg_1", datetime.fromtimestamp(now, UTC), body)
    verify(SECRET, headers(theirs, now), body.encode(), now=now)
    verify([OTHER, SECRET], headers(theirs, now), body.encode(), now=now)


def test_invalid_signatures_are_refused():
    now = int(time.time())
    good = sign([parse_secret(SECRET)], "msg_1", now, b"{}")
    for bad, moment, body in [
        (headers(good, now), now, b"{} "),
        (headers(good, now), now + 301, b"{}"),
        (headers(good, now, "msg_2"), now, b"{}"),
        (headers("v1,AAAA", now), now, b"{}"),
        ({"webhook-id": "msg_1"}, now, b"{}"),
        (headers(good, "soon"), now, b"{}"),
        (headers(good, "9" * 400), now, b"{}"),
        (headers("v1,\udce9", now), now, b"{}"),
        (headers(good, now, "\udce9"), now, b"{}"),
    ]:
        with pytest.raises(InvalidSignature):
            verify(SECRET, bad, body, now=moment)
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify("{}", headers(good, now))


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_YWJj", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!!!"])
def test_a_weak_or_malformed_secret_is_refused(secret):
    with pytest.raises(ValueError, match="whsec_"):
        parse_secret(secret)
