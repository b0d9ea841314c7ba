"""A thousand hostile deliveries of every kind beside two hundred good ones of other tenants: those notice nothing."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import redis as redis_py
from rq.job import Job

from rqjobs import WebhookJob, enqueue_many
from rqjobs.broker.rq_schema import job_key, key
from rqjobs.webhooks import add_endpoint
from tests.support.dns import NXDOMAIN, Nameserver, Reply, nameserver
from tests.support.hostile_servers import KINDS, HostileServers, hostile_servers
from tests.support.receiver import Receiver, receiving
from tests.support.workers import Workers, eventually

HOSTILE, GOOD, TENANTS = 1000, 200, 20
FLOOR = 0.25
"""Seconds that the 99th of a hundred may take longer for the machine's sake: other processes run on its cores too."""


def _by_name(name: str) -> Reply | None:
    if name.startswith("hang"):
        return None
    return Reply(("127.0.0.1",)) if name.endswith(".test") else Reply(code=NXDOMAIN)


@pytest.fixture
def names(configure: Callable[..., None]) -> Iterator[Nameserver]:
    with nameserver(_by_name) as running:
        configure(WEBHOOK_NAMESERVERS=running.address, WEBHOOK_ALLOW="127.0.0.0/8", RQJOBS_KEEP_COMPLETED="5000")
        yield running


def good_jobs(receiver: Receiver) -> list[WebhookJob]:
    """Ten deliveries to each of the tenants' endpoints, in turn, each at a name of its own."""
    urls = [receiver.url(f"/{tenant}", host=f"hook.tenant{tenant}.test") for tenant in range(TENANTS)]
    for tenant, url in enumerate(urls):
        add_endpoint(f"good-{tenant}", url)
    return [
        WebhookJob(
            webhook_id=f"wh_{n}", event="qr.scanned", url=urls[n % TENANTS], payload={}, endpoint=f"good-{n % TENANTS}"
        )
        for n in range(GOOD)
    ]


def hostile_jobs(servers: HostileServers) -> list[WebhookJob]:
    """All kinds in turn; every other kind's deliveries go to endpoints, the others to a URL of the job's own."""
    jobs, registered = [], set()
    for n, kind in zip(range(HOSTILE), itertools.cycle(KINDS), strict=False):
        number = n // len(KINDS)
        url, endpoint = servers.url(kind, number), None
        if KINDS.index(kind) % 2:
            endpoint = f"{kind}-{number}"
            if endpoint not in registered:
                add_endpoint(endpoint, url)
                registered.add(endpoint)
        jobs.append(WebhookJob(webhook_id=f"{kind}-{n}", event="e", url=url, payload={}, endpoint=endpoint))
    return jobs


def deliver(receiver: Receiver, good: list[WebhookJob], hostile: list[WebhookJob]) -> tuple[list[float], list[Job]]:
    """Seconds from enqueue to arrival of the good ones over ten seconds, in order of size, and their jobs.

    Half of the hostile ones wait already as the first good one comes; the rest comes between the good ones.
    """
    sent: dict[str, float] = {}
    done: list[Job] = []
    already = len(receiver.requests)
    enqueue_many(hostile[: len(hostile) // 2])
    rest = iter(hostile[len(hostile) // 2 :])
    for number in range(0, GOOD, 5):
        before = time.time()
        for job in enqueue_many(good[number : number + 5]):
            sent[job.id] = before
            done.append(job)
        enqueue_many(list(itertools.islice(rest, 13)))
        time.sleep(0.25)
    arrived = receiver.wait_for(already + GOOD, 600)[already:]
    assert {request.webhook_id for request in arrived} == set(sent)  # each once, and nothing else
    assert Counter(request.headers["webhook-attempt"] for request in arrived) == {"1": GOOD}
    return sorted(request.at - sent[request.webhook_id] for request in arrived), done


def states(redis: redis_py.Redis, jobs: list[Job]) -> Counter[bytes | None]:
    """How many of the jobs are in each state."""
    return Counter(redis.hget(job_key(job.id), "status") for job in jobs)


def _ms(seconds: list[float]) -> str:
    return f"p50 {seconds[GOOD // 2] * 1000:.0f} ms, p99 {seconds[GOOD * 99 // 100 - 1] * 1000:.0f} ms"


@pytest.mark.slow
def test_hostile_deliveries_do_not_delay_good_ones(
    workers: Workers, redis: redis_py.Redis, names: Nameserver, capsys: pytest.CaptureFixture[str]
) -> None:
    with receiving() as receiver, hostile_servers() as servers:
        for _ in range(2):
            workers.start("webhooks")
        eventually(lambda: workers.logs().count("worker started") == 2)
        good, attacks = good_jobs(receiver), hostile_jobs(servers)
        deliver(receiver, good, [])  # every tenant has had deliveries before
        alone, _ = deliver(receiver, good, [])
        beside, done = deliver(receiver, good, attacks)
        tried = servers.counts()
        tried["hangs"] = len({name for name, _kind in names.asked if name.startswith("hang")})
        eventually(lambda: states(redis, done) == {b"finished": GOOD}, 600)
        dead = redis.zcard(key("failed", "webhooks"))
        with capsys.disabled():
            print(
                f"\n{len(attacks)} hostile deliveries of {len(KINDS)} kinds beside {GOOD} good ones: {GOOD} of {GOOD} "
                f"arrived at their first attempt, 0 dead; hostile ones: {dead} dead so far"
                f"\nalone {_ms(alone)}; beside {_ms(beside)}; load {os.getloadavg()[0]:.1f}"
                f"\nrequests and connections at hostile servers, names asked for: {dict(tried)}"
            )
        assert set(tried) == set(KINDS) - {"refused"}, "a kind of attack was not tried"
        percentile = GOOD * 99 // 100 - 1
        assert beside[percentile] <= 2 * alone[percentile] + FLOOR, (_ms(alone), _ms(beside))
