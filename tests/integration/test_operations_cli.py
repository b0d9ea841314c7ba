"""The commands of operations, as users type them."""

from __future__ import annotations

import itertools
import json
import os
import pty
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import redis as redis_py
from click.testing import CliRunner, Result

from rqjobs import EmailJob, InvalidJob, WebhookJob, enqueue, enqueue_many
from rqjobs.broker.rq_schema import key
from rqjobs.cli import cli, main
from rqjobs.cli.examples import EXAMPLES
from rqjobs.dead_letters import letters as dead_letters
from rqjobs.monitoring.health_server import serve_probes
from rqjobs.monitoring.metrics import BUCKETS, Histogram, Sample, last_hour, record, totals
from tests.support.fleet import worker
from tests.support.hostile import kill
from tests.support.workers import ROOT, Workers, eventually

HOOK = '{"webhookId":"w","event":"e","url":"https://e.example","payload":{}}'


def run(*args: str) -> Result:
    return CliRunner().invoke(cli, args, catch_exceptions=False, standalone_mode=False)


def dead(redis: redis_py.Redis, number: int, error: str = "ValueError: boom", host: str = "a.example") -> list[str]:
    jobs = enqueue_many(
        WebhookJob(webhook_id=f"w{n}", event="a.b", url=f"https://{host}/", payload={}, headers={"X-Key": "hunter2"})
        for n in range(number)
    )
    for job in jobs:
        kill(job.id, job.origin, error, redis)
    return [job.id for job in jobs]


def test_failed_list_limits_and_hides_secrets(redis: redis_py.Redis) -> None:
    dead(redis, 7)
    output = run("failed", "list", "--limit", "3").output
    assert "and 4 more" in output
    found = json.loads(run("failed", "list", "--limit", "3", "--json").output)
    assert len(found) == 3
    assert "hunter2" not in json.dumps(found)
    assert run("failed", "list", "--reason", "nothing like it").output == "no dead letter of 7 has this reason\n"


def test_failed_list_shows_the_number_of_runs(redis: redis_py.Redis) -> None:
    (job,) = enqueue_many([WebhookJob(webhook_id="w", event="a.b", url="https://a.example/", payload={})])
    kill(job.id, job.origin, "the endpoint answered 404", redis, attempts=1)  # which is final: 3 were allowed
    assert [letter["attempts"] for letter in json.loads(run("failed", "list", "--json").output)] == [1]
    assert "attempts 1," in run("jobs", "show", job.id).output


def test_failed_groups_and_their_bulk_requeue(redis: redis_py.Redis) -> None:
    dead(redis, 4)
    dead(redis, 2, "TimeoutError: no answer", "b.example")
    groups = json.loads(run("failed", "groups", "--json").output)
    assert [(group["count"], group["destination"]) for group in groups] == [(4, "a.example"), (2, "b.example")]
    group = groups[1]["group"]
    assert "2 jobs belong to this group" in run("failed", "requeue", "--group", group, "--dry-run").output
    assert "2 jobs were requeued" in run("failed", "requeue", "--group", group, "--rate", "100").output
    assert redis.llen(key("queue", "webhooks")) == 2
    assert "4 jobs were deleted" in run("failed", "purge", "--group", groups[0]["group"]).output
    assert redis.zcard(key("failed", "webhooks")) == 0


def test_a_job_is_run_now_or_deleted(redis: redis_py.Redis) -> None:
    waiting, delayed = (
        enqueue(WebhookJob(webhook_id="w", event="a.b", url="https://a.example/", payload={}), delay=delay)
        for delay in (None, "1h")
    )
    assert run("jobs", "run-now", waiting.id).return_value == 1
    assert run("jobs", "run-now", delayed.id).return_value == 0
    assert redis.zscore(key("scheduled", "webhooks"), delayed.id) <= time.time()
    for job in (waiting, delayed):
        assert run("jobs", "stop", job.id).return_value == 1
        assert run("jobs", "delete", job.id).return_value == 0
    assert redis.keys("rq:job:*") == []


def test_purge_and_requeue_by_reason(redis: redis_py.Redis) -> None:
    kept, gone = dead(redis, 1), dead(redis, 2, "TimeoutError: no answer")
    purged = json.loads(run("failed", "purge", "--reason", "no answer", "--json").output)["purged"]
    assert sorted(purged) == sorted(gone)
    assert json.loads(run("failed", "requeue", "--all", "--json").output)["requeued"] == kept


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    assert "_RQJOBS_COMPLETE" in run("completion", shell).output


def test_bash_completes_commands_and_queues() -> None:
    def complete(words: str, index: int) -> str:
        environment = {"COMP_WORDS": words, "COMP_CWORD": str(index), "_RQJOBS_COMPLETE": "bash_complete"}
        return CliRunner().invoke(cli, [], prog_name="rqjobs", env=environment).output

    assert "doctor" in complete("rqjobs do", 1)
    assert "manychat-sync" in complete("rqjobs pause m", 2)


def every_command(
    command: click.Command = cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[click.Command, tuple[str, ...]]]:
    yield command, path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from every_command(found, (*path, name))


def test_every_command_helps_by_example_and_its_summary_is_not_cut() -> None:
    seen = set()
    for command, path in every_command():
        output = CliRunner().invoke(cli, [*path, "--help"]).output
        _, _, examples = output.partition("Examples:\n")
        assert f"rqjobs {' '.join(path)}".rstrip() in examples, path
        assert not re.search(r"^  \S+ .*\.\.\.$", output, re.MULTILINE), output
        assert all(len(line) <= 100 for line in output.splitlines()), output
        assert isinstance(command, click.Group) or command.help, path
        seen.add(" ".join(path))
    assert set(EXAMPLES) == seen


def test_every_example_is_understood() -> None:
    for path, lines in EXAMPLES.items():
        for line in "\n".join(lines).replace(",\n", ",").splitlines():
            shell = shlex.shlex(line, posix=True, punctuation_chars=True)
            shell.whitespace_split = True
            words = list(itertools.takewhile(lambda word: word not in "|;<>", shell))
            words = [word for word in words if not re.match(r"[A-Z_]+=", word)]
            assert words.pop(0) == "rqjobs", line
            command: click.Command = cli
            context = click.Context(cli, info_name="rqjobs")
            while isinstance(command, click.Group) and words:
                found = command.get_command(context, words.pop(0))
                assert found is not None, line
                command = found
            if not isinstance(command, click.Group):
                command.make_context(path, words, parent=context)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("pause nonsense", "unknown queue 'nonsense'; the queues are webhooks"),
        ("failed groups --queue nonsense", "unknown queue 'nonsense'"),
        ("failed requeue --group nonsense", "no dead job belongs to group 'nonsense'"),
        ("failed purge --group nonsense --dry-run", "no dead job belongs to group 'nonsense'"),
        ("failed requeue --group abc --all", "name the jobs in one way"),
        ("failed purge abc --queue email", "name the jobs in one way"),
        ("failed purge", "name the jobs: ID"),
        ("jobs show nonsense", "no job 'nonsense'"),
        ("health --nonsense", "No such option '--nonsense'; see: rqjobs health --help"),
        ("enqueue webhook " + "[" * 100_000, "not JSON: maximum recursion depth exceeded"),
        (f"enqueue webhook {HOOK} --wait nan", "--wait: nan is not a duration"),
        (f"enqueue webhook {HOOK} --wait 1e400", "--wait: inf is not a duration"),
        (
            f"enqueue webhook {HOOK} --backoff exponential:99999999999999d",
            "backoff: '99999999999999d' is not a duration",
        ),
        ("nonsense", "No such command 'nonsense'; see: rqjobs --help"),
    ],
)
def test_a_mistake_is_one_plain_line(
    redis: redis_py.Redis, capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    output = capsys.readouterr()
    assert (ended.value.code, output.out) == (2, "")
    assert output.err.count("\n") == 1
    assert output.err.startswith("error: ")
    assert said in output.err
    assert not redis.keys("rq:job:*")


def test_the_probes_of_a_worker(redis: redis_py.Redis) -> None:
    for name, slots in (("w1", '{"email": 10, "webhooks": 200}'), ("w2", '{"email": 5}'), ("w3", "[1]")):
        worker(redis, name, rqjobs_slots=slots)
    server = serve_probes(0)
    try:

        def get(path: str) -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{path}") as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()

        assert get("/ready")[0] == 200
        assert json.loads(get("/health")[1])["healthy"] is True
        assert 'rqjobs_worker_slots{queue="email"} 15.0' in get("/metrics")[1]
        assert get("/other")[0] == 404
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("file", ["grafana.json", "prometheus-rules.yaml"])
def test_dashboards_and_alerts_use_existing_metrics(redis: redis_py.Redis, file: str) -> None:
    from rqjobs.monitoring.prometheus import render

    record([Sample("webhooks", "done", 0.1, 0.1)], redis)
    worker(redis, rqjobs_slots='{"webhooks": 200}')
    known = set(re.findall(r"^(rqjobs_\w+)", render(redis).decode(), re.MULTILINE))
    text = (ROOT / "deploy" / file).read_text()
    asked = set(re.findall(r"rqjobs_\w+", " ".join(re.findall(r'expr"?: (.*)', text))))
    assert len(asked) > 3
    assert asked <= known


def test_figures_add_up_over_processes_and_minutes(redis: redis_py.Redis) -> None:
    now = 1_000_000 * 60.0
    record([Sample("webhooks:high", "done", 0.2, 0.01), Sample("webhooks", "retried", 3, 1)], redis, now=now)
    record([Sample("webhooks:low", "dead", 500_000, None)], redis, now=now - 59 * 60)
    record([Sample("email", "done", 1, 0)], redis, now=now - 60 * 60)
    hour = last_hour(redis, now=now)
    assert len(hour) == 60
    assert hour[-1]["webhooks"].outcomes == {"done": 1, "retried": 1}
    assert hour[0]["webhooks"].durations.counts[len(BUCKETS)] == 1
    assert not any("email" in minute for minute in hour)
    whole = totals(redis)
    assert whole["webhooks"].durations.count == 3
    assert whole["webhooks"].durations.sum == pytest.approx(500_003.2)
    assert whole["email"].waits.count == 1


def test_quantiles() -> None:
    histogram = Histogram()
    assert histogram.quantile(0.5) is None
    histogram.counts[BUCKETS.index(0.1)] = 100
    assert 0.05 < (histogram.quantile(0.5) or 0) < 0.1
    histogram.counts[-1] = 1000
    assert histogram.quantile(0.99) == BUCKETS[-1]


def test_no_quantile_is_longer_than_the_longest(redis: redis_py.Redis) -> None:
    now = 1_000_000 * 60.0
    record([Sample("webhooks", "done", 0.1, float(seconds)) for seconds in range(600, 781)], redis, now=now)
    record([Sample("webhooks", "done", 0.1, 3.0)], redis, now=now)  # of another process: the longest stays
    waits = last_hour(redis, now=now)[-1]["webhooks"].waits
    assert 700 < (waits.quantile(0.95) or 0) <= 780
    assert waits.longest == totals(redis)["webhooks"].waits.longest == 780
    record([Sample("email", "done", 0.1, 100_000.0)], redis, now=now)
    assert (last_hour(redis, now=now)[-1]["email"].waits.quantile(0.95) or 0) <= 100_000


def test_figures_of_earlier_versions_are_read(redis: redis_py.Redis) -> None:
    """Buckets were numbered 0 to 16, up to 3,600 s."""
    old = {"webhooks/done": 4, "webhooks/w13": 2, "webhooks/w14": 1, "webhooks/w16": 1, "webhooks/w+": 5_000_000}
    redis.hset("rqjobs:metrics", mapping=old)
    record([Sample("webhooks", "done", 0.1, 250.0)], redis)
    waits = totals(redis)["webhooks"].waits
    assert {BUCKETS[n] if n < len(BUCKETS) else None: count for n, count in enumerate(waits.counts) if count} == {
        300: 3, 1800: 1, None: 1,
    }  # fmt: skip
    assert waits.sum == 255.0


def test_dev_runs_all_three_and_ends_them(workers: Workers, tmp_path: Path) -> None:
    process = workers.command("dev", "--port", "0")
    eventually(lambda: "worker started" in workers.logs())
    log = workers.logs()
    assert re.search(r"dashboard  http://127\.0\.0\.1:\d+/", log)
    assert "password" in log
    process.terminate()
    try:
        assert process.wait(60) == 0
    except subprocess.TimeoutExpired:
        pytest.fail(workers.logs())
    assert "worker stopped" in workers.logs()


def test_failed_list_goes_through_every_lane(redis: redis_py.Redis) -> None:
    (first,) = dead(redis, 1)
    jobs = enqueue_many(EmailJob(to="a@example.com", subject="s", template="welcome", data={}) for _ in range(8))
    for job in jobs:
        kill(job.id, job.origin, "ValueError: boom", redis)
    found = json.loads(run("failed", "list", "--limit", "50", "--json").output)
    assert {letter["job_id"] for letter in found} == {first, *(job.id for job in jobs)}
    assert "more" not in run("failed", "list", "--limit", "9").output


def test_a_reason_is_searched_in_every_dead_letter(redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "_PAGE", 3)
    (old,) = dead(redis, 1, "ValueError: the old one")
    dead(redis, 10)
    redis.zadd("rq:failed:webhooks", {old: 1})
    assert [letter["job_id"] for letter in json.loads(run("failed", "list", "--reason", "OLD", "--json").output)] == [
        old
    ]


def test_a_mistyped_command_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["heatlh"])
    assert "Did you mean 'health'" in capsys.readouterr().err


def test_pause_and_resume_print_json(redis: redis_py.Redis) -> None:
    assert json.loads(run("pause", "email", "--json").output) == {"queue": "email", "paused": True}
    assert json.loads(run("resume", "email", "--json").output) == {"queue": "email", "paused": False}


def in_terminal(workers: Workers, *args: str, typed: bytes = b"") -> str:
    """What a command prints to stderr whose stdin is a terminal in which ``typed`` is typed."""
    ours, its = pty.openpty()
    os.write(ours, typed)
    command = [str(Path(sys.executable).parent / "rqjobs"), *args]
    done = subprocess.run(
        command, stdin=its, capture_output=True, text=True, timeout=120, check=False, env=workers.environment()
    )
    os.close(ours)
    os.close(its)
    return done.stderr


def test_purge_asks_in_a_terminal_only(redis: redis_py.Redis, workers: Workers) -> None:
    dead(redis, 2)
    assert "Delete 2 dead jobs for good?" in in_terminal(workers, "failed", "purge", "--all", typed=b"n\n")
    assert redis.zcard("rq:failed:webhooks") == 2
    in_terminal(workers, "failed", "purge", "--all", "--yes")
    assert redis.zcard("rq:failed:webhooks") == 0
    dead(redis, 1)
    assert workers.run("failed", "purge", "--all").returncode == 0
    assert redis.zcard("rq:failed:webhooks") == 0


def test_a_waiting_job_has_begun_no_attempt(redis: redis_py.Redis) -> None:
    (job,) = enqueue_many([WebhookJob(webhook_id="w", event="a.b", url="https://a.example/", payload={})])
    assert "attempts 0 of 3" in run("jobs", "show", job.id).output
    redis.hset(f"rq:job:{job.id}", "status", "started")
    assert "attempts 1 of 3" in run("jobs", "show", job.id).output


@pytest.mark.parametrize(("field", "wrong"), [("dataType", "dataType"), ("data_type", "data_type")])
def test_a_fault_names_the_field_as_it_was_written(redis: redis_py.Redis, field: str, wrong: str) -> None:
    camel = field == "dataType"
    job = {"userId" if camel else "user_id": "u", "exportType" if camel else "export_type": "csv", field: "nothing"}
    with pytest.raises(InvalidJob, match=f"'{wrong}': no source"):
        run("enqueue", "data-export", json.dumps(job))
    del job[field]
    with pytest.raises(InvalidJob, match=f"'{wrong}' is missing"):
        run("enqueue", "data-export", json.dumps(job))


def test_errors_of_files_and_imports_are_one_plain_line(workers: Workers, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "broken_app.py").write_text("from json import no_such_name\n")
    done = workers.run("db", "init", DATABASE_URL=f"sqlite:///{tmp_path}/file/x/app.db")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 2)
    assert "cannot be made" in done.stderr
    for module, text in (("broken_app", "cannot import name 'no_such_name'"), ("broken_syntax", "invalid syntax")):
        (tmp_path / "broken_syntax.py").write_text("def :\n")
        done = workers.run("health", RQJOBS_IMPORT=module)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 2
        assert text in done.stderr
        assert module in done.stderr
