"""The shared limit: never more than it says in any window, from however many threads; the brake; the line."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from rqjobs.ratelimit import Brake, RateLimit


def limit(count=10, window=0.2, **brake):
    return RateLimit("test", count, timedelta(seconds=window), Brake("test", **brake))


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
    assert 1.0 < arrivals[-1] - arrivals[0] < 4


def test_the_place_of_a_worker_that_died_is_free_again_later(redis):
    shared = RateLimit("test", 1, timedelta(milliseconds=50), Brake("test"), longest=timedelta(milliseconds=200))
    assert shared.take(redis).granted
    refused = shared.take(redis)
    assert not refused.granted
    assert 0 < refused.wait <= 0.05
    time.sleep(0.26)
    assert shared.take(redis).granted


def test_the_brake_doubles_once_for_calls_under_way_together_and_starts_anew_after_a_success(redis):
    shared = limit(first=timedelta(milliseconds=50), longest=timedelta(milliseconds=150))
    waits = []
    for _ in range(4):
        waits.append([shared.brake.press(redis) for _ in range(3)])
        assert not shared.take(redis).granted
        time.sleep(waits[-1][-1] + 0.002)
    assert [round(first, 2) for first, *_ in waits] == [0.05, 0.1, 0.15, 0.15]
    assert all(first >= second >= third for first, second, third in waits)
    assert shared.take(redis).pressed == 4
    shared.brake.release(redis)
    assert shared.take(redis).pressed == 0
    assert 1.9 < shared.brake.press(redis, asked=timedelta(seconds=2)) <= 2


def test_units_stand_in_line_by_priority_and_for_as_long_as_their_calls_take(redis):
    shared = limit(10, 1)  # a call every 0.1 s
    waits = shared.line(redis, [(f"job-{n}", 2, "normal") for n in range(6)])
    assert [round(wait, 1) for wait in waits] == [0, 0, 0.4, 0.6, 0.8, 1.0]
    assert shared.line(redis, [("urgent", 1, "high")]) == [0]
    assert round(shared.line(redis, [("later", 1, "low")])[0], 1) == 1.2
    again = shared.line(redis, [("job-5", 2, "normal")])[0]
    assert 0.8 < again <= 1.0
    time.sleep(0.2)
    assert shared.line(redis, [("job-2", 2, "normal")]) == [0]
    shared.brake.press(redis, asked=timedelta(seconds=3))
    assert round(shared.line(redis, [("job-3", 2, "normal")], slack=0.6)[0]) == 3


def test_units_whose_turn_passed_while_nothing_went_come_back_one_after_the_other(redis):
    shared = limit(10, 1)
    units = [(f"job-{n}", 1, "normal") for n in range(8)]
    assert max(shared.line(redis, units, slack=0)) > 0.6
    shared.brake.press(redis, asked=timedelta(seconds=2))
    time.sleep(0.8)
    waits = [round(wait, 1) for wait in shared.line(redis, units[1:], slack=0)]
    assert waits == [round(waits[0] + n * 0.1, 1) for n in range(7)]
    assert 1.1 <= waits[0] <= 1.2
