"""One event that kills whatever process it comes to: it alone is dead in the end, and everything else is counted."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from rqjobs import enqueue_many
from rqjobs.database import get_engine
from rqjobs.database.analytics import events
from rqjobs.database.schema import init_database
from rqjobs.dead_letters import letters as dead_letters
from rqjobs.processors.analytics import report
from tests.acceptance.test_analytics_killed import completed
from tests.support.scans import jobs_of
from tests.support.workers import eventually

NUMBER = 9_000
"""More than two batches: some wait, in the worker, for their turn when it dies."""


@pytest.mark.parametrize(("attempts", "where"), [
    (2, "before"), (3, "hook"), pytest.param(2, "hook", marks=pytest.mark.slow),
    *(pytest.param(attempts, "before", marks=pytest.mark.slow) for attempts in (3, 10)),
    pytest.param(10, "hook", marks=pytest.mark.slow),
])  # fmt: skip
def test_only_the_event_that_is_the_cause_is_dead(workers, configure, where, attempts):
    configure(RQJOBS_SECRET_KEY="s" * 43)
    init_database(get_engine())
    jobs = [job for code in ("good", "poison") for job in jobs_of(code, NUMBER if code == "good" else 1)]
    jobs.insert(NUMBER // 2, jobs.pop())
    ids = [job.id for job in enqueue_many(jobs, attempts=attempts, backoff="fixed:0s")]
    workers.start("qr-analytics", "--processes", "2", RQJOBS_IMPORT="tests.support.poison", POISON=where)
    eventually(lambda: completed() == NUMBER and list(dead_letters.dead_letters("qr-analytics")), 120)

    (letter,) = dead_letters.dead_letters("qr-analytics")
    assert letter.job_id == ids[NUMBER // 2]
    if attempts > 2:
        assert "3 workers died while they ran this job" in letter.reason
    else:
        assert "the last attempt died" in letter.reason
    assert report(qr_code_id="good").totals.scans == NUMBER
    with get_engine().connect().execution_options(sqlite_read=True) as connection:
        stored = connection.execute(select(func.count()).select_from(events)).scalar_one()
    assert stored == NUMBER + (where == "hook")
    eventually(lambda: workers.logs().count("worker started") == 2 + min(attempts, 3))
