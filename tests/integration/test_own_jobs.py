"""Jobs of the app's own: a decorator, and everything that the five have."""

import subprocess
import sys
from pathlib import Path

import pytest

import rqjobs
from rqjobs import InvalidJob, JobFailed, queue_health, wait_for_result
from rqjobs.policies import get_policy, load
from tests.support.ownjobs import Thumbnail, greet, make_thumbnail, write_down
from tests.support.workers import ROOT

IMPORT = {"RQJOBS_IMPORT": "tests.support.ownjobs"}


def test_calling_it_runs_it_here():
    assert write_down.__name__ == "write_down"
    assert write_down({"file": "here.txt"}) == "written"
    assert Path("here.txt").exists()


def test_its_policy_is_in_the_table_and_settings_change_it(monkeypatch):
    policy = get_policy("thumbnails")
    assert (policy.attempts, policy.backoff.waits(3)) == (5, [1.0, 1.0])
    assert load(policy.processor) == make_thumbnail.perform
    assert get_policy("write-down").timeout.total_seconds() == 5


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        ({"image": 3}, "'image': input should be a valid string"),
        ({}, "'image' is missing"),
        ({"image": "a", "width": float("nan")}, "'payload.width': nan is not JSON"),
        ("a.png", "valid dictionary"),
    ],
)
def test_a_wrong_payload_fails_at_the_call(redis, payload, fault):
    with pytest.raises(InvalidJob, match=fault):
        make_thumbnail.enqueue(payload)
    assert redis.keys("*") == []


def test_a_dict_payload_holds_json_only(redis):
    with pytest.raises(InvalidJob, match=r"'payload\.at': a set is not JSON"):
        write_down.enqueue({"at": {1}})


def test_a_worker_runs_them_with_retries(workers, redis):
    good = make_thumbnail.enqueue(Thumbnail(image="a.png"), priority="high")
    flaky = make_thumbnail.enqueue({"image": "flaky.png", "width": 10})
    hello = greet.enqueue({"name": "Ada"})
    bad = write_down.enqueue({"no": "file"}, attempts=1)
    workers.start("thumbnails", "greet", "write-down", **IMPORT)
    assert wait_for_result(good) == {"image": "a.png", "width": 200, "attempt": 1, "of": 5}
    assert wait_for_result(hello) == "hello Ada"
    assert wait_for_result(flaky)["attempt"] == 2
    with pytest.raises(JobFailed, match="KeyError: 'file'"):
        wait_for_result(bad)
    assert next(queue for queue in queue_health() if queue.name == "write-down").failed == 1
    (letter,) = workers.json("failed", "list", **IMPORT)
    assert letter["queue"] == "write-down"


def test_the_command_line_enqueues_them_too(workers, redis):
    done = workers.json("enqueue", "thumbnails", '{"image": "a.png"}', **IMPORT)
    assert done["queue"] == "thumbnails"
    wrong = workers.run("enqueue", "thumbnails", '{"imag": "a.png"}', **IMPORT)
    assert (wrong.returncode, wrong.stderr) == (2, "error: make_thumbnail: 'image' is missing\n")


def test_a_script_of_its_own_registers_under_its_file_s_name(tmp_path):
    script = tmp_path / "shop.py"
    script.write_text(
        "import rqjobs\nfrom rqjobs.policies import get_policy\n"
        "@rqjobs.job()\ndef shine(payload: dict) -> None: ...\n"
        "print(get_policy('shine').processor)\n"
    )
    done = subprocess.run(
        [sys.executable, script], check=False, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.stdout == "shop:shine.perform\n", done.stderr


def test_the_decorator_refuses_invalid_functions_and_options():
    with pytest.raises(ValueError, match="already belongs to"):

        @rqjobs.job(queue="email")
        def steal(payload: dict) -> None: ...

    with pytest.raises(ValueError, match="no such part of a policy: attemps"):

        @rqjobs.job(attemps=3)
        def misspelt(payload: dict) -> None: ...

    with pytest.raises(ValueError, match='timeout: 30000 is a bare number; write "30000s"'):

        @rqjobs.job(timeout=30000)  # type: ignore[typeddict-item]
        def hasty(payload: dict) -> None: ...

    with pytest.raises(ValueError, match="must take its payload"):

        @rqjobs.job()
        def nothing() -> None: ...
