"""A planned failover by Sentinel, while jobs are enqueued and run: what was acknowledged is there, and runs."""

import json
import threading
import time
from collections import Counter

import pytest

from rqjobs import enqueue
from rqjobs.broker.connection import close_connection, connect
from rqjobs.errors import RedisUnavailable
from rqjobs.monitoring.doctor import server as doctor
from tests.support.processors import ProbeJob
from tests.support.sentinels import sentinels
from tests.support.workers import eventually

DOCUMENTED = "min-replicas-to-write 1\nmin-replicas-max-lag 10"


class Feeder:
    """Enqueues from some threads until it is stopped, as web processes do, and notes what was acknowledged."""

    def __init__(self, job, **options):
        self.acknowledged: list[str] = []
        self.refused = 0
        self._call = lambda: enqueue(job, **options)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(3)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self):
        while not self._stop.wait(0.01):
            try:
                self.acknowledged.append(self._call().id)
            except RedisUnavailable:
                self.refused += 1

    def more(self, count=100):
        """Waits until so many more are acknowledged."""
        before = len(self.acknowledged)
        eventually(lambda: len(self.acknowledged) >= before + count, timeout=90)


@pytest.fixture
def servers(configure, settings):
    with sentinels(DOCUMENTED) as servers:
        configure(REDIS_URL=servers.url)
        yield servers
        close_connection()


def test_doctor_reports_a_configuration_that_loses_jobs_in_a_failover(servers):
    def finding():
        client = connect()
        (found,) = doctor.replicas(client)
        client.close()
        return found

    assert (finding().state, finding().said[:4]) == ("ok", "2 of")
    with servers.client(0) as client:
        client.config_set("min-replicas-to-write", 0)
    assert "accepts jobs" in finding().said
    assert "min-replicas-to-write 1" in finding().fix


@pytest.mark.parametrize("failovers", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_planned_failover_loses_nothing_that_was_acknowledged(servers, failovers):
    with Feeder(ProbeJob(log="-"), delay="1h") as feeder:
        feeder.more()
        for number in range(failovers):
            if number:
                eventually(servers.settled, timeout=90)
                time.sleep(10)  # until the last pause is over
            servers.failover(pause=True)
            feeder.more()
    with servers.client(servers.ports.index(servers.primary())) as client:
        kept = {job_id.decode() for job_id in client.zrange("rq:scheduled:probe", 0, -1)}
    assert len(feeder.acknowledged) >= 100 * (1 + failovers)
    assert set(feeder.acknowledged) <= kept


@pytest.mark.slow
def test_a_worker_continues_at_the_new_primary(servers, workers, tmp_path):
    log = tmp_path / "runs.log"
    log.touch()
    workers.start("probe", REDIS_URL=servers.url)
    with Feeder(ProbeJob(log=str(log))) as feeder:
        eventually(log.read_text)  # the worker runs jobs
        servers.failover(pause=True)
        feeder.more()

    def runs():
        return Counter(json.loads(line)["id"] for line in log.read_text().splitlines())

    eventually(lambda: set(feeder.acknowledged) <= runs().keys(), timeout=90)
