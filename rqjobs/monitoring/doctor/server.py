"""Checks of Redis: whether it keeps the jobs that it receives."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import redis

from rqjobs.monitoring.doctor.finding import Finding, fault, fine
from rqjobs.monitoring.queue_health import fullness

_OLDEST = (6, 2)
"""The oldest supported version: LPOP with a count, ZMSCORE and BLMOVE need Redis 6.2."""
_SKEW = 2.0


def _info(client: redis.Redis, section: str) -> dict[str, Any]:
    answer: Any = client.info(section)
    return dict(answer)


def version(client: redis.Redis) -> Iterator[Finding]:
    """Checks that Redis can run our scripts."""
    info = _info(client, "server")
    name = str(info.get("valkey_version") or info.get("redis_version", "0"))
    number = tuple(int(part) for part in str(info.get("redis_version", "0")).split(".")[:2] if part.isdigit())
    if number < _OLDEST:
        yield fault("", f"Redis {name}", "upgrade to Redis 6.2 or newer, or Valkey")
    else:
        yield fine("", f"{'Valkey' if 'valkey_version' in info else 'Redis'} {name}")


def persistence(client: redis.Redis) -> Iterator[Finding]:
    """Checks that jobs survive a restart of Redis."""
    info = _info(client, "persistence")
    aof = bool(info.get("aof_enabled"))
    if aof and info.get("aof_last_write_status", "ok") != "ok":
        yield fault("", "Redis cannot write its append-only file", "free disk space; see Redis' log")
    elif aof:
        yield fine("", "append-only file")
    elif info.get("rdb_last_bgsave_status", "ok") != "ok":
        yield fault("", "the last snapshot failed", "free disk space or memory; see Redis' log")
    elif _config(client, "save"):
        yield fault(
            "",
            "snapshots only: jobs of the last minutes are lost when Redis dies",
            "CONFIG SET appendonly yes, then CONFIG REWRITE",
        )
    else:
        yield fault("", "Redis keeps nothing on disk", "CONFIG SET appendonly yes, then CONFIG REWRITE")


def _config(client: redis.Redis, name: str) -> str:
    answer: Any = client.config_get(name)
    return str(answer.get(name, ""))


def replicas(client: redis.Redis) -> Iterator[Finding]:
    """Checks that a primary without its replicas accepts no jobs, which a failover would lose."""
    info = _info(client, "replication")
    following = int(info.get("connected_slaves", 0))
    by_sentinel = hasattr(client.connection_pool, "get_master_address")
    if not following and not by_sentinel:
        yield fine("", "none")
    elif not following:
        yield fault("", "no replica follows the primary: the Sentinels have nothing to fail over to", "start a replica")
    elif _config(client, "min-replicas-to-write") in ("", "0"):
        yield fault(
            "",
            "a primary without its replicas accepts jobs, which a failover loses",
            "on each Redis: CONFIG SET min-replicas-to-write 1, CONFIG SET min-replicas-max-lag 10, CONFIG REWRITE",
        )
    else:
        yield fine("", f"{following} of them; without any, the primary takes no jobs")


def eviction(client: redis.Redis) -> Iterator[Finding]:
    """Checks that a full Redis refuses new jobs instead of dropping others."""
    policy = str(_info(client, "memory").get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        fix = "CONFIG SET maxmemory-policy noeviction, then CONFIG REWRITE"
        yield fault("", f"a full Redis would drop jobs silently ({policy})", fix)
    else:
        yield fine("", policy)


def memory(client: redis.Redis) -> Iterator[Finding]:
    """Checks that Redis has free memory."""
    if full := fullness(client):
        said, _, fix = full.partition(": ")
        yield fault("", said, fix)
    else:
        yield fine("", f"{int(_info(client, 'memory')['used_memory']) >> 20:,} MiB used")


def clock(client: redis.Redis) -> Iterator[Finding]:
    """Checks that the clocks of this machine and of Redis agree, as leases and delays need it."""
    before = time.time()
    answer: Any = client.time()
    after = time.time()
    theirs = answer[0] + answer[1] / 1_000_000
    skew = max(before - theirs, theirs - after, 0.0)
    if skew > _SKEW:
        yield fault(
            "", f"this machine and Redis differ by {skew:.0f} s", "let both follow NTP: timedatectl set-ntp true"
        )
    else:
        yield fine("", f"differs by {skew * 1000:.0f} ms")
