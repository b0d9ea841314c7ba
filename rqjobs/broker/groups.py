"""Reads the waiting jobs of groups, which are not in RQ's lists (rqjobs/broker/lua/groups.lua)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from rqjobs.broker import keys
from rqjobs.broker.job_writer import GROUP
from rqjobs.broker.rq_schema import job_key, key, run_script
from rqjobs.broker.states import state_of
from rqjobs.policies import base_queue

PAGE = 1000
"""The most jobs of a lane that one call moves to RQ's list: about 5 ms of Redis' time."""

_PLACE = "group_place"
_SHOWN = 5  # the most jobs with a slot that are named


@dataclass(frozen=True, kw_only=True)
class Membership:
    """The group of one job, and the jobs for which it waits."""

    group: str
    before: int | None
    """The number of jobs of its lane and group that wait before it; None if it does not wait."""
    slots: tuple[tuple[str, str], ...]
    """The id and state of at most five jobs with a slot of the group. A delayed one waits for its retry."""

    @property
    def text(self) -> str:
        """One line for pages and commands."""
        parts = [f"group {self.group}"]
        if self.before is not None:
            parts.append(f"{self.before:,} of it wait before this job")
        if self.slots:
            parts.append("its slots: " + ", ".join(f"{job_id} ({state})" for job_id, state in self.slots))
        return "; ".join(parts)


def membership(client: redis.Redis, job_id: str, lane: str) -> Membership | None:
    """Returns the group of a job; None if it has none."""
    fields: Any = client.hmget(job_key(job_id), GROUP, _PLACE)
    name, place = fields
    if not name:
        return None
    start, end = b"[" + name + b"\n", b"(" + name + b"\x0b"
    here = b"\n".join((name, place or b"", job_id.encode()))
    with client.pipeline(transaction=False) as pipeline:
        pipeline.zscore(keys.group_waiting(lane), here)
        pipeline.zlexcount(keys.group_waiting(lane), start, b"(" + here)
        pipeline.zrangebylex(keys.group_slots(base_queue(lane)), start, end, 0, _SHOWN)
        waits, before, slots = pipeline.execute()
    ids = [_text(member.rpartition(b"\n")[2]) for member in slots]
    with client.pipeline(transaction=False) as pipeline:
        for each in ids:
            pipeline.hget(job_key(each), "status")
        states = [state_of(status) or "gone" for status in pipeline.execute()]
    found = tuple((each, str(state)) for each, state in zip(ids, states, strict=True))
    return Membership(group=_text(name), before=None if waits is None else before, slots=found)


def waiting_in_groups(client: redis.Redis, jobs: Iterable[tuple[str, str]]) -> set[str]:
    """Returns the ids of those of ``jobs`` (id and lane) that wait in a group."""
    known = list(jobs)
    with client.pipeline(transaction=False) as pipeline:
        for job_id, _lane in known:
            pipeline.hmget(job_key(job_id), GROUP, _PLACE)
        members = [(job, fields) for job, fields in zip(known, pipeline.execute(), strict=True) if all(fields)]
        for (job_id, lane), (name, place) in members:
            pipeline.zscore(keys.group_waiting(lane), b"\n".join((name, place, job_id.encode())))
        scores = pipeline.execute()
    return {job_id for ((job_id, _lane), _fields), score in zip(members, scores, strict=True) if score is not None}


def count_waiting(client: redis.Redis, lane: str) -> tuple[int, int]:
    """Returns how many jobs of ``lane`` wait in RQ's list, and how many in groups."""
    with client.pipeline(transaction=False) as pipeline:
        pipeline.llen(key("queue", lane))
        pipeline.zcard(keys.group_waiting(lane))
        listed, grouped = pipeline.execute()
    return listed, grouped


def waiting_ids(client: redis.Redis, lane: str, start: int, stop: int) -> list[bytes]:
    """Returns the ids of the waiting jobs of ``lane`` from ``start`` to before ``stop``.

    RQ's list comes first, then group by group.
    """
    listed, _grouped = count_waiting(client, lane)
    found: Any = client.lrange(key("queue", lane), start, stop - 1) if start < min(listed, stop) else []
    if stop > listed:
        members: Any = client.zrange(keys.group_waiting(lane), max(0, start - listed), stop - listed - 1)
        found += [member.rpartition(b"\n")[2] for member in members]
    return list(found)


def ungroup(client: redis.Redis, lanes: Sequence[str]) -> int:
    """Moves waiting jobs of groups to RQ's lists, for RQ's own worker; returns their number.

    RQ's worker does not limit groups.
    """
    return int(run_script("ungroup", client, [keys.PREFIX, PAGE, *lanes]))


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
