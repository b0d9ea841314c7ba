"""Imported by a worker of a test: the process dies at one exact step of RQ's own methods, as if it were killed there.

``DIES_AT=after-commit``: RQ has written how a run ended, and nothing else has happened since.
``DIES_AT=before-dependents``: RQ has written that a run failed, and would move its dependents now.
``DIES_AT=before-enqueueing``: RQ has moved dependents to the ready registry, and would enqueue them now.
"""

from __future__ import annotations

import os

import rq.worker.base
from rq import Queue

from rqjobs.worker.dependents import ReleasingQueue


def _die(*_args, **_options):
    os._exit(9)


match os.environ.get("DIES_AT"):
    case "after-commit":
        rq.worker.base.release_slot = _die
    case "before-dependents":
        Queue.enqueue_dependents = _die
    case "before-enqueueing":
        ReleasingQueue.enqueue_ready_jobs_by_queue = _die
