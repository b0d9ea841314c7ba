"""The check of the keys in Redis: each must have the type that rqjobs and RQ use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import redis

from rqjobs.broker import keys
from rqjobs.broker.holds import read_holds
from rqjobs.broker.rq_schema import key
from rqjobs.broker.rq_types import as_text
from rqjobs.broker.unreadable import UnreadableKey, reading, types_of
from rqjobs.monitoring.doctor.finding import Finding, fault
from rqjobs.policies import lanes_in_order, policies

_OF_ALL = {
    "set": (key("queues"), key("workers"), keys.PAUSED),
    "hash": (keys.HOLDS, keys.METRICS, keys.ALERT_SEEN, keys.ALERT_DROPPED, keys.ALERT_ILL),
    "zset": (
        keys.BULK_REQUEUES, keys.OUTBOX, keys.PARKED, keys.DESTINATIONS, keys.SCHEDULES_DUE, keys.WAITERS,
    ),
}  # fmt: skip
"""The keys that belong to no queue, by their type."""

_OF_LANES = {
    "list": ("queue",),
    "zset": ("scheduled", "wip", "finished", "failed", "deferred", "canceled", "ready"),
    "set": ("workers",),
}
"""RQ's keys of each lane, by their type."""

_MOST = 1000


def types(client: redis.Redis, noted: Iterable[UnreadableKey]) -> Iterator[Finding]:
    """Reports keys of the wrong type: those in ``noted``, which other checks could not read, and known ones."""
    wanted = {each.name: each.kind for each in noted}
    wanted |= _members(client)
    wanted |= {name: kind for kind, names in _OF_ALL.items() for name in names}
    for policy in policies():
        wanted |= {keys.totals(policy.name): "hash", f"{keys.PREFIX}:rate:{policy.name}": "hash"}
    for lane in lanes_in_order():
        wanted |= {key(part, lane): kind for kind, parts in _OF_LANES.items() for part in parts}
        wanted |= {keys.dead_fingerprints(lane): "zset", keys.dead_reasons(lane): "zset", keys.dead_texts(lane): "hash"}
    for name, kind in zip(wanted, types_of(list(wanted), client), strict=True):
        if kind not in ("none", wanted[name]):
            each = UnreadableKey(name, wanted[name])
            yield fault("", each.fault, each.fix)
    with reading():
        holds: Any = client.hgetall(keys.HOLDS)
    for field, value in holds.items():
        if not read_holds({field: value}, 0.0):
            name = as_text(field)
            yield fault("", f"(unreadable) {keys.HOLDS}: its entry {name!r}", f"redis-cli HDEL {keys.HOLDS} {name!r}")


def _members(client: redis.Redis) -> dict[str, str]:
    """Returns the keys of workers, schedules, bulk requeues and destinations, with their types.

    At most a thousand of each.
    """
    found: dict[str, str] = {}
    with reading():
        workers: Any = client.smembers(key("workers"))
        found |= {as_text(name): "hash" for name in islice(workers, _MOST)}
        for name in _names(keys.SCHEDULES_DUE, client):
            found |= {keys.schedule(name): "hash", keys.schedule_ticks(name): "list"}
        for name in _names(keys.BULK_REQUEUES, client):
            found[keys.bulk_requeue(name)] = "hash"
        for name in _names(keys.DESTINATIONS, client):
            found |= {f"{keys.PREFIX}:webhooks:breaker:{name}": "hash", keys.breaker_parked(name): "zset"}
    return found


def _names(name: str, client: redis.Redis) -> list[str]:
    found: Any = client.zrange(name, 0, _MOST - 1)
    return [as_text(each) for each in found]
