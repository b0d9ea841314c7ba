"""Host names with a DNS server of the test's own: names that hang hold up no others, no fault of ours costs a job."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pycares
import pytest
import redis as redis_py

from rqjobs import enqueue_many
from rqjobs.attempt import Attempt
from rqjobs.broker.holds import dependencies_away, report_away
from rqjobs.broker.rq_schema import key
from rqjobs.config.settings import Settings, use_settings
from rqjobs.errors import DependencyUnavailable, PermanentFailure, RetryLater
from rqjobs.jobs import WebhookJob
from rqjobs.processors import webhook
from rqjobs.processors.webhook import host_names as names_module
from rqjobs.processors.webhook import resolver
from rqjobs.processors.webhook.client import Client
from rqjobs.processors.webhook.host_names import Names, registered_domain
from rqjobs.processors.webhook.request import Message
from rqjobs.processors.webhook.resolver import Resolver
from rqjobs.processors.webhook.transfer import DeliveryFailed
from rqjobs.security.ssrf import Guard, TargetRefused
from tests.support.dns import NXDOMAIN, REFUSED, SERVFAIL, Nameserver, Reply, nameserver
from tests.support.receiver import Receiver, receiving
from tests.support.workers import Workers, eventually

HERE = Reply(("127.0.0.1",))
MESSAGE = Message(b"{}", ["content-type: application/json"])


def by_name(name: str) -> Reply | None:
    """What the first label of a name means."""
    first = name.partition(".")[0]
    if first.startswith("hang"):
        return None
    return {
        "none": Reply(code=NXDOMAIN),
        "broken": Reply(code=SERVFAIL),
        "refused": Reply(code=REFUSED),
        "empty": Reply(),
        "alias": Reply(("127.0.0.1",), aliases=("a.cdn.test", "b.cdn.test")),
        "six": Reply(("::1",)),
        "mixed": Reply(("127.0.0.1", "10.0.0.5")),
        "inside": Reply(("10.0.0.5",)),
        "slow": Reply(("127.0.0.1",), delay=1.0),
    }.get(first, Reply(code=NXDOMAIN) if "." not in name else HERE)


@pytest.fixture
def server() -> Iterator[Nameserver]:
    with nameserver(by_name) as running:
        yield running


@pytest.fixture
def receiver(redis: redis_py.Redis, server: Nameserver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving() as running:
        monkeypatch.setenv("WEBHOOK_NAMESERVERS", server.address)
        monkeypatch.setenv("WEBHOOK_ALLOW", "127.0.0.0/8 ::1")
        use_settings(None)
        yield running


def job(receiver: Receiver, host: str) -> WebhookJob:
    return WebhookJob(webhook_id="w", event="e", url=receiver.url(host=host), payload={})


def attempt(job_id: str = "j", number: int = 1) -> Attempt:
    return Attempt(job_id=job_id, queue="webhooks", number=number, of=3, timeout=timedelta(seconds=30))


def deliver(receiver: Receiver, host: str, **fields: object) -> object:
    return asyncio.run(webhook.deliver(job(receiver, host), attempt(**fields)))  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["good.test", "alias.test", "six.test", "slow.test", "localhost", "127.1"])
def test_names_that_have_addresses(receiver: Receiver, host: str) -> None:
    if host == "six.test":
        with pytest.raises(DeliveryFailed, match="connect"):  # the receiver listens on IPv4 only: the name was resolved
            deliver(receiver, host)
        return
    assert deliver(receiver, host)["status"] == 200  # type: ignore[index]
    assert receiver.requests[0].headers["host"] == f"{host.replace('127.1', '127.0.0.1')}:{receiver.port}"


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("none.test", "does not exist"),
        ("empty.test", "no address"),
        ("broken.test", "failure"),
        ("refused.test", "refused"),
        ("a" * 64 + ".test", "no name"),
    ],
)
def test_names_without_addresses_cost_an_attempt(receiver: Receiver, host: str, why: str) -> None:
    with pytest.raises(DeliveryFailed, match=why) as raised:
        deliver(receiver, host)
    assert (raised.value.kind, raised.value.connected) == ("dns", False)


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions are given up sooner, so that the test is."""
    for name, seconds in {"_TIMEOUT": 0.4, "LIMIT": 1.2, "_CHECK_LIMIT": 0.6}.items():
        monkeypatch.setattr(resolver, name, seconds)


@pytest.mark.usefixtures("_soon")
def test_a_name_with_hanging_servers_counts_an_attempt(receiver: Receiver) -> None:
    with pytest.raises(DeliveryFailed, match="cannot be resolved"):
        deliver(receiver, "hang.test")


@pytest.mark.parametrize("host", ["mixed.test", "inside.test"])
def test_all_addresses_are_checked(receiver: Receiver, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("WEBHOOK_ALLOW", "")
    monkeypatch.setenv("WEBHOOK_PORTS", str(receiver.port))
    use_settings(None)
    with pytest.raises(PermanentFailure, match=r"private|loopback"):
        deliver(receiver, host)
    assert receiver.connections == 0


def test_a_name_that_changes_is_connected_to_at_its_new_checked_address(
    receiver: Receiver, server: Nameserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: public first, loopback at the second question."""
    monkeypatch.setattr(names_module, "BELIEVED", (0.0, 0.0))
    monkeypatch.setattr(names_module, "_PREFERRED", 0.0)
    port, answers = receiver.port, [HERE, Reply(("127.0.0.2",), ttl=1)]
    server.rule = lambda name: answers[0] if "." in name else Reply(code=NXDOMAIN)

    async def run() -> None:
        client = Client(Guard.build(["127.0.0.1"], [port]), names=Names([server.address]))
        target = Guard.build(["127.0.0.1"], [port]).check_url(receiver.url(host="rebind.test"))
        answers[0] = Reply(("127.0.0.1",), ttl=1)
        assert (await client.post(target, MESSAGE, 20)).status == 200
        answers[0] = Reply(("127.0.0.2",), ttl=1)
        await asyncio.sleep(1.2)  # the answer's time to live, for which c-ares keeps it
        with pytest.raises(TargetRefused, match="loopback"):
            await client.post(target, MESSAGE, 20)
        client.close()

    asyncio.run(run())
    assert len(receiver.requests) == 1


def test_libcurl_gets_the_new_addresses_of_a_name(
    receiver: Receiver, server: Nameserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names_module, "BELIEVED", (0.0, 0.0))
    monkeypatch.setattr(names_module, "_PREFERRED", 0.0)
    answers = [Reply(("127.0.0.9",), ttl=1)]  # nothing listens there
    server.rule = lambda name: answers[0] if "." in name else Reply(code=NXDOMAIN)

    async def run() -> None:
        guard = Guard.build(["127.0.0.0/8"])
        client = Client(guard, names=Names([server.address]))
        target = guard.check_url(receiver.url(host="moved.test"))
        with pytest.raises(DeliveryFailed, match="connect"):
            await client.post(target, MESSAGE, 20)
        answers[0] = Reply(("127.0.0.1",), ttl=1)
        await asyncio.sleep(1.2)
        assert (await client.post(target, MESSAGE, 20)).status == 200
        client.close()

    asyncio.run(run())


def test_a_cached_name_is_used_while_its_servers_hang(
    receiver: Receiver, server: Nameserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names_module, "BELIEVED", (0.0, 0.0))
    assert deliver(receiver, "good.test")
    server.rule = lambda name: None if "." in name else Reply(code=NXDOMAIN)
    for number in range(20):
        assert deliver(receiver, "good.test", job_id=f"j{number}")
    assert len(receiver.requests) == 21


def test_a_cached_failure_counts_at_most_one_attempt_of_a_delivery(receiver: Receiver, server: Nameserver) -> None:
    with pytest.raises(DeliveryFailed):
        deliver(receiver, "none.test", job_id="a")
    with pytest.raises(RetryLater) as raised:
        deliver(receiver, "none.test", job_id="a", number=2)
    assert not raised.value.counts
    with pytest.raises(DeliveryFailed):
        deliver(receiver, "none.test", job_id="b")
    assert server.count("none.test") == 1
    (held,) = webhook.admit([(job(receiver, "none.test"), attempt("a", 2))])
    assert held is not None
    assert held.until.timestamp() > time.time() + 5


@pytest.mark.parametrize("host", ["none.test", "broken.test"])
def test_a_name_that_stays_without_an_answer_uses_up_the_attempts(
    receiver: Receiver, server: Nameserver, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr(names_module, "REMEMBERED", 0.3)
    for number in (1, 2, 3):
        with pytest.raises(DeliveryFailed):
            deliver(receiver, host, number=number)
        time.sleep(0.4)
    assert server.count(host) >= 3


def test_a_flood_of_names_that_do_not_exist_holds_up_no_others(server: Nameserver) -> None:
    async def run() -> None:
        names = Names([server.address])
        flood = [asyncio.ensure_future(names.addresses(f"none.d{n}.test", f"n{n}", 60)) for n in range(1500)]
        good = [asyncio.ensure_future(names.addresses(f"good.g{n}.test", f"g{n}", 60)) for n in range(10)]
        assert all(await asyncio.gather(*good))
        ended = await asyncio.gather(*flood, return_exceptions=True)
        assert {getattr(each, "kind", each) for each in ended} == {"dns"}
        names.close()

    asyncio.run(run())


@pytest.mark.usefixtures("_soon")
@pytest.mark.parametrize("how", ["closed", "silent", "refuses"])
def test_no_attempt_is_counted_while_our_own_name_servers_do_not_answer(
    receiver: Receiver, server: Nameserver, redis: redis_py.Redis, how: str
) -> None:
    assert deliver(receiver, "good.test")
    if how == "closed":
        server.stop()
    else:
        server.rule = lambda name: None if how == "silent" else Reply(code=REFUSED)
        server.root = None
    try:
        with pytest.raises(DependencyUnavailable, match="no name server answers") as raised:
            deliver(receiver, "new.test")
        others = [(job(receiver, f"{job_id}.test"), attempt(job_id)) for job_id in ("other", "more")]
        first, second = webhook.admit(others)  # the first is let in and reports what is away
        assert first is None
        assert second is not None
        report_away(redis, "webhooks", "new", raised.value)
        held, _ = webhook.admit(others)
        assert held is not None
        assert "no name server answers" in held.reason
        assert deliver(receiver, "good.test", job_id="k")  # known names go on
    finally:
        server.rule = by_name
        if how == "closed":
            server.start()
    eventually(lambda: webhook.admit([(job(receiver, "other.test"), attempt("o"))]) == [None])
    assert deliver(receiver, "other.test", job_id="o")


def test_the_search_list_and_new_name_servers_of_resolv_conf(
    server: Nameserver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf, real = tmp_path / "resolv.conf", pycares.Channel
    monkeypatch.setattr(pycares, "Channel", lambda **options: real(resolvconf_path=str(conf), **options))
    monkeypatch.setattr(names_module, "_CHECKS", (0.1, 0.1))
    with nameserver(by_name) as gone:
        pass
    conf.write_text(f"nameserver [127.0.0.1]:{gone.port}\n")

    async def run() -> None:
        names = Names()
        with pytest.raises(DependencyUnavailable, match="no name server answers"):
            await names.addresses("good.test", "a", 20)
        conf.write_text(f"nameserver [127.0.0.1]:{server.port}\nsearch corp.test\n")
        found, deadline = False, time.monotonic() + 60
        while not found:
            assert time.monotonic() < deadline, f"asked: {server.asked}"
            await asyncio.sleep(0.2)
            with contextlib.suppress(DependencyUnavailable):
                found = bool(await names.addresses("good.test", "a", 20))
        assert await names.addresses("intranet", "b", 20)
        assert "intranet.corp.test" in {name for name, _kind in server.asked}
        names.close()

    asyncio.run(run())


def test_a_process_ends_while_questions_are_open(server: Nameserver) -> None:
    code = (
        "import asyncio, sys; from rqjobs.processors.webhook.host_names import Names; names = Names(sys.argv[1:])\n"
        "async def run():\n"
        "    tasks = [asyncio.ensure_future(names.addresses(f'hang{n}.test', str(n), 9)) for n in range(20)]\n"
        "    await asyncio.sleep(0.3)\n"
        "    [task.cancel() for task in tasks]\n"
        "asyncio.run(run())"
    )
    ended = subprocess.run([sys.executable, "-c", code, server.address], capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_the_callback_never_runs_before_the_query_is_sent(server: Nameserver) -> None:
    """Where the port is closed c-ares answers inside the call, in the middle of the work of its caller."""
    server.stop()
    resolver = Resolver([server.address])
    answered: list[bool] = []
    asking = False

    def done(_answer: object) -> None:
        answered.append(asking)

    def ask() -> None:
        nonlocal asking
        asking = True
        for number in range(100):
            resolver.look_up(f"a{number}.test", done)
            resolver.check(done, again=False)
        asking = False

    resolver.call(ask)
    try:
        eventually(lambda: len(answered) == 200)
        assert not any(answered)
    finally:
        resolver.close()
        server.start()


def test_domains_take_turns(server: Nameserver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 300 names of one domain that hang four are asked for at a time; other domains do not wait for them."""

    async def run() -> None:
        names = Names([server.address])
        hanging = [asyncio.ensure_future(names.addresses(f"hang{n}.evil.test", f"h{n}", 20)) for n in range(300)]
        await asyncio.sleep(0.3)
        assert len({name for name, _kind in server.asked}) <= names_module.OPEN_OF_A_DOMAIN
        for number in range(20):
            assert await names.addresses(f"a.good{number}.test", f"g{number}", 20)
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        names.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("a.b.example.com", "example.com"),
        ("example.com", "example.com"),
        ("a.shop.co.uk", "shop.co.uk"),
        ("shop.co.uk", "shop.co.uk"),
        ("a.b.example.de", "example.de"),
        ("localhost", "localhost"),
    ],
)
def test_the_registered_domain(host: str, domain: str) -> None:
    assert registered_domain(host) == domain


def test_names_are_forgotten_when_there_are_too_many(server: Nameserver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_module, "_KEPT", 100)

    async def run() -> None:
        names = Names([server.address])
        assert await names.addresses("good.test", "g", 20)
        for number in range(300):
            with pytest.raises(DeliveryFailed):
                await names.addresses(f"none.d{number}.test", "j", 20)
        assert len(names._names) <= 100
        assert names.is_known("good.test")
        names.close()

    asyncio.run(run())


def test_a_wrong_name_server_is_reported_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for right in ("10.0.0.2", "10.0.0.2:5353", "[2001:db8::2]:53", "10.0.0.2 10.0.0.3"):
        monkeypatch.setenv("WEBHOOK_NAMESERVERS", right)
        assert Settings.load().webhook_nameservers == tuple(right.split())
    for wrong in ("dns.example", "10.0.0.2:x", "10.0.0.2:99999", "::1"):
        monkeypatch.setenv("WEBHOOK_NAMESERVERS", wrong)
        with pytest.raises(ValueError, match="WEBHOOK_NAMESERVERS"):
            Settings.load()


def test_names_that_hang_hold_up_no_other_tenant(workers: Workers, receiver: Receiver, redis: redis_py.Redis) -> None:
    """After 400 deliveries to names whose servers hang, ten to ten tenants arrive at their first attempt."""
    hanging = [job(receiver, f"hang{n}.evil{n % 40}.test") for n in range(400)]
    enqueue_many(hanging)
    workers.start("webhooks")
    eventually(lambda: redis.llen(key("queue", "webhooks")) == 0)
    good = enqueue_many([job(receiver, f"hook.tenant{n}.test") for n in range(10)])
    receiver.wait_for(10)
    assert {request.webhook_id for request in receiver.requests} == {each.id for each in good}
    assert {request.headers["webhook-attempt"] for request in receiver.requests} == {"1"}
    eventually(lambda: all(each.get_status() == "finished" for each in good))


def test_a_short_outage_of_a_name_server_fails_no_delivery(
    workers: Workers, receiver: Receiver, server: Nameserver, redis: redis_py.Redis
) -> None:
    server.stop()
    jobs = enqueue_many([job(receiver, f"hook.tenant{n}.test") for n in range(100)])
    workers.start("webhooks")
    eventually(lambda: redis.llen(key("queue", "webhooks")) == 0)
    eventually(dependencies_away)
    (away,) = dependencies_away()
    assert (away.queue, away.dependency) == ("webhooks", "name servers")
    time.sleep(1.5)
    assert receiver.requests == []
    server.start()
    receiver.wait_for(100)
    assert {request.headers["webhook-attempt"] for request in receiver.requests} == {"1"}
    eventually(lambda: all(each.get_status() == "finished" for each in jobs))
    assert redis.zcard(key("failed", "webhooks")) == 0
    eventually(lambda: not dependencies_away())


def test_names_are_resolved_in_processes_of_one_job_as_well(
    workers: Workers, receiver: Receiver, redis: redis_py.Redis
) -> None:
    """Each job of the engine ``rq`` has a process of its own, which knows no name yet."""
    good, none = enqueue_many([job(receiver, "good.test"), job(receiver, "none.test")], attempts=2, backoff="fixed:0s")
    workers.start("webhooks", "--engine", "rq")
    receiver.wait_for(1)
    eventually(lambda: none.get_status() == "failed")
    eventually(lambda: good.get_status() == "finished")
