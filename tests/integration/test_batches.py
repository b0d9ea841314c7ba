"""Batches and chains: what follows is enqueued once and never early, and nothing is left behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_py
from click.testing import CliRunner
from flask.testing import FlaskClient
from hypothesis import HealthCheck, settings, stateful
from hypothesis import strategies as st
from sqlalchemy import select, update

import rqjobs
from rqjobs import (
    BatchFailed,
    BatchNotFound,
    BatchProgress,
    BatchTimeout,
    DuplicateJob,
    InvalidJob,
    await_batch,
    enqueue,
    enqueue_batch,
    enqueue_chain,
    get_batch,
)
from rqjobs.batches import list_batches
from rqjobs.batches.records import check_batches
from rqjobs.broker import job_actions, job_writer, keys
from rqjobs.cli import cli
from rqjobs.database import get_engine
from rqjobs.database.outbox import outbox as rows
from rqjobs.database.schema import init_database
from rqjobs.dead_letters.letters import purge, requeue
from rqjobs.outbox.relay import relay
from rqjobs.testing import capture, drain
from tests.support.batches import Hand
from tests.support.processors import ProbeJob


def probe(value: object = None, **fields: Any) -> ProbeJob:
    return ProbeJob(log="/dev/null", value=value, **fields)


def probes(count: int) -> list[ProbeJob]:
    return [probe(number) for number in range(count)]


def waiting(redis: redis_py.Redis, lane: str = "probe") -> list[str]:
    return [job_id.decode() for job_id in redis.lrange(f"rq:queue:{lane}", 0, -1)]


def status(redis: redis_py.Redis, job_id: str) -> str:
    return (redis.hget(f"rq:job:{job_id}", "status") or b"gone").decode()


@pytest.fixture
def hand(redis: redis_py.Redis) -> Hand:
    return Hand(redis)


def all_keys(redis: redis_py.Redis) -> set[str]:
    """Every key but the receipts of senders, which are kept for an hour, and the names of queues."""
    names = {name.decode() for name in redis.keys("*")}
    return {name for name in names if not name.startswith("rqjobs:sent:")} - {"rq:queues"}


def test_then_is_enqueued_once_when_the_last_member_is_done(redis: redis_py.Redis, hand: Hand) -> None:
    batch = enqueue_batch(
        probes(3), then=(probe("then"), {"priority": "high", "attempts": 7}), name="import", tags={"customer": "c7"}
    )
    found = batch.read()
    assert (found.state, found.name, found.tags, found.chain) == ("running", "import", {"customer": "c7"}, False)
    (then,) = found.then
    assert status(redis, then) == "deferred"
    first, *others = hand.claim(10)
    assert batch.progress() == BatchProgress(waiting=0, running=3, done=0, dead=0, total=3)
    hand.done(*others)
    assert batch.progress() == BatchProgress(waiting=0, running=1, done=2, dead=0, total=3)
    assert waiting(redis, "probe:high") == []
    hand.done(first)
    assert waiting(redis, "probe:high") == [then]
    assert hand.done(first), "its lease is gone"
    assert waiting(redis, "probe:high") == [then]
    assert redis.zcard("rq:deferred:probe:high") == 0
    assert batch.wait("1s") == BatchProgress(waiting=0, running=0, done=3, dead=0, total=3)
    assert batch.read().state == "done"
    (follower,) = hand.claim(10)
    assert (follower.job_id, follower.attempts) == (then, 7)
    assert follower.enqueued_at > follower.created_at, "it waits since its batch is done"
    assert 0 < redis.ttl(keys.batch(batch.id)) <= 86400


def test_then_waits_for_a_queue_that_is_out_of_use(redis: redis_py.Redis, hand: Hand) -> None:
    batch = enqueue_batch(probes(1), then=(probe("then"), {"priority": "high"}))
    (job,) = hand.claim(1)
    redis.set("rq:queue:probe:high", "text")
    hand.done(job)
    assert redis.zrange("rq:scheduled:probe:high", 0, -1) == [batch.read().then[0].encode()]


def test_a_batch_without_members_is_done_at_once(redis: redis_py.Redis) -> None:
    batch = enqueue_batch([], then=[probe("a"), (probe("b"), {"delay": "1h"})], on_dead=probe("never"))
    assert batch.wait("1s").total == 0
    a, b = batch.read().then
    assert waiting(redis) == [a]
    assert redis.zrange("rq:scheduled:probe", 0, -1) == [b.encode()]
    assert redis.keys("rq:deferred:*") == []
    assert len(redis.keys("rq:job:*")) == 2, "on_dead is deleted"


def test_on_dead_is_enqueued_once_and_a_requeued_member_fires_then(redis: redis_py.Redis, hand: Hand) -> None:
    batch = enqueue_batch(probes(3), then=probe("then"), on_dead=probe("alarm"))
    found = batch.read()
    a, b, c = hand.claim(3)
    hand.dead(a)
    assert waiting(redis) == list(found.on_dead)
    hand.dead(b)
    hand.done(c)
    assert waiting(redis) == list(found.on_dead)
    assert batch.read().state == "dead"
    with pytest.raises(BatchFailed, match="2 dead"):
        batch.wait("1h")
    assert sorted(batch.requeue_dead()) == sorted([a.job_id, b.job_id])
    assert batch.progress() == BatchProgress(waiting=2, running=0, done=1, dead=0, total=3)
    alarm, again, other = hand.claim(3)
    hand.dead(again)
    assert requeue([again.job_id]) == [again.job_id]
    hand.done(alarm, other, *hand.claim(1))
    assert waiting(redis) == list(found.then)
    assert batch.read().state == "done"


def test_a_member_whose_workers_died_is_dead_and_counted(redis: redis_py.Redis, hand: Hand) -> None:
    batch = enqueue_batch([(probe(1), {"attempts": 1})], then=probe("then"), on_dead=probe("alarm"))
    hand.die(*hand.claim(1))
    assert batch.progress().dead == 1
    assert waiting(redis) == list(batch.read().on_dead)


def test_a_deleted_member_counts_as_dead_for_good(redis: redis_py.Redis, hand: Hand) -> None:
    batch = enqueue_batch(probes(2), then=probe("then"), on_dead=probe("alarm"))
    first, second = waiting(redis)
    assert job_actions.delete(first)
    assert batch.progress() == BatchProgress(waiting=1, running=0, done=0, dead=1, total=2)
    assert waiting(redis) == [second, *batch.read().on_dead]
    (job,) = hand.claim(1)
    hand.dead(job)
    assert purge([job.job_id]) == [job.job_id]
    assert batch.progress().dead == 2
    assert batch.requeue_dead() == []


def test_a_chain_runs_in_order_stops_at_a_dead_job_and_continues_after_its_requeue(
    redis: redis_py.Redis, hand: Hand
) -> None:
    chain = enqueue_chain([probe(1), (probe(2), {"priority": "high"}), (probe(3), {"delay": "1h"}), probe(4)],
                          on_dead=probe("alarm"))  # fmt: skip
    found = chain.read()
    assert (found.chain, found.state, found.progress.waiting) == (True, "running", 4)
    (first,) = hand.claim(10)
    hand.done(first)
    (second,) = hand.claim(10)
    assert (second.lane, redis.zcard("rq:scheduled:probe")) == ("probe:high", 0)
    hand.dead(second)
    assert chain.read().state == "dead"
    (alarm,) = hand.claim(10)
    assert (alarm.job_id,) == found.on_dead
    hand.done(alarm)
    with pytest.raises(BatchFailed):
        chain.wait("1h")
    assert chain.requeue_dead() == [second.job_id]
    hand.done(*hand.claim(10))
    (third,) = redis.zrange("rq:scheduled:probe", 0, -1)
    assert hand.claim(10) == []
    assert job_actions.run_now(third.decode())
    redis.rename("rq:scheduled:probe", "x")
    redis.rpush("rq:queue:probe", third)
    hand.done(*hand.claim(10))
    hand.done(*hand.claim(10))
    assert chain.wait("1s") == BatchProgress(waiting=0, running=0, done=4, dead=0, total=4)
    assert redis.keys("rq:deferred:*") == []


def test_a_chain_whose_next_job_was_deleted_stops_there(redis: redis_py.Redis, hand: Hand) -> None:
    chain = enqueue_chain(probes(3), on_dead=probe("alarm"))
    second = json.loads(redis.lindex(keys.batch(chain.id) + ":next", 0))[0]
    redis.delete(f"rq:job:{second}")
    hand.done(*hand.claim(1))
    assert chain.read().state == "dead"
    assert waiting(redis) == list(chain.read().on_dead)


def test_a_chain_of_too_many_jobs_is_refused(redis: redis_py.Redis) -> None:
    with pytest.raises(InvalidJob, match="more than 500"):
        enqueue_chain(probes(501))
    assert all_keys(redis) == set()


class Model(stateful.RuleBasedStateMachine):
    """Members end, die, are requeued and lose their workers in any order, and outcomes are written twice."""

    redis: redis_py.Redis

    def __init__(self) -> None:
        super().__init__()
        self.redis.flushall()
        self.hand, self.claimed, self.old = Hand(self.redis), [], []
        self.done: set[str] = set()
        self.dead: set[str] = set()
        self.died = False
        options: Any = {"then": (probe("then"), {"priority": "low"}), "on_dead": (probe("alarm"), {"priority": "low"})}
        self.batch = enqueue_batch([(probe(number), {"attempts": 3}) for number in range(4)], **options)
        self.followers = self.batch.read()

    @stateful.rule(count=st.integers(1, 3))
    def claim(self, count: int) -> None:
        self.claimed += [job for job in self.hand.claim(count) if job.lane == "probe"]

    @stateful.precondition(lambda self: self.claimed)
    @stateful.rule(dead=st.booleans(), data=st.data())
    def end(self, dead: bool, data: st.DataObject) -> None:
        job = self.claimed.pop(data.draw(st.integers(0, len(self.claimed) - 1)))
        self.old.append(job)
        if dead:
            self.hand.dead(job)
            self.dead.add(job.job_id)
            self.died = True
        else:
            self.hand.done(job)
            self.done.add(job.job_id)

    @stateful.precondition(lambda self: self.old)
    @stateful.rule(data=st.data(), back=st.booleans())
    def again(self, data: st.DataObject, back: bool) -> None:
        """An outcome is written twice; with ``back`` after a failover that has lost the end of its lease."""
        job = self.old[data.draw(st.integers(0, len(self.old) - 1))]
        if back and job.job_id in self.done:
            self.redis.zadd("rq:wip:probe", {f"{job.job_id}:{job.execution}": 1e12})
        if job.job_id in self.done:
            self.hand.done(job)

    @stateful.precondition(lambda self: self.claimed)
    @stateful.rule()
    def lose_a_worker(self) -> None:
        job = self.claimed.pop()
        self.hand.die(job)
        if status(self.redis, job.job_id) == "failed":
            self.dead.add(job.job_id)
            self.died = True

    @stateful.precondition(lambda self: self.dead)
    @stateful.rule()
    def requeue(self) -> None:
        job_id = min(self.dead)
        assert requeue([job_id, job_id]) == [job_id]
        self.dead.remove(job_id)

    @stateful.invariant()
    def nothing_is_early_lost_or_doubled(self) -> None:
        progress = self.batch.progress()
        assert (progress.done, progress.dead, progress.total) == (len(self.done), len(self.dead), 4)
        assert progress.waiting + progress.running == 4 - len(self.done) - len(self.dead)
        low = waiting(self.redis, "probe:low") + [job.job_id for job in self.claimed if job.lane == "probe:low"]
        ran = {job_id for job_id in (*self.followers.then, *self.followers.on_dead)
               if status(self.redis, job_id) in ("started", "queued")}  # fmt: skip
        wanted = (set(self.followers.then) if len(self.done) == 4 else set()) | (
            set(self.followers.on_dead) if self.died else set()
        )
        assert ran == wanted
        assert len(low) == len(set(low))


def test_in_any_order_of_ends_then_is_enqueued_once_and_never_early(redis: redis_py.Redis) -> None:
    Model.redis = redis
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    stateful.run_state_machine_as_test(
        Model, settings=settings(max_examples=25, stateful_step_count=25, suppress_health_check=checks)
    )


def test_cancel_leaves_no_key_behind(redis: redis_py.Redis, hand: Hand) -> None:
    other = enqueue(probe("other"))
    hand.done(*hand.claim(1))
    kept = enqueue(probe("kept"), delay="1h")
    before = all_keys(redis)
    members = [*probes(1200), *((probe(n), {"delay": "1h", "priority": "high"}) for n in range(10))]
    batch = enqueue_batch(members, then=probe("then"), on_dead=probe("alarm"))
    running = hand.claim(3)
    assert batch.cancel() == 1207
    hand.done(*running[:2])
    hand.dead(running[2])
    assert purge([running[2].job_id]) == [running[2].job_id]
    chain = enqueue_chain(probes(5), on_dead=probe("alarm"))
    assert chain.cancel() == 1
    with pytest.raises(BatchNotFound):
        get_batch(batch.id)
    with pytest.raises(BatchNotFound):
        chain.wait("1s")
    for job in running[:2]:  # an ordinary done job is kept for a day
        redis.delete(f"rq:job:{job.job_id}", f"rq:results:{job.job_id}")
        redis.zrem("rq:finished:probe", job.job_id)
    assert all_keys(redis) == before
    assert redis.zrange("rq:scheduled:probe", 0, -1) == [kept.id.encode()]
    assert status(redis, other.id) == "finished"


def test_members_from_a_generator_are_written_while_it_runs(redis: redis_py.Redis, hand: Hand) -> None:
    seen = []

    def members() -> Iterator[ProbeJob]:
        for number in range(1200):
            if number in (500, 1000):
                seen.append(redis.llen("rq:queue:probe"))
                (found,) = list_batches()
                assert found.state == "opening"
                hand.done(*hand.claim(1000))
            yield probe(number)

    batch = enqueue_batch(members(), then=probe("then"))
    assert seen == [500, 500]
    assert batch.progress() == BatchProgress(waiting=200, running=0, done=1000, dead=0, total=1200)
    hand.done(*hand.claim(1000))
    assert waiting(redis) == list(batch.read().then)


@pytest.mark.parametrize("number", [3, 700])
def test_an_error_midway_leaves_nothing(redis: redis_py.Redis, number: int) -> None:
    taken = enqueue(probe("taken"), job_id="taken")
    before = all_keys(redis)

    def failing(error: Any) -> Iterator[Any]:
        yield from probes(number)
        if isinstance(error, Exception):
            raise error
        yield error

    for member, error in (
        (ValueError("of the app"), ValueError),
        ((probe(1), {"attempts": 0}), InvalidJob),
        ((probe(1), {"job_id": "taken"}), DuplicateJob),
    ):
        with pytest.raises(error):
            enqueue_batch(failing(member), then=probe("then"))
        assert all_keys(redis) == before
    with pytest.raises(DuplicateJob, match="taken"):
        enqueue_batch(probes(2), then=(probe("then"), {"job_id": "taken"}))
    assert all_keys(redis) == before
    assert waiting(redis) == [taken.id]


def test_a_cancelled_batch_takes_no_more_members(redis: redis_py.Redis) -> None:
    def members() -> Iterator[ProbeJob]:
        yield from probes(500)
        rqjobs.get_batch(list_batches()[0].id).cancel()
        yield from probes(3)

    with pytest.raises(BatchNotFound):
        enqueue_batch(members(), then=probe("then"))
    assert all_keys(redis) == set()


def test_a_batch_is_cancelled_an_hour_after_its_enqueueing_process_died(redis: redis_py.Redis) -> None:
    class Killed(BaseException):
        pass

    def members() -> Iterator[ProbeJob]:
        yield from probes(500)
        (batch,) = list_batches()
        ids.append(batch.id)
        redis.rename(keys.batch(batch.id), "away")  # the call's own clean-up finds nothing
        raise Killed

    ids: list[str] = []
    with pytest.raises(Killed):
        enqueue_batch(members(), then=probe("then"))
    redis.rename("away", keys.batch(ids[0]))
    check_batches(redis)
    assert list_batches()[0].progress.waiting == 500
    redis.zincrby(keys.BATCHES_OPENING, -3601, ids[0])
    check_batches(redis)
    assert all_keys(redis) == set()


def test_members_that_others_have_ended_are_counted(redis: redis_py.Redis, hand: Hand) -> None:
    batch = enqueue_batch(probes(4), then=probe("then"), on_dead=probe("alarm"))
    deleted, failed, done, running = hand.claim(4)
    redis.delete(f"rq:job:{deleted.job_id}")
    redis.hset(f"rq:job:{failed.job_id}", "status", "failed")  # as RQ does with the jobs of a worker that died
    redis.hset(f"rq:job:{done.job_id}", "status", "finished")
    redis.set(keys.batch("wrong") + ":open", "text")
    redis.zadd(keys.BATCHES, {"wrong": 1, "gone": 2})
    check_batches(redis)
    check_batches(redis)
    assert batch.progress() == BatchProgress(waiting=0, running=1, done=1, dead=2, total=4)
    assert waiting(redis) == list(batch.read().on_dead)
    hand.done(running)
    assert batch.read().state == "dead"


def test_inside_a_transaction_a_batch_waits_for_its_commit(redis: redis_py.Redis) -> None:
    after: list[Any] = []
    job_writer.defer_with(lambda call: after.append(call) or True)
    try:
        batch = enqueue_batch(probes(700), then=probe("then"))
        chain = enqueue_chain(probes(2))
        with pytest.raises(InvalidJob):
            enqueue_batch([(probe(1), {"attempts": 0})])
        assert all_keys(redis) == set()
        for call in after[:2]:
            call()
    finally:
        job_writer.defer_with(None)
    assert (batch.progress().waiting, chain.progress().waiting) == (700, 2)
    assert (batch.read().state, len(waiting(redis))) == ("running", 701)


def test_a_batch_in_the_outbox_arrives_with_its_transaction(redis: redis_py.Redis, hand: Hand) -> None:
    init_database(get_engine())
    with get_engine().connect() as connection:
        enqueue_batch(probes(3), then=probe("then"), outbox=connection)
        connection.rollback()
    assert relay() == 0
    with get_engine().begin() as connection:
        batch = enqueue_batch(
            (probe(number) for number in range(700)), then=probe("then"), on_dead=probe("alarm"), outbox=connection
        )
        chain = enqueue_chain(probes(3), name="steps", outbox=connection, priority="high")
    with pytest.raises(BatchNotFound):
        batch.read()
    assert relay() == 703
    assert batch.progress() == BatchProgress(waiting=700, running=0, done=0, dead=0, total=700)
    assert (chain.read().name, chain.progress().waiting, len(waiting(redis, "probe:high"))) == ("steps", 3, 1)
    hand.done(*hand.claim(1))
    hand.done(*hand.claim(1))
    hand.done(*hand.claim(1))
    assert chain.wait("1s").done == 3
    hand.done(*hand.claim(1000))
    assert waiting(redis) == list(batch.read().then)


def test_members_may_be_moved_and_end_before_the_head_of_their_batch(redis: redis_py.Redis, hand: Hand) -> None:
    init_database(get_engine())
    with get_engine().begin() as connection:
        batch = enqueue_batch(probes(2), then=probe("then"), on_dead=probe("alarm"), outbox=connection)
        head = connection.execute(select(rows).where(rows.c.lane == "(batch)")).one()
        connection.execute(rows.delete().where(rows.c.token == head.token))
    relay()
    first, second = hand.claim(2)
    hand.done(first)
    hand.dead(second)
    assert batch.read().state == "opening"
    with get_engine().begin() as connection:
        connection.execute(rows.insert().values(**head._mapping))
    relay()
    assert waiting(redis) == list(batch.read().on_dead)
    batch.requeue_dead()
    hand.done(*hand.claim(2))
    assert waiting(redis) == list(batch.read().then)


def test_a_batch_that_is_cancelled_before_its_outbox_was_moved_takes_nothing_in(redis: redis_py.Redis) -> None:
    init_database(get_engine())
    with get_engine().begin() as connection:
        batch = enqueue_batch(probes(150), then=probe("then"), outbox=connection)
        connection.execute(
            update(rows).where(rows.c.token.in_(select(rows.c.token).limit(50))).values(lane=rows.c.lane)
        )
        late = connection.execute(select(rows).where(rows.c.lane == "probe").limit(20)).all()
        connection.execute(rows.delete().where(rows.c.token.in_([row.token for row in late])))
    relay()
    assert batch.cancel() == 130
    with get_engine().begin() as connection:
        connection.execute(rows.insert(), [dict(row._mapping) for row in late])
    relay()
    assert all_keys(redis) == set()


def test_waiting_ends_in_time_also_for_coroutines(redis: redis_py.Redis, hand: Hand) -> None:
    batch = enqueue_batch(probes(2))
    hand.done(*hand.claim(1))
    with pytest.raises(BatchTimeout, match="1 of 2 jobs"):
        batch.wait("10ms")
    with pytest.raises(BatchTimeout):
        asyncio.run(await_batch(batch, "10ms"))
    hand.done(*hand.claim(1))
    assert asyncio.run(await_batch(batch.id)).done == 2

    async def through() -> BatchProgress:
        other = await rqjobs.aenqueue_batch(probes(1), name="async")
        await asyncio.to_thread(lambda: hand.done(*hand.claim(1)))
        return await await_batch(other)

    assert asyncio.run(through()).done == 1


def test_drain_runs_then_and_the_jobs_of_a_chain_in_order(redis: redis_py.Redis) -> None:
    batch = enqueue_batch(probes(3), then=probe("then"))
    chain = enqueue_chain([probe(value) for value in "abc"])
    results = [run.result["value"] for run in drain("probe").runs]
    assert (batch.read().state, chain.read().state) == ("done", "done")
    assert sorted(map(str, results)) == ["0", "1", "2", "a", "b", "c", "then"]
    assert [value for value in results if value in ("a", "b", "c")] == ["a", "b", "c"]
    dying = enqueue_batch([probe(1), probe(2, do="permanent")], then=probe("then"), on_dead=probe("alarm"))
    ran = drain("probe")
    assert [run.result["value"] for run in ran.done] == [1, "alarm"]
    assert dying.read().state == "dead"


def test_members_links_and_followers_may_be_in_groups(redis: redis_py.Redis, hand: Hand) -> None:
    batch = enqueue_batch(
        [(probe(number), {"group": f"g{number % 3}"}) for number in range(6)], then=(probe("then"), {"group": "g0"})
    )
    chain = enqueue_chain(probes(3), group="g1")
    ended = []
    for _ in range(20):
        jobs = hand.claim(10)
        ended += [job.job_id for job in jobs]
        hand.done(*jobs)
    assert (batch.read().state, chain.read().state) == ("done", "done")
    assert len(ended) == len(set(ended)) == 10
    cancelled = enqueue_batch([(probe(number), {"group": "g0"}) for number in range(6)], then=probe("then"))
    assert cancelled.cancel() == 6
    assert hand.claim(10) == []


def test_members_links_and_followers_are_signed(redis: redis_py.Redis, hand: Hand, configure: Any) -> None:
    configure(RQJOBS_SIGN_JOBS="true", RQJOBS_SECRET_KEY="s" * 40)
    enqueue_batch(probes(2), then=probe("then"))
    enqueue_chain(probes(2))
    for _ in range(3):
        jobs = hand.claim(10)
        for job in jobs:
            job.prepare()
        hand.done(*jobs)
    assert [record.state for record in list_batches()] == ["done", "done"]
    assert hand.claim(10) == []


def test_captured_batches_run_then_after_their_members() -> None:
    with capture() as captured:
        enqueue_batch(probes(2), then=probe("then"), on_dead=probe("alarm"))
        enqueue_chain([probe("a"), probe("b")])
        assert [item.job.value for item in captured.of(ProbeJob)] == [0, 1, "a", "b"]
        assert [item.job.value for item in captured.on_dead] == ["alarm"]
        assert [result["value"] for result in captured.run_all()] == [0, 1, "a", "b", "then"]


def test_commands_list_show_cancel_and_requeue(redis: redis_py.Redis, hand: Hand) -> None:
    def run(*words: str) -> Any:
        result = CliRunner().invoke(cli, ["batches", *words, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    batch = enqueue_batch(probes(3), then=probe("then"), name="import")
    (dead,) = hand.claim(1)
    hand.dead(dead)
    (listed,) = run("list")["batches"]
    assert (listed["id"], listed["name"], listed["state"], listed["progress"]["dead"]) == (
        batch.id, "import", "running", 1,
    )  # fmt: skip
    assert run("show", batch.id)["dead_ids"] == [dead.job_id]
    assert f"batch {batch.id}" in CliRunner().invoke(cli, ["jobs", "show", dead.job_id]).output
    assert run("requeue-dead", batch.id) == {"id": batch.id, "requeued": [dead.job_id], "still_dead": 0}
    assert run("cancel", batch.id) == {"id": batch.id, "removed": 3}
    assert run("list") == {"batches": []}
    shown = CliRunner().invoke(cli, ["batches", "list"])
    assert shown.output == "no batches\n"


def test_pages_show_batches_and_act_on_them(client: FlaskClient, token: str, redis: redis_py.Redis, hand: Hand) -> None:
    batch = enqueue_batch(probes(3), then=probe("then"), name="<b>import</b>", tags={"customer": "c7"})
    (dead,) = hand.claim(1)
    hand.dead(dead)
    listed = client.get("/batches/").text
    assert f"/batches/{batch.id}" in listed
    assert "&lt;b&gt;import&lt;/b&gt;" in listed
    page = client.get(f"/batches/{batch.id}").text
    assert dead.job_id in page
    assert "customer" in page
    form = {"csrf_token": token}
    assert client.post(f"/batches/{batch.id}/requeue-dead", data=form).status_code == 302
    assert batch.progress().dead == 0
    assert client.post(f"/batches/{batch.id}/cancel", data=form).status_code == 302
    assert client.get(f"/batches/{batch.id}").status_code == 404
    assert "No batches" in client.get("/batches/").text
    forged = {"name": b"\xff", "tags": "[1]", "created": "1e99", "total": "x", "then": "{}", "on_dead": "[[]]"}
    redis.hset(keys.batch("forged"), mapping=forged)
    redis.set(keys.batch("wrong"), "text")
    redis.zadd(keys.BATCHES, {"forged": 1, "wrong": 2, "gone": 3})
    assert "/batches/forged" in client.get("/batches/").text
    assert client.get("/batches/forged").status_code == 200
