"""The shared limit: never more than it says in any window, from however many threads; the brake; the line."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from rqjobs.broker.rate_limit import Cooldown, RateLimit
from tests.support.clock import RedisClock


@pytest.fixture
def clock(redis, monkeypatch):
    return RedisClock(redis, monkeypatch)


def limit(count=10, window=0.2, **cooldown):
    return RateLimit("test", count, timedelta(seconds=window), Cooldown("test", **cooldown))


def test_no_window_ever_holds_more_than_the_limit_however_long_calls_are_under_way(redis):
    arrivals, lock, shared = [], threading.Lock(), limit()

    def call(number):
        while not (place := shared.take(redis)).granted:
            time.sleep(place.wait)
        time.sleep(number % 3 * 0.03)  # on its way to the other side
        with lock:
            arrivals.append(time.monotonic())
        time.sleep(number % 2 * 0.02)  # and back
        shared.done(redis, place.call)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(call, range(60)))
    arrivals.sort()
    assert all(later - earlier >= 0.2 for earlier, later in zip(arrivals, arrivals[10:], strict=False))
    assert arrivals[-1] - arrivals[0] > 1.0


def test_the_place_of_a_worker_that_died_is_free_again_later(redis, clock):
    shared = RateLimit("test", 1, timedelta(seconds=5), Cooldown("test"), longest=timedelta(seconds=20))
    assert shared.take(redis).granted
    refused = shared.take(redis)
    assert not refused.granted
    assert refused.wait == 5
    clock.pass_(24.9)
    assert not shared.take(redis).granted
    clock.pass_(0.1)
    assert shared.take(redis).granted


def test_the_cooldown_doubles_once_for_concurrent_calls_and_is_reset_by_a_success(redis, clock):
    shared = limit(first=timedelta(seconds=10), longest=timedelta(seconds=30))
    waits = []
    for _ in range(4):
        presses = [shared.cooldown.press(redis)]
        for _ in range(2):
            clock.pass_(0.5)
            presses.append(shared.cooldown.press(redis))
        waits.append(presses)
        clock.pass_(presses[-1] - 0.001)
        assert not shared.take(redis).granted
        clock.pass_(0.002)
    assert waits == [[first, first - 0.5, first - 1] for first in (10, 20, 30, 30)]
    assert shared.take(redis).pressed == 4
    shared.cooldown.release(redis)
    assert shared.take(redis).pressed == 0
    assert shared.cooldown.press(redis, asked=timedelta(seconds=12)) == 12


def test_units_stand_in_line_by_priority_and_for_as_long_as_their_calls_take(redis, clock):
    shared = limit(10, 1)  # a call every 0.1 s
    waits = shared.admit(redis, [(f"job-{n}", 2, "normal") for n in range(6)])
    assert waits == pytest.approx([0, 0, 0.4, 0.6, 0.8, 1.0])
    assert shared.admit(redis, [("urgent", 1, "high")]) == [0]
    assert shared.admit(redis, [("later", 1, "low")]) == pytest.approx([1.2])
    clock.pass_(0.1)
    assert shared.admit(redis, [("job-5", 2, "normal")]) == pytest.approx([0.9])
    clock.pass_(0.1)
    assert shared.admit(redis, [("job-2", 2, "normal")]) == [0]
    shared.cooldown.press(redis, asked=timedelta(seconds=3))
    assert shared.admit(redis, [("job-3", 2, "normal")], slack=0.6) == [3]


def test_units_that_missed_their_time_are_admitted_one_after_the_other(redis, clock):
    shared = limit(10, 1)
    units = [(f"job-{n}", 1, "normal") for n in range(8)]
    assert max(shared.admit(redis, units, slack=0)) > 0.6
    shared.cooldown.press(redis, asked=timedelta(seconds=2))
    clock.pass_(0.8)
    assert shared.admit(redis, units[1:], slack=0) == pytest.approx([1.2 + n * 0.1 for n in range(7)])
