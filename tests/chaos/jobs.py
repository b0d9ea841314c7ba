"""The own jobs of the chaos suite: RQJOBS_IMPORT=tests.chaos.jobs. Each writes its effect outside of Redis."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import select
import sys
import time

import rqjobs
from rqjobs.attempt import Attempt
from rqjobs.errors import PermanentFailure
from rqjobs.sources import Filter, Source, register_source
from tests.chaos.ledger import append


def _effect(payload: dict) -> None:
    worker = os.getpid() if sys.argv[1:2] == ["worker"] else 0  # a child's worker is not known for sure
    append(os.environ["CHAOS_EFFECTS"], f"{payload['mark']} {time.time():.3f} {worker}")


@rqjobs.job(queue="chaos-threads", concurrency=20)
def own(payload: dict) -> str:
    select.select([], [], [], payload.get("seconds", 0))  # libfaketime breaks time.sleep now and then: EINVAL
    _effect(payload)
    return "done"


@rqjobs.job(queue="chaos-coroutines", concurrency=100)
async def coroutine(payload: dict) -> str:
    await asyncio.sleep(payload.get("seconds", 0))
    _effect(payload)
    return "done"


@rqjobs.job(queue="chaos-processes", runs_in="process", concurrency=1)
def process(payload: dict) -> str:
    _effect(payload)
    return "done"


@rqjobs.job(queue="chaos-flaky", attempts=6, backoff="fixed:1s")
def flaky(payload: dict, attempt: Attempt) -> str:
    """Fails once by its own fault, and then works. Each worker that is killed under it costs an attempt as well."""
    if attempt.number == 1:
        raise ValueError("the first attempt fails as planned")
    _effect(payload)
    return "done"


@rqjobs.job(queue="chaos-dead")
def dead(payload: dict) -> None:
    """Dies by its own fault."""
    _effect(payload)
    raise PermanentFailure("it dies as planned")


@rqjobs.job(queue="chaos-poison", attempts=5, backoff="fixed:100ms", timeout="10s")
def poison(payload: dict) -> None:
    """Harms its worker: ``regex`` holds the interpreter, ``segfault`` ends it, ``memory`` takes all there is."""
    _effect(payload)
    match payload["how"]:
        case "regex":
            re.match(r"(a+)+$", "a" * 60 + "b")
        case "segfault":
            ctypes.string_at(0)
        case "memory":
            hoard = []
            while True:
                hoard.append(bytearray(16 << 20))


register_source(
    Source(
        name="chaos",
        columns=("id",),
        filters={"note": Filter(column="note", kind="text")},
        rows=lambda user_id, filters: [{"id": 1}],
    )
)
