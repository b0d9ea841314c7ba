"""Durations, rates and backoffs: what people write, and what is refused."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqjobs.config.backoff import exponential, fixed, parse_backoff, schedule
from rqjobs.config.durations import format_duration, parse_duration, parse_explicit_duration, parse_rate


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2s", 2), ("500ms", 0.5), ("5m", 300), ("1h", 3600), ("2d", 172800), ("30", 30), (7, 7), ("1.5s", 1.5)],
)
def test_durations_as_people_write_them(text, seconds):
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2x",
        "-1s",
        "1h30",
        None,
        True,
        -3,
        "s",
        "999999999999d",
        "9" * 400,
        1e300,
        10**400,
        float("inf"),
        float("nan"),
        timedelta.max,
    ],
)
def test_an_invalid_duration_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("number", "ours", "bulls"), [(3600000, "3600000s", "1h"), ("30000", "30000s", "30s"), (1.5, "1.5s", "1.5ms")]
)
def test_an_explicit_duration_needs_a_unit(number, ours, bulls):
    with pytest.raises(ValueError, match="bare number") as caught:
        parse_explicit_duration(number)
    assert f'write "{ours}" or timedelta' in str(caught.value)
    assert f'"{bulls}"' in str(caught.value)


@pytest.mark.parametrize("number", [10**400, float("nan"), float("inf"), -3, "9" * 400, True, None])
def test_an_explicit_duration_must_be_a_duration(number):
    with pytest.raises(ValueError, match="duration"):
        parse_explicit_duration(number)


def test_an_explicit_duration_with_its_unit():
    assert parse_explicit_duration("1h") == parse_explicit_duration(timedelta(hours=1)) == timedelta(hours=1)


@given(st.integers(min_value=0, max_value=10**8))
def test_a_formatted_duration_is_read_back_within_a_percent(seconds):
    back = parse_duration(format_duration(timedelta(seconds=seconds)))
    assert abs(back.total_seconds() - seconds) <= seconds * 0.01


def test_rates():
    assert parse_rate("10/s").per_second == 10
    assert parse_rate("5/10s").per_second == 0.5
    for wrong in ("10", "0/s", "x/s", "1/0s", "1/00s", "1/999999999999d", f"1/{'9' * 400}s", f"{'9' * 400}/s"):
        with pytest.raises(ValueError, match=r"rate|duration"):
            parse_rate(wrong)


def test_the_default_waits_are_2_4_8():
    assert exponential().waits(4) == [2, 4, 8]
    assert fixed("10s").waits(3) == [10, 10]
    assert exponential().waits(1) == []


@given(attempts=st.integers(1, 100), jitter=st.floats(0, 1), base=st.floats(0.001, 1e5))
def test_there_is_one_wait_fewer_than_attempts_and_jitter_only_adds(attempts, jitter, base):
    backoff = exponential(timedelta(seconds=base), jitter=jitter)
    waits, plain = backoff.waits(attempts), exponential(timedelta(seconds=base)).waits(attempts)
    assert len(waits) == attempts - 1
    assert all(p - 0.001 <= w <= p * (1 + jitter) + 0.001 for w, p in zip(waits, plain, strict=True))


def test_a_schedule_gives_its_waits_and_repeats_the_last_one():
    waits = schedule("5s", "5m", timedelta(minutes=30))
    assert waits.attempts == 4
    assert waits.waits(4) == [5, 300, 1800]
    assert waits.waits(6) == [5, 300, 1800, 1800, 1800]
    assert waits.waits(2) == [5]
    assert str(waits) == "schedule:5s,5m,30m"
    assert parse_backoff(str(waits)) == waits
    assert exponential().attempts is None
    for wrong in ((), ("1s",) * 100, ("soon",)):
        with pytest.raises(ValueError):
            schedule(*wrong)
    with pytest.raises(ValueError, match="jitter"):
        schedule("1s", jitter=2)


def test_standard_is_the_example_of_standard_webhooks():
    standard = parse_backoff("standard")
    assert standard.attempts == 10
    hours = [wait / 3600 for wait in standard.waits(10)]
    assert hours[3:] == [2, 5, 10, 14, 20, 24]
    assert 75 < sum(hours) < 76
    assert parse_backoff("standard:jitter=0.2").jitter == 0.2


def test_a_backoff_is_read_from_text():
    assert parse_backoff("exponential:5s").waits(3) == [5, 10]
    assert parse_backoff("fixed:10s:jitter=0.5").jitter == 0.5
    for wrong in ("linear:2s", "fixed", "fixed:2x", "exponential:2s:jitter=2", "exponential:99999999999999d", 5):
        with pytest.raises(ValueError):
            parse_backoff(wrong)  # type: ignore[arg-type]
