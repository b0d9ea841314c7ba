"""The state machine of a hold, without workers: Redis hands out one trial at a time."""

from __future__ import annotations

import contextlib

import pytest
import redis as redis_py
from hypothesis import HealthCheck, settings, stateful
from hypothesis import strategies as st

from rqjobs import enqueue_many
from rqjobs.broker import holds, keys
from rqjobs.broker.rq_schema import key
from tests.support.clock import RedisClock
from tests.support.holds import LANES, ChargedError, Queue
from tests.support.processors import ProbeJob


def probes(count: int, **options: object) -> list[str]:
    return [job.id for job in enqueue_many([ProbeJob(log="x", value=number) for number in range(count)], **options)]


@pytest.fixture
def clock(redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> RedisClock:
    return RedisClock(redis, monkeypatch)


@pytest.fixture
def queue(redis: redis_py.Redis, clock: RedisClock) -> Queue:
    return Queue(redis)


def test_one_trial_at_a_time_at_growing_intervals(queue: Queue, clock: RedisClock) -> None:
    jobs = probes(5)
    (first,) = queue.reserve(1)
    assert queue.finish("unavailable", first) == ["opened"]
    assert queue.reserve(5) == []
    assert queue.wait == pytest.approx(1, abs=0.01)
    clock.pass_(1.01)
    (second,) = queue.reserve(5)
    assert second.job_id == jobs[1], "not the job that found it away"
    assert second.trial
    assert queue.reserve(5) == [], "a trial is out"
    assert queue.finish("unavailable", second) == []
    assert queue.reserve(5) == []
    assert queue.wait == pytest.approx(2, abs=0.01)
    clock.pass_(2.01)
    (third,) = queue.reserve(5)
    assert third.job_id == jobs[0]
    assert queue.finish("done", third) == ["closed"]
    assert [job.job_id for job in queue.reserve(5)] == [jobs[2], jobs[3], jobs[4], jobs[1]]
    assert holds.dependencies_away() == []


def test_intervals_end_at_a_minute(queue: Queue, clock: RedisClock) -> None:
    probes(2)
    queue.finish("unavailable", *queue.reserve(1))
    waits = []
    for _ in range(9):
        assert queue.reserve(2) == []
        waits.append(round(queue.wait))
        clock.pass_(queue.wait + 0.01)
        queue.finish("unavailable", *queue.reserve(2))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_jobs_that_ran_at_the_outage_return_in_order_and_only_once(queue: Queue, clock: RedisClock) -> None:
    jobs = probes(20)
    assert queue.finish("unavailable", *queue.reserve(10)) == ["opened"]
    assert queue.reserve(20) == []
    assert queue.wait == pytest.approx(1, abs=0.01)
    clock.pass_(1.01)
    assert queue.finish("done", *queue.reserve(20)) == ["closed"]
    left = [job.job_id for job in queue.reserve(20)]
    assert left == [job for job in jobs if job in left], "in their order"
    assert len(left) == 19


def test_a_trial_ends_with_its_dead_worker(queue: Queue, redis: redis_py.Redis, clock: RedisClock) -> None:
    probes(3)
    queue.finish("unavailable", *queue.reserve(1))
    clock.pass_(1.01)
    (trial,) = queue.reserve(3)
    other = Queue(redis, "other")
    assert other.reserve(3) == []
    queue.kill(trial)
    assert len(other.reserve(3)) == 1


def test_another_trial_starts_if_one_takes_long(queue: Queue, clock: RedisClock) -> None:
    probes(3)
    queue.finish("unavailable", *queue.reserve(1))
    clock.pass_(1.01)
    (slow,) = queue.reserve(3)
    clock.pass_(59)
    assert queue.reserve(3) == []
    clock.pass_(1.1)
    assert len(queue.reserve(3)) == 1
    assert queue.finish("done", slow) == ["closed"], "the first is a trial still"


def test_trials_that_fail_for_reasons_of_their_own_follow_at_once_and_end_the_hold(
    queue: Queue, clock: RedisClock
) -> None:
    probes(9)
    queue.finish("unavailable", *queue.reserve(1))
    clock.pass_(1.01)
    for last in (False, False, True):
        (trial,) = queue.reserve(9)
        assert queue.finish("retry", trial) == (["closed"] if last else [])
    assert len(queue.reserve(20)) == 9


@pytest.mark.parametrize("how", ["released", "held"])
def test_a_trial_that_did_not_run_changes_nothing(queue: Queue, clock: RedisClock, how: str) -> None:
    probes(9)
    queue.finish("unavailable", *queue.reserve(1))
    clock.pass_(1.01)
    for _ in range(5):
        (trial,) = queue.reserve(9)
        assert queue.finish(how, trial) == []
    assert len(queue.reserve(9)) == 1
    assert queue.reserve(9) == []


def test_a_job_that_always_reports_an_outage_is_charged_and_blocks_no_other(queue: Queue, clock: RedisClock) -> None:
    (wrong,) = probes(1, priority="high")
    others = set(probes(60))
    opened = 0
    for _ in range(200):
        clock.pass_(1.01)
        for job in queue.reserve(3):
            if job.job_id != wrong:
                queue.finish("done", job)
                others.discard(job.job_id)
                continue
            try:
                opened += queue.finish("unavailable", job) == ["opened"]
            except ChargedError:
                queue.finish("retry", job)
        if not others:
            break
    assert not others
    assert 0 < opened <= 6


def test_two_wrong_reports_in_one_lane_hold_no_other_lane(queue: Queue, clock: RedisClock) -> None:
    wrong = set(probes(2, priority="high"))
    (good,) = probes(1, priority="low")
    for _ in range(10):
        clock.pass_(61)
        for job in queue.reserve(1):
            if job.job_id == good:
                return
            assert job.job_id in wrong
            queue.finish("unavailable", job)
    pytest.fail("the job of another lane was never tried")


def test_a_paused_queue_is_not_tried(queue: Queue, redis: redis_py.Redis, clock: RedisClock) -> None:
    probes(3)
    queue.finish("unavailable", *queue.reserve(1))
    clock.pass_(5)
    redis.sadd(keys.PAUSED, "probe")
    assert queue.reserve(3) == []
    assert queue.wait == -1
    redis.srem(keys.PAUSED, "probe")
    assert len(queue.reserve(3)) == 1


def test_a_hand_tries_at_once(queue: Queue, clock: RedisClock, redis: redis_py.Redis) -> None:
    probes(3)
    queue.finish("unavailable", *queue.reserve(1))
    assert queue.reserve(3) == []
    assert holds.try_now("probe", redis) == 1
    assert len(queue.reserve(3)) == 1


def test_a_scope_holds_only_its_own_jobs(queue: Queue, clock: RedisClock, redis: redis_py.Redis) -> None:
    jobs = probes(6)
    claimed = queue.reserve(6)
    mine, others = claimed[:4], claimed[4:]
    assert queue.finish("unavailable", *mine, scope="a") == ["opened"]
    queue.finish("done", *others)
    assert len(queue.reserve(9)) == 0
    free = probes(2)
    assert [job.job_id for job in queue.reserve(9)] == free
    clock.pass_(1.1)
    assert queue.due(clock.time()) == 4
    (trial,) = queue.reserve(9)
    assert trial.trial
    assert redis.zcard(key("scheduled", "probe")) == 3, "the others wait on"
    assert queue.finish("done", trial) == ["closed"]
    assert queue.due(clock.time()) == 3, "they go on at once"
    assert {job.job_id for job in queue.reserve(9)} == set(jobs[:4]) - {trial.job_id}
    assert redis.keys(f"{keys.PREFIX}:held*") == []


class Model(stateful.RuleBasedStateMachine):
    """Jobs of three lanes, two workers that die, a dependency that comes and goes."""

    def __init__(self) -> None:
        super().__init__()
        self.redis, self.clock = Model.parts
        self.redis.delete(keys.HOLDS, *self.redis.keys("rq:*") or ["x"])
        self.queues = [Queue(self.redis, f"w{number}") for number in range(2)]
        self.claimed: list[tuple[int, object]] = []
        self.all: set[str] = set()
        self.done: set[str] = set()
        self.up = True

    @stateful.rule(count=st.integers(1, 4), priority=st.sampled_from(["high", "normal", "low"]))
    def enqueue(self, count: int, priority: str) -> None:
        self.all.update(probes(count, priority=priority))

    @stateful.rule(worker=st.integers(0, 1), count=st.integers(1, 5))
    def reserve(self, worker: int, count: int) -> None:
        held = bool(self.redis.exists(keys.HOLDS))
        jobs = self.queues[worker].reserve(count)
        self.claimed += [(worker, job) for job in jobs]
        assert not held or len(jobs) <= 1
        assert held == any(job.trial for job in jobs) or not jobs

    @stateful.rule(data=st.data(), own=st.sampled_from(["", "retry", "released", "kill", "held"]))
    def end(self, data: st.DataObject, own: str) -> None:
        if not self.claimed:
            return
        worker, job = self.claimed.pop(data.draw(st.integers(0, len(self.claimed) - 1)))
        if own == "kill":
            self.queues[worker].kill(job)
        elif own:
            self.queues[worker].finish(own, job)
        elif self.up:
            self.queues[worker].finish("done", job)
            self.done.add(job.job_id)
        else:
            with contextlib.suppress(ChargedError):
                self.queues[worker].finish("unavailable", job)
                return
            self.queues[worker].finish("retry", job)

    @stateful.rule(seconds=st.sampled_from([0.1, 1.1, 5, 70]))
    def wait(self, seconds: float) -> None:
        self.clock.pass_(seconds)
        self.queues[0].due(self.clock.time())

    @stateful.rule()
    def toggle(self) -> None:
        self.up = not self.up

    @stateful.invariant()
    def every_job_is_in_one_place(self) -> None:
        found: list[str] = [job.job_id for _, job in self.claimed] + list(self.done)
        for lane in LANES:
            found += [job.decode() for job in self.redis.lrange(key("queue", lane), 0, -1)]
            found += [job.decode() for job in self.redis.zrange(key("scheduled", lane), 0, -1)]
        assert sorted(found) == sorted(self.all)

    def teardown(self) -> None:
        """Once it answers, everything is done, whatever came before."""
        self.up = True
        for worker, job in self.claimed:
            self.queues[worker].kill(job)
        self.claimed = []
        for _ in range(len(self.all) + 5):
            self.clock.pass_(61)
            self.queues[0].due(self.clock.time())
            jobs = self.queues[0].reserve(50)
            if jobs:
                self.queues[0].finish("done", *jobs)
                self.done.update(job.job_id for job in jobs)
        assert self.done == self.all
        assert not self.redis.exists(keys.HOLDS) or not self.all


def test_no_order_of_events_loses_a_job_or_holds_one_for_ever(redis: redis_py.Redis, clock: RedisClock) -> None:
    Model.parts = (redis, clock)
    stateful.run_state_machine_as_test(
        Model,
        settings=settings(
            max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
