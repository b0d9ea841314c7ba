"""Recurring jobs: a schedule enqueues its job at each tick, exactly once, with any number of workers and failures.

    from rqjobs import EmailJob, schedules

    schedules.add("report", EmailJob(...), cron="0 7 * * mon", timezone="Europe/Berlin")

The leader of the workers runs the schedules (:mod:`rqjobs.schedules.leader`); ``@rqjobs.job(..., cron=...)`` declares
one beside its function.
"""

from rqjobs.schedules.records import Schedule, ScheduleOptions, Tick
from rqjobs.schedules.store import add, get_schedule, list_schedules, pause, remove, resume, run_now

__all__ = [
    "Schedule",
    "ScheduleOptions",
    "Tick",
    "add",
    "get_schedule",
    "list_schedules",
    "pause",
    "remove",
    "resume",
    "run_now",
]
