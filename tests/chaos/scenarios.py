"""The faults, each a small function that injects one and takes it away again."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import time
from pathlib import Path

from tests.chaos.feeder import MIX
from tests.chaos.run import Run, Scenario

FAKETIME = next((str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)

FORGETFUL = {"RQJOBS_KEEP_COMPLETED": "1"}
"""Done jobs have no hash any more, as those beyond the last 100 at a high rate: it recognises no resent call."""

# Workers


def workers_killed(run: Run) -> None:
    for _ in range(run.times(20, 2)):
        time.sleep(random.uniform(0.5, 2))
        run.crew.kill(random.choice(run.crew.workers))


def workers_restarted(run: Run) -> None:
    for _ in range(run.times(10, 1)):
        time.sleep(random.uniform(1, 3))
        worker = random.choice(run.crew.workers)
        if not run.crew.restart(worker):
            run.faults.append(f"{worker.log.name}: did not end at SIGTERM")


def workers_stopped(run: Run) -> None:
    for _ in range(run.times(8, 1)):
        with run.crew.frozen(random.choice(run.crew.workers)):
            run.pause(random.uniform(2, 12), 7)
        time.sleep(random.uniform(1, 3))


def workers_killed_and_stopped(run: Run) -> None:
    workers_killed(run)
    workers_stopped(run)


# Redis


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
    for _ in range(run.times(4, 1)):
        before = run.sentinels.primary()
        run.until(run.sentinels.ready, 60, "the replicas follow")
        run.sentinels.client.execute_command("SENTINEL", "FAILOVER", "chaos")
        run.until(lambda before=before: run.sentinels.primary() is not before, 60, "a failover")
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


# Databases


def postgres_away(run: Run) -> None:
    for _ in range(run.times(10, 1)):
        run.postgres.kill()
        run.pause(20, 6)
        run.postgres.start()
        run.pause(10, 1)


def disk_full(run: Run) -> None:
    for _ in range(run.times(3, 1)):
        filler = run.folder / "small" / "filler"
        descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):
            while True:
                os.write(descriptor, bytes(4096))
        os.close(descriptor)
        run.pause(20, 4)
        filler.unlink()
        run.pause(5, 1)


# The outside world


def smtp_away(run: Run) -> None:
    for _ in range(run.times(3, 1)):
        with run.ledger.window("SMTP server stopped"):
            run.outside.smtp.off()
        run.pause(60, 6)
        run.outside.smtp.on()
        run.pause(10, 1)


def mail_key_revoked(run: Run) -> None:
    for _ in range(run.times(2, 1)):
        with run.outside.key_revoked():
            run.pause(60, 6)
        run.pause(10, 1)


def manychat_token_revoked(run: Run) -> None:
    with run.outside.manychat_answers(401):
        run.pause(60, 6)


def manychat_broken(run: Run) -> None:
    with run.outside.manychat_answers(500):
        run.pause(60, 6)


def export_store_away(run: Run) -> None:
    """The folder is gone, and a file is in its place: what a lost mount looks like to root as well."""
    for _ in range(run.times(3, 1)):
        aside = run.store.with_name("aside")
        run.store.rename(aside)
        run.store.touch()
        run.pause(30, 5)
        run.store.unlink()
        aside.rename(run.store)
        run.pause(5, 1)


# Clocks and poison


def clock_of_a_worker(seconds: int):
    def inject(run: Run) -> None:
        run.outside.far_away = True
        run.crew.add(**clock(seconds))
        run.pause(60, 20)
        run.outside.far_away = False
        run.pause(30, 5)

    return inject


def clock(seconds: int) -> dict[str, str]:
    """The environment of a process whose clock is wrong by ``seconds``, and which measures time well."""
    return {"LD_PRELOAD": FAKETIME or "", "FAKETIME": f"{seconds:+d}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def nothing(run: Run) -> None:
    run.pause(60, 5)


def poison(how: str):
    def inject(run: Run) -> None:
        from tests.chaos import jobs
        from tests.chaos.ledger import append

        for number in range(run.times(3, 1)):
            mark = f"poison.{how}{number}"
            job = jobs.poison.enqueue({"mark": mark, "how": how})
            append(run.ledger.acknowledged_file, f"{mark} {job.id} {time.time():.3f}")
            run.pause(60, 15)

    return inject


def no_mount() -> str | None:
    """A full disk needs a small one."""
    if os.geteuid() == 0 and shutil.which("mount"):
        return None
    return "a full disk needs root and mount"


def no_faketime() -> str | None:
    return None if FAKETIME else "libfaketime is not installed: apt-get install faketime"


SCENARIOS = [
    Scenario("worker-kill", workers_killed),
    Scenario("worker-term", workers_restarted),
    Scenario("worker-stop", workers_stopped),
    Scenario("worker-kill-stop", workers_killed_and_stopped, short=True),
    Scenario("redis-kill", redis_killed),
    Scenario("redis-full", redis_full),
    Scenario("redis-client-kill", connections_killed),
    Scenario("redis-script-flush", scripts_flushed),
    Scenario("proxy-cut", proxy_cut, redis="proxy", settings=FORGETFUL, short=True),
    Scenario("proxy-lost-replies", proxy_replies_lost, redis="proxy", settings=FORGETFUL),
    Scenario("proxy-slow", proxy_slow, redis="proxy"),
    Scenario("proxy-half-open", proxy_half_open, redis="proxy"),
    Scenario("sentinel-failover", failover_planned, redis="sentinel"),
    Scenario("sentinel-kill", primary_killed, redis="sentinel"),
    Scenario("postgres-away", postgres_away, database="postgres", attempts=1, short=True),
    Scenario("sqlite-full", disk_full, database="small", attempts=1, missing=no_mount),
    Scenario("smtp-away", smtp_away, attempts=1),
    Scenario("mail-401", mail_key_revoked, attempts=1, mail="sendgrid", short=True),
    Scenario("mail-403", mail_key_revoked, attempts=1, mail="resend"),
    Scenario("manychat-401", manychat_token_revoked, attempts=1, mix=MIX | {"chat": 4}),
    Scenario("manychat-500", manychat_broken, attempts=1, mix=MIX | {"chat": 4}),
    Scenario("export-store-away", export_store_away, attempts=1, mix=MIX | {"export": 4}),
    Scenario("worker-clock-ahead", clock_of_a_worker(600), mix=MIX | {"far": 5}, missing=no_faketime),
    Scenario("worker-clock-behind", clock_of_a_worker(-600), mix=MIX | {"far": 5}, missing=no_faketime),
    Scenario("app-clock-ahead", nothing, feeder=clock(600), missing=no_faketime),
    Scenario("app-clock-behind", nothing, feeder=clock(-600), missing=no_faketime),
    Scenario("frozen-interpreter", poison("regex")),
    Scenario("segfault", poison("segfault")),
    Scenario("memory", poison("memory")),
]
