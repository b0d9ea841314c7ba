"""An app with hooks, which write their events to the file HOOKS_LOG: RQJOBS_IMPORT=tests.support.hooked."""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import rqjobs
from rqjobs import JobEvent
from tests.support import tasks  # noqa: F401  # its queues


def write(name: str, event: JobEvent) -> None:
    line = asdict(event) | {"hook": name, "job": event.job and event.job.dump(), "seconds": event.seconds}
    with Path(os.environ["HOOKS_LOG"]).open("a") as file:
        file.write(json.dumps(line, default=str) + "\n")


@rqjobs.on("start", "done", "retry", "dead")
def everything(event: JobEvent) -> None:
    write("everything", event)


@rqjobs.on("done", queue="coroutines")
async def coroutines(event: JobEvent) -> None:
    await asyncio.sleep(0)
    write("coroutines", event)


@rqjobs.on("done")
def fails(event: JobEvent) -> None:
    raise SystemExit(f"a hook of {event.job_id} failed")


@rqjobs.on("start")
def hangs(_event: JobEvent) -> None:
    time.sleep(0 if os.environ.get("HOOKS_HANG") == "0" else 3600)  # RQ's engine waits for hooks
