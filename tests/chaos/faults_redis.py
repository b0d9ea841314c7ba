"""Faults of Redis, of the network before it, and failovers."""

from __future__ import annotations

import random
import time

from tests.chaos.ledger import LOSSY
from tests.chaos.run import Run


def redis_killed(run: Run) -> None:
    for _ in range(run.times(10, 1)):
        run.redis.kill()
        run.pause(random.uniform(0.2, 4), 1)
        run.redis.start()
        run.pause(5, 1)


def redis_full(run: Run) -> None:
    for _ in range(run.times(3, 1)):
        run.redis.client.config_set("maxmemory", 1)
        run.pause(20, 3)
        run.redis.client.config_set("maxmemory", 0)
        run.pause(5, 1)


def connections_killed(run: Run) -> None:
    for _ in range(run.times(600, 40)):
        run.redis.client.client_kill_filter(_type="normal", skipme=True)
        run.redis.client.client_kill_filter(_type="pubsub", skipme=True)
        time.sleep(0.05)


def scripts_flushed(run: Run) -> None:
    for _ in range(run.times(60, 5)):
        run.redis.client.script_flush()
        time.sleep(0.5)


def proxy_cut(run: Run) -> None:
    """Short cuts: a call's reply is lost, its job is done meanwhile, and the call is sent again."""
    for _ in range(run.times(60, 12)):
        run.proxy.cut_for(0.15)
        time.sleep(random.uniform(0.1, 0.6))
    run.notes.append(f"{run.proxy.broken} connections cut")


def proxy_replies_lost(run: Run) -> None:
    for name in ("lose_replies", "tear_replies", "lose_requests"):
        setattr(run.proxy, name, 0.02)
        run.pause(20, 3)
        setattr(run.proxy, name, 0.0)
    run.notes.append(f"{run.proxy.broken} connections cut")


def proxy_slow(run: Run) -> None:
    run.proxy.delay = 0.1
    run.pause(30, 3)
    run.proxy.delay = 0.0


def proxy_half_open(run: Run) -> None:
    for _ in range(run.times(3, 1)):
        with run.ledger.window("half open"):
            run.proxy.silent = True
            run.pause(20, 8)
            run.proxy.cut()
            run.proxy.silent = False
        run.pause(5, 1)


def failover_planned(run: Run) -> None:
    """The two commands of docs/deployment.md."""
    for _ in range(run.times(4, 1)):
        _failover(run, paused=True)


def failover_bare(run: Run) -> None:
    """Without a pause of writes: what came in about the time of the promotion is lost, as docs/deployment.md states."""
    for _ in range(run.times(4, 1)):
        with run.ledger.window(LOSSY):
            _failover(run, paused=False)


def _failover(run: Run, *, paused: bool) -> None:
    run.until(run.sentinels.ready, 60, "the replicas follow")
    before = run.sentinels.primary()
    if paused:
        before.client.execute_command("CLIENT", "PAUSE", "10000", "WRITE")
    run.sentinels.client.execute_command("SENTINEL", "FAILOVER", "chaos")
    run.until(lambda: run.sentinels.primary() is not before, 60, "a failover")
    run.pause(20, 12)


def primary_killed(run: Run) -> None:
    for _ in range(run.times(4, 1)):
        run.until(run.sentinels.ready, 60, "the replicas follow")
        before = run.sentinels.primary()
        before.kill()
        run.until(lambda before=before: run.sentinels.primary() is not before, 60, "a failover")
        run.pause(5, 2)
        before.start()
        run.pause(15, 5)
