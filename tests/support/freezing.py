"""RQJOBS_IMPORT: queues whose jobs hold the interpreter, crash the process, or leave a thread behind."""

from __future__ import annotations

import ctypes
import os
import re
import threading
import time
from datetime import timedelta
from typing import Any, ClassVar

from rqjobs.attempt import Attempt
from rqjobs.policies import QueuePolicy, register_queue
from rqjobs.worker import watcher_client
from tests.support import tasks

if os.environ.get("RQJOBS_IMPORT") == __name__:  # in workers, not in the tests that import the jobs
    watcher_client.frozen_after = lambda _lease: 4


class Deadly(tasks.Task):
    queue: ClassVar[str] = "deadly"


class DeadlyCoroutine(tasks.Task):
    queue: ClassVar[str] = "deadly-coroutines"


def deadly(job: tasks.Task, attempt: Attempt) -> Any:
    if job.do == "freeze":
        re.match(r"(a+)+$", "a" * 60 + "b")
    if job.do == "crash":
        ctypes.string_at(0)
    if job.do == "leave-thread":
        threading.Thread(target=time.sleep, args=(3600,), daemon=False).start()  # jobs run in daemon threads
    return tasks.do(job, attempt)


async def deadly_coroutine(job: tasks.Task, attempt: Attempt) -> Any:
    if job.do in ("freeze", "crash"):
        return deadly(job, attempt)
    return await tasks.do_async(job, attempt)


for _model, _function, _slots in ((Deadly, "deadly", 10), (DeadlyCoroutine, "deadly_coroutine", 20)):
    register_queue(
        QueuePolicy(
            name=_model.queue,
            kind=_model.queue,
            model=_model,
            processor=f"tests.support.freezing:{_function}",
            concurrency=_slots,
            timeout=timedelta(seconds=5),
        )
    )
