"""What is kept of a user agent, an address and a location."""

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqjobs.attempt import Attempt
from rqjobs.errors import InvalidJob, PermanentFailure
from rqjobs.jobs import QRAnalyticsJob
from rqjobs.jobs.analytics import parse_timestamp
from rqjobs.processors.analytics.enrich import classify, clean, read_ip, visitor_key
from rqjobs.processors.analytics.events import make_event

WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
CHROME = f"{WEBKIT} Chrome/126.0.0.0"
SAFARI = "AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5"
SECRET = b"s" * 32


@pytest.mark.parametrize(
    ("agent", "device", "os", "browser"),
    [
        (f"(iPhone; CPU iPhone OS 17_5 like Mac OS X) {SAFARI} Mobile/1 Safari/604", "mobile", "iOS", "Mobile Safari"),
        (f"(iPad; CPU OS 17_5 like Mac OS X) {SAFARI} Mobile/15E148 Safari/604.1", "tablet", "iOS", "Mobile Safari"),
        (f"(Linux; Android 14; SM-S918B) {CHROME} Mobile Safari/537.36", "mobile", "Android", "Chrome Mobile"),
        (f"(Linux; Android 10; CUBOT X30) {CHROME} Mobile Safari/537.36", "mobile", "Android", "Chrome Mobile"),
        (f"(Linux; Android 13; SM-X900) {WEBKIT} Chrome/126.0.0.0 Safari/537.36", "tablet", "Android", "Chrome"),
        (f"(Linux; Android 11; KFTRWI) {WEBKIT} Silk/126.0 like Chrome/126.0", "tablet", "Android", "Amazon Silk"),
        (f"(Windows NT 10.0; Win64; x64) {WEBKIT} Chrome/126.0.0.0 Safari/537.36", "desktop", "Windows", "Chrome"),
        (f"(X11; CrOS x86_64 14541.0.0) {WEBKIT} Chrome/126.0.0.0 Safari/537.36", "desktop", "Chrome OS", "Chrome"),
        ("(X11; Ubuntu; Linux x86_64; rv:126.0) Gecko/20100101 Firefox/126.0", "desktop", "Ubuntu", "Firefox"),
        (f"(Macintosh; Intel Mac OS X 10_15_7) {SAFARI} Safari/605.1.15", "desktop", "Mac OS X", "Safari"),
        ("(PlayStation; PlayStation 5/2.26)", "other", None, None),
    ],
)
def test_people(agent, device, os, browser):
    assert classify(f"Mozilla/5.0 {agent}") == (False, device, os, browser)


@pytest.mark.parametrize(
    "agent",
    [
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        "curl/8.5.0",
        "python-requests/2.32.3",
        "Python-urllib/3.11",
        "Go-http-client/1.1",
        "Wget/1.21",
        "axios/1.6.0",
        "node-fetch/1.0",
        "okhttp/4.9.0",
        "facebookexternalhit/1.1",
        "WhatsApp/2.23.20.0",
        "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
        f"Mozilla/5.0 (X11; Linux x86_64) {WEBKIT} HeadlessChrome/126.0.0.0 Safari/537.36",
        "Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5",
        "",
        "   ",
    ],
)
def test_bots(agent):
    assert classify(agent)[:2] == (True, "bot")


@pytest.mark.parametrize(
    ("given_ip", "exact", "network"),
    [
        ("203.0.113.77", "203.0.113.77", "203.0.113.0"),
        (" 203.0.113.77 , 10.0.0.1", "203.0.113.77", "203.0.113.0"),
        ("203.0.113.77:5555", "203.0.113.77", "203.0.113.0"),
        ("2001:DB8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
        ("[2001:db8:1:2:3:4:5:6]:443", "2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
        ("fe80::1%eth0", "fe80::1", "fe80::"),
        ("::ffff:203.0.113.77", "203.0.113.77", "203.0.113.0"),
        ("unknown", "unknown", None),
        ("203.0.113", "203.0.113", None),
        ("", "", None),
        ("1.2.3.4\x00", "1.2.3.4\x00", None),
    ],
)
def test_addresses_are_truncated(given_ip, exact, network):
    assert read_ip(given_ip) == (exact, network)


@given(st.text())
def test_any_text_may_stand_where_an_address_should(text):
    read_ip(text)
    assert clean(text, 10).isprintable()


def test_a_visitor_is_the_same_for_one_owner_and_one_day_only():
    day = date(2026, 3, 1)
    key = visitor_key(SECRET, day, "u1", "203.0.113.7", "Firefox")
    assert key == visitor_key(SECRET, day, "u1", "203.0.113.7", "Firefox")
    assert len(key) == 16
    others = {
        visitor_key(SECRET, date(2026, 3, 2), "u1", "203.0.113.7", "Firefox"),
        visitor_key(SECRET, day, "u2", "203.0.113.7", "Firefox"),
        visitor_key(SECRET, day, "u1", "203.0.113.8", "Firefox"),
        visitor_key(SECRET, day, "u1", "203.0.113.7", "Chrome"),
        visitor_key(b"t" * 32, day, "u1", "203.0.113.7", "Firefox"),
    }
    assert len(others | {key}) == 6
    assert visitor_key(SECRET, day, "u1", "", "") is None


@pytest.mark.parametrize(
    ("timestamp", "moment"),
    [
        ("2026-03-01T12:00:00Z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T12:00:00.250+05:30", datetime(2026, 3, 1, 6, 30, 0, 250_000, tzinfo=UTC)),
        ("2026-03-01 12:00:00", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        (1_772_366_400, datetime(2026, 3, 1, 12, tzinfo=UTC)),
        (1_772_366_400_500, datetime(2026, 3, 1, 12, 0, 0, 500_000, tzinfo=UTC)),
        (1_772_366_400.5, datetime(2026, 3, 1, 12, 0, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_timestamps(timestamp, moment):
    assert parse_timestamp(timestamp) == moment
    assert parse_timestamp(timestamp).tzinfo is UTC


@pytest.mark.parametrize("timestamp", ["yesterday", "", True, [], 10**30, -(10**12), "9999-12-31T00:00:00Z"])
def test_a_wrong_timestamp_fails_at_the_call(timestamp):
    with pytest.raises(InvalidJob, match=r"data.*is not a time; write ISO 8601 or Unix time"):
        QRAnalyticsJob(qr_code_id="a", event="scan", data={"timestamp": timestamp})


def event_of(data, event="qr.scanned"):
    return make_event(
        QRAnalyticsJob(qr_code_id="a", event=event, data=data), Attempt(job_id="j1", queue="qr-analytics"), SECRET
    )


def test_both_spellings_and_the_rest():
    snake = {"event_id": "e1", "user_id": 7, "user_agent": "curl/8", "ip": "203.0.113.7", "result": True, "table": 4}
    camel = {"eventId": "e1", "userId": "7", "userAgent": "curl/8", "ipAddress": "203.0.113.7", "result": "VALID",
             "table": 4}  # fmt: skip
    stamp = {"timestamp": "2026-03-01T12:00:00Z"}
    event = event_of(snake | stamp)
    assert event == event_of(camel | stamp)
    assert (event.event_id, event.user_id, event.event, event.result) == ("e1", "7", "scan", "valid")
    assert (event.bot, event.ip, event.extra) == (True, "203.0.113.0", {"table": 4})
    assert "203.0.113.7" not in repr(event)


def test_missing_values_are_none():
    event = event_of({})
    assert event.event_id == "job-j1"
    assert event[5].tzinfo is UTC
    assert event.device == "unknown"
    assert (event.user_id, event.visitor, event.ip, event.extra, event.bot) == (None, None, None, None, False)


@pytest.mark.parametrize(
    ("location", "country", "city", "rest"),
    [
        ({"country": "DE", "city": "Berlin", "lat": 52.5}, "DE", "Berlin", {"lat": 52.5}),
        ({"countryCode": "DE", "region": "BE"}, "DE", None, {"region": "BE"}),
        ("Berlin, DE", "DE", "Berlin", None),
        ("Berlin", None, "Berlin", None),
        ({"city": "B\x00e\trlin" + "x" * 200}, None, ("B e rlin" + "x" * 200)[:100], None),
        (None, None, None, None),
        (17, None, None, 17),
    ],
)
def test_locations(location, country, city, rest):
    event = event_of({"location": location})
    assert (event.country, event.city) == (country, city)
    assert (event.extra or {}).get("location") == rest


@pytest.mark.parametrize("event_id", ["", "x" * 256, True, 1.5, [], "a\nb"])
def test_an_event_id_that_is_none(event_id):
    with pytest.raises(PermanentFailure, match=r"data\.event_id is not an id"):
        event_of({"event_id": event_id})
