"""Adds, changes, lists and removes schedules in Redis."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, TypedDict, cast

import redis

from rqjobs.broker import keys
from rqjobs.broker.clock_skew import skew
from rqjobs.broker.connection import client_of
from rqjobs.broker.job_builder import JobOptions, build_entry
from rqjobs.broker.job_writer import Entry, captured, is_capturing, redis_timestamp
from rqjobs.broker.rq_schema import pack_data, run_script
from rqjobs.broker.rq_types import as_text
from rqjobs.broker.unreadable import reading
from rqjobs.config.durations import parse_explicit_duration
from rqjobs.errors import InvalidSchedule, ScheduleNotFound
from rqjobs.jobs.base import JobModel
from rqjobs.schedules.records import CATCH_UP, OVERLAP, SHOWN, CatchUp, Overlap, Schedule, read_schedule, timing_of
from rqjobs.schedules.ticks import timing

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_OF_ONE_JOB = ("job_id", "unique", "at", "delay", "outbox", "on_commit")
_PAGE = 500  # the most schedules read in one round trip


class TickJobOptions(TypedDict, total=False):
    """The options of the job of each tick; see :class:`rqjobs.JobOptions`."""

    priority: Any
    attempts: int | None
    backoff: Any
    timeout: timedelta | str | None
    connection: redis.Redis | None


def add(
    name: str,
    job_model: JobModel,
    *,
    cron: str | None = None,
    every: timedelta | str | None = None,
    timezone: str = "UTC",
    starts: datetime | None = None,
    ends: datetime | None = None,
    catch_up: CatchUp = "last",
    overlap: Overlap = "queue",
    jitter: timedelta | str | None = None,
    **options: Any,
) -> Schedule:
    """Adds a schedule, or replaces the one with this name: its job is enqueued at each tick, exactly once.

    A replaced schedule keeps its pause and its history, and its next tick if its times are the same.

    Args:
        name: 1 to 100 letters, digits, ``_``, ``-`` and ``.``.
        job_model: the job that each tick enqueues; of an own job, ``make_thumbnail.job({...})``.
        cron: five fields, or an alias such as ``@daily``; for all times see :class:`rqjobs.schedules.ScheduleOptions`.
        every: an interval instead of ``cron``.
        timezone: the IANA time zone of ``cron``.
        starts: no tick before this time.
        ends: no tick after this time.
        catch_up: the handling of ticks missed while no worker ran.
        overlap: the handling of a tick while the job of an earlier one has not ended.
        jitter: the longest random delay of each job.
        options: ``priority``, ``attempts``, ``backoff``, ``timeout`` of each job, and ``connection``. The others are
            those of the queue's policy at the time of this call.

    Raises:
        InvalidSchedule: a name, a time, a zone or an option is invalid; the message names every fault.
        InvalidJob: the job or one of its options is invalid.
        RedisUnavailable: Redis does not answer.
    """
    given = {"cron": cron, "every": every, "timezone": timezone, "starts": starts, "ends": ends, "catch_up": catch_up,
             "overlap": overlap, "jitter": jitter}  # fmt: skip
    connection = options.pop("connection", None)
    definition, entry = define(name, job_model, given, options)
    if is_capturing():
        return _view(name, definition, entry, timing_of(definition).after(int(time.time())))
    return put(name, definition, entry, client_of(connection))


def define(
    name: str, job_model: JobModel, given: dict[str, Any], options: dict[str, Any], source: str = "redis"
) -> tuple[dict[str, Any], Entry]:
    """Returns the checked definition of a schedule, and the job that each tick enqueues.

    Raises:
        InvalidSchedule, InvalidJob: a value is invalid; the message names every fault.
    """
    faults: list[str] = []
    if not _NAME.fullmatch(str(name)):
        faults.append(f"name: {name!r} is not 1 to 100 letters, digits, '_', '-' and '.'")
    faults += [f"{option}: is for one job, not for those of a schedule" for option in _OF_ONE_JOB if option in options]
    definition = check_times(given, faults)
    if faults:
        raise InvalidSchedule(str(name)[:100], faults)
    entry = build_entry(job_model, cast("JobOptions", options), None, time.time_ns() // 1000)
    return definition | {"queue": job_model.queue, "source": source}, entry


def check_times(given: dict[str, Any], faults: list[str]) -> dict[str, Any]:
    """Returns the times of a schedule for its definition; appends their faults to ``faults``."""
    if (given.get("cron") is None) == (given.get("every") is None):
        faults.append('give one of cron="0 3 * * *" and every="5m"')
        return {}
    found: dict[str, Any] = {"cron": given.get("cron"), "timezone": given.get("timezone") or "UTC"}
    for key in ("every", "jitter"):
        found[key] = _seconds(key, given.get(key), faults)
    for key in ("starts", "ends"):
        found[key] = _moment(key, given.get(key), faults)
    for key, allowed in (("catch_up", CATCH_UP), ("overlap", OVERLAP)):
        found[key] = given.get(key) or allowed[0]
        if found[key] not in allowed:
            faults.append(f"{key}: {found[key]!r} is none of {', '.join(allowed)}")
    if not faults:
        try:
            timing(*(found[key] for key in ("cron", "every", "timezone", "starts", "ends")))
        except ValueError as error:
            faults.append(str(error))
    return found


def _seconds(key: str, value: Any, faults: list[str]) -> float | None:
    try:
        return None if value is None else parse_explicit_duration(value).total_seconds()
    except (ValueError, TypeError, OverflowError) as error:
        faults.append(f"{key}: {error}")
        return None


def _moment(key: str, value: Any, faults: list[str]) -> float | None:
    if value is not None and (not isinstance(value, datetime) or value.tzinfo is None):
        faults.append(f"{key}: {value!r} is not a datetime with a time zone; write datetime(..., tzinfo=UTC)")
        return None
    return None if value is None else float(value.timestamp())


def put(name: str, definition: dict[str, Any], entry: Entry, client: redis.Redis) -> Schedule:
    """Writes the schedule; :func:`add` states what a replaced one keeps."""
    times = json.dumps([definition[key] for key in ("cron", "every", "timezone", "starts", "ends")])
    fields = [str(each) for each in chain.from_iterable(entry.kind.fields.items())]
    fields = _without_meta(fields)
    content = {
        "times": times, "definition": json.dumps(definition), "lane": entry.kind.lane, "fields": json.dumps(fields),
        "description": entry.description, "overlap": definition["overlap"], "data": pack_data(entry.data),
    }  # fmt: skip
    version = hashlib.sha256(repr(sorted(content.items())).encode()).hexdigest()[:16]
    upcoming = timing_of(definition).after(redis_now(client))
    arguments = [name, _number(upcoming), times, *chain.from_iterable(content.items()), "version", version]
    run_script("recurring_put", client, arguments)
    return get_schedule(name, connection=client)


def _without_meta(fields: list[str]) -> list[str]:
    """Removes the meta with the trace of the adding call, because each tick writes its own."""
    pairs = zip(fields[::2], fields[1::2], strict=True)
    return list(chain.from_iterable(pair for pair in pairs if pair[0] != "meta"))


def _view(name: str, definition: dict[str, Any], entry: Entry, upcoming: int | None) -> Schedule:
    fields = [b"", json.dumps(definition).encode(), None, entry.kind.lane.encode()]
    return read_schedule(name, fields, upcoming, [])


def _number(tick: int | None) -> str | int:
    return "" if tick is None else tick


def redis_now(client: redis.Redis) -> int:
    """Returns the time by Redis' clock in whole Unix seconds."""
    return int(client.time()[0])


def remove(name: str, *, connection: redis.Redis | None = None) -> None:
    """Removes a schedule and its history; jobs that it has enqueued stay.

    Raises:
        ScheduleNotFound: there is none with this name.
    """
    client = client_of(connection)
    with client.pipeline() as pipeline:
        pipeline.delete(keys.schedule(name))
        pipeline.zrem(keys.SCHEDULES_DUE, name)
        pipeline.delete(keys.schedule_ticks(name))
        removed, *_ = pipeline.execute()
    if not removed:
        raise ScheduleNotFound(name)


def pause(name: str, *, connection: redis.Redis | None = None) -> None:
    """Pauses a schedule: it has no ticks until it is resumed.

    Raises:
        ScheduleNotFound: there is none with this name.
    """
    _set_paused(name, client_of(connection), paused=True)


def resume(name: str, *, connection: redis.Redis | None = None) -> None:
    """Resumes a paused schedule at its next tick; ticks missed during the pause are not run.

    Raises:
        ScheduleNotFound: there is none with this name.
    """
    _set_paused(name, client_of(connection), paused=False)


def _set_paused(name: str, client: redis.Redis, *, paused: bool) -> None:
    done = False
    while not done:  # repeated if it was replaced at the same time, because its times may have changed
        version, definition = _read(name, client)
        upcoming = timing_of(definition).after(redis_now(client))
        done = bool(run_script("recurring_pause", client, [name, version, "1" if paused else "", _number(upcoming)]))


def _read(name: str, client: redis.Redis) -> tuple[str, dict[str, Any]]:
    version, definition = cast("list[bytes | None]", client.hmget(keys.schedule(name), ["version", "definition"]))
    if version is None or definition is None:
        raise ScheduleNotFound(name)
    return version.decode(), json.loads(definition)


def run_now(name: str, *, connection: redis.Redis | None = None) -> str:
    """Enqueues the job of a schedule now, in addition to its ticks; also if it is paused, or an earlier job is running.

    Returns:
        The job's id.

    Raises:
        ScheduleNotFound: there is none with this name.
    """
    if is_capturing():
        from rqjobs.schedules.declared import declared_entry

        entry = declared_entry(name)
        captured([entry])
        return entry.job_id
    client = client_of(connection)
    while True:
        version, _definition = _read(name, client)
        job_id = tick_job_id(time.time())
        if (
            run_script(
                "recurring_tick", client, tick_arguments(name, version, None, None, job_id=job_id, client=client)
            )[0]
            != b"gone"
        ):
            return job_id


def tick_job_id(moment: float) -> str:
    """Returns a new job id that sorts by time, like those of other jobs."""
    return f"{int(moment * 1_000_000):014x}{os.urandom(5).hex()}"


def tick_arguments(
    name: str,
    version: str,
    tick: int | None,
    upcoming: int | None,
    *,
    job_id: str,
    client: redis.Redis,
    reason: str = "",
    last: int | None = None,
    wait: float | None = None,
) -> Sequence[Any]:
    """Returns the arguments of ``recurring_tick.lua`` after RQ's prefix."""
    meta = json.dumps({"schedule": name, "tick": tick})
    return [
        name, version, _number(tick), _number(upcoming), job_id, reason, _number(last), redis_timestamp(skew(client)),
        "" if wait is None else repr(wait), meta,
    ]  # fmt: skip


def get_schedule(name: str, *, connection: redis.Redis | None = None) -> Schedule:
    """Returns the schedule with this name.

    Raises:
        ScheduleNotFound: there is none.
    """
    if found := _read_all([name], client_of(connection)):
        return found[0]
    raise ScheduleNotFound(name)


def list_schedules(*, connection: redis.Redis | None = None) -> list[Schedule]:
    """Returns all schedules, ordered by their next tick; those without one are last."""
    client = client_of(connection)
    names = [as_text(name) for name in cast("list[bytes]", client.zrange(keys.SCHEDULES_DUE, 0, -1))]
    return [each for at in range(0, len(names), _PAGE) for each in _read_all(names[at : at + _PAGE], client)]


def _read_all(names: list[str], client: redis.Redis) -> list[Schedule]:
    with reading(), client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hmget(keys.schedule(name), list(SHOWN))
            pipeline.zscore(keys.SCHEDULES_DUE, name)
            pipeline.lrange(keys.schedule_ticks(name), 0, -1)
        answers = pipeline.execute()
    rows = zip(names, answers[::3], answers[1::3], answers[2::3], strict=True)
    return [read_schedule(name, fields, score, ticks) for name, fields, score, ticks in rows if fields[0] is not None]
