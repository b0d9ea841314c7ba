"""A failover that loses the latest writes: what the worker knows to be done is not run again."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import redis as redis_py

from rqjobs import enqueue_many
from rqjobs.broker.embedded import ensure_server, stop_server
from tests.support.servers import free_port
from tests.support.tasks import Task
from tests.support.workers import Workers, eventually

HOW_MANY = 30


def test_jobs_do_not_run_again_when_a_failover_loses_their_outcomes(tmp_path, configure):
    folder = Path(tempfile.mkdtemp(prefix="rqjobs-failover-"))
    servers = []
    workers = Workers(tmp_path)
    try:
        for name in ("old", "new"):
            (folder / name).mkdir()
            servers.append(redis_py.Redis(unix_socket_path=str(ensure_server(folder / name))))
        old, new = servers
        port = free_port()
        old.config_set("repl-diskless-sync-delay", 0)
        old.config_set("port", port)
        new.replicaof("127.0.0.1", port)
        address = folder / "address.sock"
        address.symlink_to(old.connection_pool.connection_kwargs["path"])
        configure(REDIS_URL=f"unix://{address}")
        eventually(lambda: new.info("replication")["master_link_status"] == "up")
        log, go = tmp_path / "log", tmp_path / "go"
        jobs = [Task(do="wait", mark=str(n), args={"file": str(go)}) for n in range(HOW_MANY)]
        enqueue_many(jobs)
        workers.start("tasks", RQJOBS_IMPORT="tests.support.tasks", TASKS_LOG=str(log))
        eventually(lambda: log.exists() and log.read_text().count("begins") == HOW_MANY)
        eventually(lambda: new.zcard("rq:wip:tasks") == HOW_MANY)
        new.replicaof("NO", "ONE")  # the new primary knows the jobs as running
        go.touch()
        eventually(lambda: old.hget("rqjobs:totals:tasks", "completed") == b"%d" % HOW_MANY)
        address.unlink()
        address.symlink_to(new.connection_pool.connection_kwargs["path"])
        for kind in ("normal", "pubsub"):
            old.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        eventually(lambda: new.hget("rqjobs:totals:tasks", "completed") == b"%d" % HOW_MANY)
        assert log.read_text().count("begins") == HOW_MANY
        assert not new.zcard("rq:wip:tasks")
        assert not new.llen("rq:queue:tasks")
        assert "outcomes written again" in workers.logs()
    finally:
        workers.stop()
        for server in servers:
            server.close()
        for name in ("old", "new"):
            stop_server(folder / name)
        shutil.rmtree(folder, ignore_errors=True)
