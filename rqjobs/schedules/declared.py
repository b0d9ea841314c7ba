"""Schedules declared in the code, beside their functions; a worker writes them to Redis when it starts."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from typing import Any, cast

import redis

from rqjobs.broker import keys
from rqjobs.broker.job_builder import build_entry
from rqjobs.broker.job_writer import Entry
from rqjobs.broker.rq_types import as_text
from rqjobs.broker.unreadable import is_wrong_type, reading
from rqjobs.config.logs import event
from rqjobs.config.settings import get_settings
from rqjobs.errors import RQJobsError, ScheduleNotFound
from rqjobs.jobs.base import JobModel
from rqjobs.schedules.store import check_times, define, put, remove


@dataclass(frozen=True)
class Declaration:
    """One declared schedule; it has the name of its queue."""

    job: JobModel
    times: dict[str, Any]
    module: str


_DECLARED: dict[str, Declaration] = {}


def declare(name: str, job: JobModel, times: dict[str, Any], module: str) -> None:
    """Registers a declared schedule.

    Raises:
        ValueError: its times are invalid; the message names every fault.
    """
    faults: list[str] = []
    check_times(times, faults)
    if faults:
        raise ValueError(f"schedule {name}: {'; '.join(faults)}")
    _DECLARED[name] = Declaration(job, times, module)


def declared_entry(name: str) -> Entry:
    """Returns the job that a tick of the declared schedule enqueues.

    Raises:
        ScheduleNotFound: there is no declaration with this name.
    """
    if name not in _DECLARED:
        raise ScheduleNotFound(name)
    import time

    return build_entry(_DECLARED[name].job, {}, None, time.time_ns() // 1000)


def follow_code(client: redis.Redis) -> None:
    """Writes the declared schedules to Redis, and removes those that are no longer declared.

    Removed are schedules that an imported module of this process once declared, and those of a process whose
    RQJOBS_IMPORT named no other modules than this one's. Schedules of another app on the same Redis stay.
    """
    imports = set(get_settings().rqjobs_import)
    for name, declaration in _DECLARED.items():
        try:
            definition, entry = define(name, declaration.job, declaration.times, {}, "code")
        except RQJobsError as error:
            event(logging.ERROR, "a declared schedule cannot be used", schedule=name, error=str(error))
            continue
        try:
            put(name, definition | {"module": declaration.module, "imports": sorted(imports)}, entry, client)
        except redis.exceptions.ResponseError as error:
            if not is_wrong_type(error):
                raise
            event(logging.ERROR, "a key of a declared schedule is of another type", schedule=name, error=str(error))
    with reading():
        names = [as_text(raw) for raw in cast("list[bytes]", client.zrange(keys.SCHEDULES_DUE, 0, -1))]
        definitions = [client.hget(keys.schedule(name), "definition") for name in names]
    for name, stored in zip(names, definitions, strict=True):
        if name not in _DECLARED and _is_gone(stored, imports):
            remove(name, connection=client)
            event(logging.INFO, "schedule removed: it is not declared any more", schedule=name)


def _is_gone(raw: Any, imports: set[str]) -> bool:
    try:
        definition = json.loads(raw or b"{}")
        if definition.get("source") != "code":
            return False
        theirs = set(definition["imports"])
        return definition["module"] in sys.modules or (bool(theirs) and theirs <= imports)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
