"""Groups in Redis, without worker processes: order, turns, slots and rates, whatever ends a run."""

from __future__ import annotations

from collections import Counter

import pytest
import redis as redis_py
from hypothesis import HealthCheck, settings, stateful
from hypothesis import strategies as st

from rqjobs import InvalidJob, enqueue, enqueue_many, queue_health
from rqjobs.broker import job_actions, keys
from rqjobs.broker.rq_schema import key
from rqjobs.config.settings import get_settings, use_settings
from rqjobs.dead_letters.letters import requeue
from rqjobs.worker.claimed_job import ClaimedJob
from rqjobs.worker.rescue import rescue
from tests.support.clock import RedisClock
from tests.support.groups import LANES, ScriptedWorker
from tests.support.processors import ProbeJob


@pytest.fixture
def clock(redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> RedisClock:
    return RedisClock(redis, monkeypatch)


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch):
    """Sets what the policy says of groups."""

    def set_limits(**limits: object) -> None:
        for name, value in limits.items():
            monkeypatch.setenv(f"RQJOBS_PROBE_GROUP_{name.upper()}", str(value))
        use_settings(None)

    return set_limits


def put(*groups: str | None, **options) -> list[str]:
    """Enqueues a job for each name of a group; the ids."""
    return [job.id for job in enqueue_many([(ProbeJob(log="x"), {"group": group, **options}) for group in groups])]


def ids(jobs: list[ClaimedJob]) -> list[str]:
    return [job.job_id for job in jobs]


def turns(worker: ScriptedWorker, count: int) -> list[str]:
    """The jobs that it claims and finishes in so many turns."""
    seen = []
    for _ in range(count):
        claimed = worker.claim(10)
        seen += ids(claimed)
        worker.finish("done", *claimed)
    return seen


def waiting() -> int:
    return next(queue.waiting for queue in queue_health() if queue.name == "probe")


def our_keys(redis: redis_py.Redis) -> set[bytes]:
    return {name for name in redis.keys("rqjobs:groups:*") if name != b"rqjobs:groups:places"}


def test_groups_take_turns_with_each_other_and_with_jobs_without_a_group(redis, clock) -> None:
    many, few, plain = put(*["a"] * 6), put("b", "b"), put(None, None, None)
    assert waiting() == 11
    worker = ScriptedWorker(redis)
    claimed = ids(worker.claim(6))
    assert Counter(job in plain for job in claimed) == {True: 3, False: 3}
    assert [job for job in claimed if job not in plain] == [many[0], few[0], many[1]]
    assert ids(worker.claim(3)) == [few[1], many[2], many[3]]
    assert waiting() == 2


def test_one_slot_is_given_to_both_kinds_in_the_long_run(redis, clock) -> None:
    put(*["a"] * 40)
    plain = put(*[None] * 40)
    worker, seen = ScriptedWorker(redis), []
    for _ in range(40):
        clock.pass_(0.000_001)
        seen += ids(worker.claim(1))
    assert sum(job in plain for job in seen) == 20


def test_a_group_runs_as_many_as_its_slots(redis, clock, limit) -> None:
    limit(concurrency=2)
    first, other = put(*["a"] * 4), put("b")
    worker = ScriptedWorker(redis)
    claimed = worker.claim(10)
    assert sorted(ids(claimed)) == sorted([*first[:2], *other])
    assert worker.claim(10) == []
    written = worker.finish("done", claimed[0])
    assert written.group_freed
    assert ids(worker.claim(10)) == [first[2]]


@pytest.mark.parametrize("how", ["retry", "held", "released", "killed"])
def test_the_head_keeps_its_place(redis, clock, limit, how) -> None:
    limit(concurrency=1)
    jobs = put(*["a"] * 3, attempts=3)
    worker = ScriptedWorker(redis)
    head = worker.claim(10)
    assert ids(head) == jobs[:1]
    worker.die() if how == "killed" else worker.finish(how, *head)
    if how in ("retry", "held"):
        assert worker.claim(10) == [], "its group waits with it"
        clock.pass_(5.1)
        assert worker.move_due() == 1
    again = worker.claim(10)
    assert ids(again) == jobs[:1]
    worker.finish("done", *again)
    assert ids(worker.claim(10)) == jobs[1:2]


def test_with_skip_the_next_one_runs_while_the_head_waits_for_its_retry(redis, clock, limit) -> None:
    limit(concurrency=1, order="skip")
    jobs = put(*["a"] * 3, attempts=3)
    worker = ScriptedWorker(redis)
    worker.finish("retry", *worker.claim(10))
    second = worker.claim(10)
    assert ids(second) == jobs[1:2]
    clock.pass_(5.1)
    worker.move_due()
    assert worker.claim(10) == []
    worker.finish("done", *second)
    assert ids(worker.claim(10)) == jobs[:1], "it has its place before the third"


def test_a_dead_job_frees_its_group_and_comes_back_to_its_place(redis, clock, limit) -> None:
    limit(concurrency=1)
    jobs = put(*["a"] * 3)
    worker = ScriptedWorker(redis)
    worker.finish("dead", *worker.claim(10))
    second = worker.claim(10)
    assert ids(second) == jobs[1:2]
    assert requeue([jobs[0]]) == [jobs[0]]
    assert worker.claim(10) == []
    worker.finish("done", *second)
    assert ids(worker.claim(10)) == jobs[:1]


def test_the_slot_of_a_job_that_dies_with_its_worker_is_free(redis, clock, limit) -> None:
    limit(concurrency=1)
    jobs = put("a", "a", attempts=1)
    worker = ScriptedWorker(redis)
    worker.claim(10)
    worker.die()
    assert redis.zscore(key("failed", "probe"), jobs[0])
    assert ids(worker.claim(10)) == jobs[1:]


def test_a_rate_holds_one_group_only(redis, clock, limit) -> None:
    limit(rate="2/s")
    first, other = put(*["a"] * 4), put("b")
    worker = ScriptedWorker(redis)
    assert sorted(ids(worker.claim(10))) == sorted([*first[:2], *other])
    assert worker.wait == pytest.approx(0.5, abs=0.01)
    assert worker.claim(10) == []
    clock.pass_(0.51)
    assert ids(worker.claim(10)) == [first[2]]
    clock.pass_(-3600)  # the clock is set back: nothing waits for an hour
    assert ids(worker.claim(10)) == [first[3]]


def test_delayed_jobs_have_their_place_from_when_they_are_due(redis, clock, limit) -> None:
    limit(concurrency=1)
    (late,), (early,) = put("a", delay="10s"), put("a")
    clock.pass_(10.1)
    (last,) = put("a")
    worker = ScriptedWorker(redis)
    worker.move_due()
    assert turns(worker, 3) == [early, last, late]


def test_priority_comes_before_order(redis, clock, limit) -> None:
    limit(concurrency=1)
    (low,), (normal,), (high,) = put("a", priority="low"), put("a"), put("a", priority="high")
    assert turns(ScriptedWorker(redis), 3) == [high, normal, low]


def test_jobs_that_rq_puts_into_the_list_join_their_groups(redis, clock, limit) -> None:
    limit(concurrency=1)
    jobs = put(*["a"] * 3)
    redis.delete(*our_keys(redis))
    redis.rpush(key("queue", "probe"), *jobs)
    worker = ScriptedWorker(redis)
    for job in jobs:
        claimed = worker.claim(10)
        assert ids(claimed) == [job]
        assert waiting() == len(jobs) - jobs.index(job) - 1
        worker.finish("done", *claimed)


def test_a_long_list_joins_its_groups_a_part_at_a_time(redis, clock) -> None:
    jobs = put(*["a"] * 1500)
    redis.delete(*our_keys(redis))
    redis.rpush(key("queue", "probe"), *jobs)
    worker = ScriptedWorker(redis)
    assert ids(worker.claim(1)) == jobs[:1]
    assert worker.more
    assert redis.llen(key("queue", "probe")) == 500


def test_no_key_is_left_when_nothing_waits_and_nothing_runs(redis, clock, limit) -> None:
    limit(concurrency=1)
    put("a", "a", "b")
    worker = ScriptedWorker(redis)
    while claimed := worker.claim(10):
        worker.finish("done", *claimed)
    worker.claim(10)
    assert our_keys(redis) == set()


def test_deleted_jobs_leave_their_group(redis, clock, limit) -> None:
    limit(concurrency=1)
    jobs = put(*["a"] * 4, attempts=3)
    worker = ScriptedWorker(redis)
    worker.finish("retry", *worker.claim(10))
    assert job_actions.delete(jobs[1])
    assert worker.claim(10) == [], "the head is delayed, its group waits"
    assert job_actions.delete(jobs[0])
    claimed = worker.claim(10)
    assert ids(claimed) == jobs[2:3]
    assert not job_actions.run_now(jobs[3]), "it waits: it is not lost"
    worker.finish("done", *claimed)
    assert ids(worker.claim(10)) == jobs[3:]


def test_what_others_delete_frees_its_slot_all_the_same(redis, clock, limit) -> None:
    limit(concurrency=1)
    jobs = put(*["a"] * 3, attempts=3)
    worker = ScriptedWorker(redis)
    worker.finish("retry", *worker.claim(10))
    redis.delete(key("job", jobs[0]), key("job", jobs[1]))
    redis.delete(key("scheduled", "probe"))
    assert worker.claim(10) == []
    rescue(redis, LANES, get_settings())
    assert ids(worker.claim(10)) == jobs[2:]


@pytest.mark.parametrize("kind", ["waiting", "turns", "slots", "rates", "paced", "places", "lanes"])
def test_a_key_of_another_type_stops_no_job(redis, clock, limit, kind) -> None:
    limit(concurrency=1, rate="5/s")
    name = kind if kind in ("places", "lanes") else f"{kind}:probe"
    redis.set(f"rqjobs:groups:{name}", "text")
    jobs = put("a", "a")
    worker = ScriptedWorker(redis)
    claimed = worker.claim(10)
    assert ids(claimed) == jobs[:1]
    worker.finish("done", *claimed)
    assert ids(worker.claim(10)) == jobs[1:]


@pytest.mark.parametrize("group", ["", "x" * 201, 7, "a\nb", "a\x00", "\ud800", ["a"]])
def test_a_wrong_group_is_an_error_at_the_call(group) -> None:
    with pytest.raises(InvalidJob, match=r"group: .* 1 to 200 printable characters"):
        enqueue(ProbeJob(log="x"), group=group)


@pytest.mark.parametrize("group", ["x" * 200, "ü" * 200, "customer 7: ä/b*?[x]", " "])
def test_any_other_name_of_a_group_will_do(redis, clock, group) -> None:
    (job,) = put(group)
    assert ids(ScriptedWorker(redis).claim(1)) == [job]


class Model(stateful.RuleBasedStateMachine):
    """Two groups and jobs without one, two workers that die, runs that end in every way."""

    parts: tuple[redis_py.Redis, RedisClock, int, bool]

    def __init__(self) -> None:
        super().__init__()
        self.redis, self.clock, self.slots, self.strict = Model.parts
        self.redis.delete(*self.redis.keys("rq:*"), *self.redis.keys("rqjobs:*"), "x")
        self.workers = [ScriptedWorker(self.redis, f"w{number}") for number in range(2)]
        self.running: list[tuple[int, ClaimedJob]] = []
        self.order: dict[str, list[str]] = {"a": [], "b": [], "": []}
        self.open: set[str] = set()
        self.dead: set[str] = set()

    def group_of(self, job_id: str) -> str:
        return next(group for group, jobs in self.order.items() if job_id in jobs)

    @stateful.rule(groups=st.lists(st.sampled_from(["a", "b", None]), min_size=1, max_size=5))
    def enqueue(self, groups: list[str | None]) -> None:
        for group, job in zip(groups, put(*groups, attempts=50), strict=True):
            self.order[group or ""].append(job)
            self.open.add(job)

    @stateful.rule(worker=st.integers(0, 1), count=st.integers(1, 5))
    def claim(self, worker: int, count: int) -> None:
        for job in self.workers[worker].claim(count):
            group = self.group_of(job.job_id)
            if group and self.strict:
                jobs = self.order[group]
                assert not self.open.intersection(jobs[: jobs.index(job.job_id)]), "an earlier one is not ended"
            self.running.append((worker, job))
        running = Counter(self.group_of(job.job_id) for _, job in self.running)
        assert all(number <= self.slots for group, number in running.items() if group)

    @stateful.rule(data=st.data(), how=st.sampled_from(["done", "retry", "dead", "released", "held"]))
    def end(self, data: st.DataObject, how: str) -> None:
        if not self.running:
            return
        worker, job = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.workers[worker].finish(how, job)
        if how in ("done", "dead"):
            self.open.remove(job.job_id)
        if how == "dead":
            self.dead.add(job.job_id)

    @stateful.rule(worker=st.integers(0, 1))
    def kill(self, worker: int) -> None:
        self.workers[worker].die()
        mine = [job.job_id for number, job in self.running if number == worker]
        self.running = [(number, job) for number, job in self.running if number != worker]
        died = [job for job in mine if self.redis.zscore(key("failed", "probe"), job) is not None]
        self.dead.update(died)
        self.open.difference_update(died)

    @stateful.rule()
    def requeue_dead(self) -> None:
        back = requeue(sorted(self.dead)[:2])
        self.dead.difference_update(back)
        self.open.update(back)

    @stateful.rule(seconds=st.sampled_from([1, 6]))
    def wait(self, seconds: float) -> None:
        self.clock.pass_(seconds)
        self.workers[0].move_due()

    @stateful.invariant()
    def every_job_is_in_one_place(self) -> None:
        found = [job.job_id for _, job in self.running]
        found += [job.decode() for job in self.redis.lrange(key("queue", "probe"), 0, -1)]
        found += [job.decode() for job in self.redis.zrange(key("scheduled", "probe"), 0, -1)]
        found += [member.decode().split("\n")[2] for member in self.redis.zrange(keys.group_waiting("probe"), 0, -1)]
        assert sorted(found) == sorted(self.open)

    def teardown(self) -> None:
        """Everything ends, whatever came before, and nothing is left of the groups."""
        for worker, job in self.running:
            self.workers[worker].finish("done", job)
            self.open.remove(job.job_id)
        for _ in range(len(self.open) + 2):
            self.clock.pass_(6)
            self.workers[0].move_due()
            jobs = self.workers[0].claim(50)
            if jobs:
                self.workers[0].finish("done", *jobs)
            self.open.difference_update(ids(jobs))
        assert self.open == set()
        assert our_keys(self.redis) == set()


@pytest.mark.parametrize(("slots", "order"), [(1, "strict"), (1, "skip"), (2, "strict")])
def test_no_order_of_events_breaks_a_group(redis, clock, limit, slots, order) -> None:
    limit(concurrency=slots, order=order)
    Model.parts = (redis, clock, slots, slots == 1 and order == "strict")
    stateful.run_state_machine_as_test(
        Model,
        settings=settings(max_examples=15, stateful_step_count=25, suppress_health_check=list(HealthCheck)),
    )
