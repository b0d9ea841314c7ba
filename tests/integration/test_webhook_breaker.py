"""The circuit breaker and the slots of destinations: parked jobs keep their order, the others go on."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import timedelta

import pytest
import redis as redis_py
from rq.job import JobStatus

from rqjobs import enqueue_many
from rqjobs.attempt import Attempt, Hold
from rqjobs.broker.keys import PREFIX, breaker_parked
from rqjobs.broker.rq_schema import key, run_script, timestamp
from rqjobs.config.settings import Settings, get_settings, use_settings
from rqjobs.jobs import WebhookJob
from rqjobs.processors.webhook import admit, breaker
from rqjobs.processors.webhook.breaker import AdmissionRequest
from rqjobs.processors.webhook.context import context
from rqjobs.processors.webhook.destinations import Destinations
from tests.support.clock import RedisClock

DEAD, ALIVE = "http://127.0.0.1:1/", "http://127.0.0.1:2/"


class Clock(RedisClock):
    """The time that the breaker goes by; set by the tests."""

    @property
    def now(self) -> float:
        return self.time()

    @now.setter
    def now(self, moment: float) -> None:
        self.pass_(moment - self.time())


@pytest.fixture
def clock(redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setenv("WEBHOOK_ALLOW", "127.0.0.1")
    use_settings(None)
    running = Clock(redis, monkeypatch)
    running.now = 1_000_000.0
    monkeypatch.setattr(breaker, "time", running)
    return running


def fail(clock: Clock, times: int, *, probe: bool = False) -> bool:
    """Whether one of so many failures opened it."""
    opened = [breaker.report_failure("d", clock.now - 15, probe=probe, settings=get_settings()) for _ in range(times)]
    return any(opened)


def ask(jobs: Sequence[str], room: int = 100, *, silent: bool = False) -> list[str]:
    """The verdicts on ``jobs``, which were enqueued in the order of their names."""
    asked = [(job, float(job[1:] or 0)) for job in jobs]
    (answer,) = breaker.ask([AdmissionRequest(["o", "d"], room, silent, asked)], get_settings())
    return moments(answer.verdicts)


def moments(verdicts: Sequence[str]) -> list[str]:
    """Seconds to wait as the moment at which they are over; words stay."""
    now = breaker.time.time()
    return [word if word in ("go", "probe", "soon") else f"{now + float(word):.6f}" for word in verdicts]


def times(verdicts: Sequence[str]) -> list[float]:
    return [float(verdict) for verdict in verdicts]


def test_it_opens_after_failures_in_a_row(clock: Clock) -> None:
    assert ask(["a"]) == ["go"]
    assert not fail(clock, 9)
    assert not breaker.report_answer("d")
    assert not fail(clock, 9)
    assert ask(["a"]) == ["go"]
    assert fail(clock, 1)
    assert times(ask(["a", "b", "c"])) == [clock.now + 10, clock.now + 10.02, clock.now + 10.04]


def test_a_short_outage_opens_nothing(clock: Clock) -> None:
    for _ in range(100):
        assert not breaker.report_failure("d", clock.now - 0.01, probe=False, settings=get_settings())
    clock.now += 10.1
    assert breaker.report_failure("d", clock.now - 0.01, probe=False, settings=get_settings())


def test_a_probe_in_a_process_of_its_own_counts(clock: Clock) -> None:
    """It knows neither that it is the probe nor that its destination fails."""
    fail(clock, 10)
    ask(["j1", "j2"])
    clock.now += 10
    assert ask(["j1"]) == ["probe"]
    assert breaker.report_failure("d", clock.now, probe=False, settings=get_settings())
    assert times(ask(["j2"]))[0] >= clock.now + 20
    assert Destinations(10).get("d").failing is None  # so that its answer is told


def test_parked_deliveries_start_in_the_order_of_enqueueing(clock: Clock) -> None:
    fail(clock, 10)
    times(ask(["j5", "j3", "j1"]))
    later = times(ask(["j2", "j4", "j0"]))
    assert later == [clock.now + 10 + place / 50 for place in (1, 3, 0)]
    clock.now += 10.5
    assert [verdict == "probe" for verdict in ask(["j1", "j0", "j1"])] == [False, True, False]
    assert breaker.report_answer("d")
    clock.now += 1.2
    assert [verdict == "go" for verdict in ask(["j2", "j1", "j3"])] == [False, True, False]
    assert [verdict == "go" for verdict in ask(["j2", "j5", "j3", "j4", "j5"])] == [True, False, True, True, True]


def test_a_deleted_parked_delivery_does_not_delay_the_others(clock: Clock) -> None:
    fail(clock, 10)
    ask([f"j{n}" for n in range(8)])
    clock.now += 10
    clock.now = float(ask(["j1"])[0]) + 1.1  # of j0 no more is heard
    assert ask(["j1"]) == ["probe"]
    assert breaker.report_answer("d")
    clock.now = due = float(ask(["j3"])[0])  # nor of j2
    started: dict[str, float] = {}
    while len(started) < 5:
        jobs = [f"j{n}" for n in range(3, 8) if f"j{n}" not in started]
        started |= {job: clock.now for job, verdict in zip(jobs, ask(jobs), strict=True) if verdict == "go"}
        clock.now += 0.02
    assert list(started) == ["j3", "j4", "j5", "j6", "j7"]
    assert 0.9 < started["j3"] - due < 1.3
    assert started["j7"] - started["j3"] < 0.2
    assert ask(["j0", "j2"]) == ["go", "go"]


def test_one_probe_goes_and_the_others_keep_their_order(clock: Clock) -> None:
    fail(clock, 10)
    jobs = [f"j{n}" for n in range(5)]
    ask(jobs)
    clock.now += 10
    assert ask(jobs[:1]) == ["probe"]
    waiting = times(ask(jobs[1:]))
    assert waiting == sorted(waiting)
    assert waiting[0] > clock.now
    clock.now += 2
    fail(clock, 1, probe=True)
    again = times(ask(jobs[1:]))
    assert again == sorted(again)
    assert again[0] >= clock.now + 20  # the pause doubles
    clock.now = again[0] + 0.001
    assert ask(["j1"]) == ["probe"]
    assert breaker.report_answer("d")
    assert not breaker.report_answer("d")
    times(ask(["j3"]))  # asks too early: it waits for its turn
    for job in ("j2", "j3", "j4"):
        clock.now = max(clock.now, again[-1] + 2)
        assert ask([job]) == ["go"]
    assert ask(["j9"]) == ["go"]


def simulate(clock: Clock, jobs: int, down_for: float) -> tuple[list[str], set[str], int, float]:
    """A small engine: ``jobs`` jobs to a destination that does not answer for ``down_for`` seconds after opening."""
    fail(clock, 10)
    start, up_at = clock.now, clock.now + down_for
    due = [(clock.now, n, f"j{n}") for n in range(jobs)]
    order: list[str] = []
    probed: set[str] = set()
    asked = 0
    failed_probes: list[tuple[float, str]] = []
    while due or failed_probes:
        due.sort()
        moment = min([due[0][0]] if due else [], default=float("inf"))
        if failed_probes and failed_probes[0][0] <= moment:
            clock.now = max(clock.now, failed_probes[0][0])
            _, job = failed_probes.pop(0)
            fail(clock, 1, probe=True)
            due.append((clock.now, -1, job))
            continue
        clock.now = max(clock.now, moment)
        batch = [item for item in due if item[0] <= clock.now + 0.01]
        due = due[len(batch) :]
        asked += len(batch)
        for (_, place, job), verdict in zip(batch, ask([item[2] for item in batch]), strict=True):
            if verdict == "probe" and clock.now < up_at:
                failed_probes.append((clock.now + 15, job))
                probed.add(job)  # it is tried again by its backoff, behind the others
            elif verdict == "probe":
                breaker.report_answer("d")
                order.append(job)
            elif verdict == "go":
                order.append(job)
            else:
                due.append((float(verdict), place, job))
    return order, probed, asked, clock.now - start


@pytest.mark.parametrize("down_for", [5, 12, 40, 200])
def test_all_start_in_order_paced(clock: Clock, redis: redis_py.Redis, down_for: float) -> None:
    order, probed, asked, seconds = simulate(clock, 400, down_for)
    assert sorted(order) == sorted(f"j{n}" for n in range(400))
    steady = [int(job[1:]) for job in order if job not in probed]
    assert steady == sorted(steady)
    assert len(probed) < 10
    assert asked < 400 * (3 + seconds / 5)
    assert redis.keys("*:line:*") == []


def jobs_to(url: str, count: int, prefix: str) -> list[tuple[WebhookJob, Attempt]]:
    job = WebhookJob(webhook_id="w", event="e", url=url, payload={})
    return [
        (job, Attempt(job_id=f"{prefix}{n}", queue="webhooks", timeout=timedelta(seconds=30))) for n in range(count)
    ]


def started(jobs: Sequence[tuple[WebhookJob, Attempt]], holds: Sequence[Hold | None]) -> int:
    """Starts what may start; how many that are."""
    free = [attempt for (_, attempt), hold in zip(jobs, holds, strict=True) if hold is None]
    destination = context().destinations.get(context().place(jobs[0][0], None).destination)
    for attempt in free:
        destination.start(attempt.job_id)
    return len(free)


def test_a_destination_that_does_not_answer_gets_a_quarter_of_the_slots(clock: Clock, settings: Settings) -> None:
    slots = context().destinations.slots
    dead = jobs_to(DEAD, slots, "d")
    holds = admit(dead)
    assert started(dead, holds) == slots // 4
    first = [hold for hold in holds if hold is not None]
    assert [hold.until for hold in first] == sorted(hold.until for hold in first)
    assert max(hold.until.timestamp() for hold in first) < time.time() + 1
    destination = context().destinations.get("http://127.0.0.1:1/ w")
    destination.busy_since -= 5  # silent for five seconds
    again = jobs_to(DEAD, 10, "e")
    assert all(hold is not None and hold.until.timestamp() > clock.now + 0.5 for hold in admit(again))
    alive = jobs_to(ALIVE, 40, "a")
    assert started(alive, admit(alive)) == 40
    good = context().destinations.get("http://127.0.0.1:2/ w")
    for _ in range(40):
        good.end(0.02, answered=True)
    many = jobs_to(ALIVE, 2 * slots, "b")  # more than there are slots: the rest waits for them here
    assert started(many, admit(many)) == 2 * slots


def test_many_silent_destinations_together_get_half_of_the_slots(clock: Clock) -> None:
    slots = context().destinations.slots
    total = 0
    for port in range(10, 20):
        jobs = jobs_to(f"http://127.0.0.1:{port}/", slots // 4, f"p{port}-")
        total += started(jobs, admit(jobs))
    assert total <= slots // 2 + 10


def test_jobs_that_never_start_are_forgotten(clock: Clock) -> None:
    admit(jobs_to(DEAD, 50, "d"))
    destination = context().destinations.get("http://127.0.0.1:1/ w")
    assert destination.used == 50
    destination.tidy(time.monotonic() + 11)
    assert destination.used == 0


def reserve(redis: redis_py.Redis, how: str = "park") -> tuple[int, list[str]]:
    """As the engine asks for jobs: how many were parked at once, and the ids of those that are to run."""
    seed = os.urandom(12).hex()
    words = [PREFIX, "w", 60, timestamp(), seed, how, 3, 1, "webhooks", 200, "", "", "p", *[""] * 4, "webhooks", 1]
    _wait, parked, _full, _trial, *jobs = run_script("reserve", redis, words)
    return parked, [job[0].decode() for job in jobs]


def reserve_all(redis: redis_py.Redis) -> tuple[int, list[str]]:
    total, ids = 0, []
    while redis.llen(key("queue", "webhooks")):
        parked, found = reserve(redis)
        assert parked <= 400
        total, ids = total + parked, ids + found
    return total, ids


@pytest.fixture
def still(redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> RedisClock:
    """Time stands still, here and in Redis."""
    clock = RedisClock(redis, monkeypatch)
    monkeypatch.setattr(breaker, "time", clock)
    return clock


DEAD_ORIGIN = "http://dead.example:80"
DEAD_SUBSCRIPTION = f"{DEAD_ORIGIN} w"
DEAD_URL = f"{DEAD_ORIGIN}/a"


def kill(name: str) -> None:
    """Opens the breaker of an origin or a destination, and has one job parked by the long way."""
    for _ in range(get_settings().webhook_breaker_failures):
        breaker.report_failure(name, breaker.time.time() - 15, probe=False, settings=get_settings())
    breaker.ask([AdmissionRequest([name], 0, False, [("first", 0.0)])], get_settings())


def webhook(url: str, **fields: object) -> WebhookJob:
    return WebhookJob(**{"webhook_id": "w", "event": "e", "url": url, "payload": {}} | fields)


@pytest.mark.parametrize("name", [DEAD_ORIGIN, DEAD_SUBSCRIPTION])
def test_a_busy_engine_parks_as_the_breaker_would(redis: redis_py.Redis, still: RedisClock, name: str) -> None:
    kill(name)
    urls = [
        "http://dead.example/a",
        "http://alive.example/a",
        "https://dead.example/",
        "http://dead.example:80?x",
    ] * 150
    jobs = enqueue_many([webhook(url) for url in urls])
    dead = [job.id for job, url in zip(jobs, urls, strict=True) if url.startswith("http://dead")]
    assert reserve_all(redis) == (300, [job.id for job in jobs if job.id not in set(dead)])
    waiting = redis.zrange(key("scheduled", "webhooks"), 0, -1, withscores=True)
    assert [job_id.decode() for job_id, _ in waiting] == dead
    assert {job.get_status() for job in jobs if job.id in set(dead)} == {JobStatus.SCHEDULED}
    (shown,) = breaker.breakers()
    assert (shown.state, shown.parked) == ("open", 301)
    assert shown.next_try is not None
    assert waiting[0][1] == pytest.approx(shown.next_try.timestamp() + 1 / get_settings().webhook_pace)
    order = redis.zrange(breaker_parked(name), 1, -1, withscores=True)
    created = {job.id: job.created_at.timestamp() for job in jobs}
    assert order == [(job_id.encode(), pytest.approx(created[job_id], abs=1e-6)) for job_id in dead]
    asked = [(job_id, 0.0) for job_id in dead]
    (answer,) = breaker.ask([AdmissionRequest([DEAD_ORIGIN, DEAD_SUBSCRIPTION], 9, False, asked)], get_settings())
    assert times(moments(answer.verdicts)) == pytest.approx([score for _, score in waiting], abs=1e-4)
    for job_id in dead:  # due while it is open still: each keeps its place
        redis.hset(key("job", job_id), "enqueued_at", timestamp())
    redis.rpush(key("queue", "webhooks"), *dead)
    assert reserve_all(redis) == (300, [])
    again = redis.zrange(key("scheduled", "webhooks"), 0, -1, withscores=True)
    assert dict(again) == pytest.approx(dict(waiting), abs=1e-4)
    breaker.report_answer(name)
    redis.rpush(key("queue", "webhooks"), *dead)
    assert reserve_all(redis) == (0, dead)


def test_a_busy_engine_parks_jobs_of_a_url(redis: redis_py.Redis, still: RedisClock) -> None:
    kill(DEAD_URL)
    urls = ["http://dead.example/a", "http://dead.example/b", "http://dead.example:80/a?n=1", "http://dead.example/"]
    large = {"long": os.urandom(600).hex()}  # deflated
    jobs = enqueue_many([*map(webhook, urls), webhook(urls[0], payload=large)])
    assert reserve_all(redis) == (3, [jobs[1].id, jobs[3].id])


def test_a_busy_engine_parks_jobs_of_an_endpoint_by_its_name(redis: redis_py.Redis, still: RedisClock) -> None:
    kill("shop")
    jobs = enqueue_many([webhook("http://dead.example/", endpoint=name) for name in ("shop", "other", "shop")])
    assert reserve_all(redis) == (2, [jobs[1].id])


def test_while_a_probe_is_out_the_others_are_parked_behind_it(redis: redis_py.Redis, still: RedisClock) -> None:
    kill(DEAD_ORIGIN)
    redis.hset(f"{PREFIX}:webhooks:breaker:http://dead.example:80", "open", still.time() - 0.1)
    (first, *rest) = [job.id for job in enqueue_many([webhook("http://dead.example/")] * 50)]
    assert reserve(redis) == (0, [first, *rest])  # the long way: one of them will be the probe
    asked = [(job_id, float(place)) for place, job_id in enumerate([first, *rest])]
    (answer,) = breaker.ask([AdmissionRequest([DEAD_ORIGIN, DEAD_SUBSCRIPTION], 9, False, asked)], get_settings())
    assert answer.verdicts[0] == "probe"
    redis.rpush(key("queue", "webhooks"), *rest)
    assert reserve(redis) == (49, [])
    scores = [score for _, score in redis.zrange(key("scheduled", "webhooks"), 0, -1, withscores=True)]
    assert scores == pytest.approx(times(moments(answer.verdicts[1:])), abs=1e-4)
    assert min(scores) > still.time() + 0.4


def test_in_doubt_a_job_goes_the_long_way(redis: redis_py.Redis, still: RedisClock) -> None:
    kill(DEAD_ORIGIN)
    doubtful = [
        webhook("http://DEAD.example/"),
        webhook("http://dead.example:8080/"),
        webhook("http://dead.example.org/"),
        webhook("http://alive.example/?http://dead.example/", payload={"url": "http://dead.example/"}),
        webhook("http://alive.example/", webhook_id='","event":"e","url":"http://dead.example/'),
        webhook("http://dead.example/", endpoint="moved"),
    ]
    ids = [job.id for job in enqueue_many([*doubtful, *[webhook("http://dead.example/")] * 6])]
    redis.hset(key("job", ids[-1]), "enqueued_at", timestamp())  # it was tried, and failed
    redis.hdel(key("job", ids[-2]), "destination")  # it was enqueued by an earlier version
    late = "9" * 30 + f"\n{DEAD_ORIGIN}\n/\nw"
    for job_id, forged in zip(ids[-6:-2], (DEAD_ORIGIN, "\n\n\n", b"\xff\xfe", late), strict=True):
        redis.hset(key("job", job_id), "destination", forged)
    assert reserve(redis) == (0, ids)
    (dead,) = enqueue_many([webhook("http://dead.example/")])
    for how in ("", "1"):
        assert reserve(redis, how) == (0, [dead.id])
        redis.rpush(key("queue", "webhooks"), dead.id)
    redis.set(key("scheduled", "webhooks"), "of another type")
    assert reserve(redis) == (0, []), "the lane is out of use"
    redis.delete(key("scheduled", "webhooks"))
    assert reserve(redis) == (1, [])
