"""What a framework says reaches the processes that it starts, and modules are found where they lie."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rq import Queue

from rqjobs.config.settings import use_settings
from rqjobs.integrations import bridge, burst
from tests.support.workers import ROOT

APP = """
import rqjobs
from flask import Flask, current_app
from rqjobs.integrations.flask import RQJobs

extension = RQJobs()


@rqjobs.job(queue="greetings")
def greet(payload: dict) -> str:
    return f"hello {payload['name']} from {current_app.config['SHOP']}"


def create_app():
    app = Flask(__name__)
    app.config.update(SHOP="the shop", RQJOBS_CRON_TOKEN="open-sesame-1001")
    extension.init_app(app)
    return app
"""


def run(*command, **environment):
    program = [str(Path(sys.executable).parent / command[0]), *command[1:]]
    done = subprocess.run(
        program, env={**os.environ, **environment}, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def shop(tmp_path, redis):
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "shop.py").write_text(APP)
    return redis


def greeting(name="Ada"):
    run("python", "-c", f"import shop; shop.greet.enqueue({{'name': '{name}'}}, job_id='{name}')", PYTHONPATH="web")


def shown(name="Ada"):
    return run("rqjobs", "jobs", "show", name, PYTHONPATH="web", RQJOBS_IMPORT="shop")


def test_workers_run_jobs_of_flask_in_the_app_in_any_folder(shop):
    greeting()
    run("flask", "--app", "web/shop", "rqjobs", "worker", "--burst", "--processes", "2")
    assert "hello Ada from the shop" in shown()


def test_a_module_in_this_folder_is_found(shop, tmp_path, monkeypatch):
    greeting()
    monkeypatch.chdir(tmp_path / "web")
    log = run("rqjobs", "worker", "--burst", RQJOBS_IMPORT="shop")
    assert "RuntimeError: Working outside of application context" in log  # the job ran; only flask brings the app


def test_doctor_names_the_queue_whose_module_is_not_imported(shop):
    greeting()
    program = [str(Path(sys.executable).parent / "rqjobs"), "doctor"]
    said = subprocess.run(program, capture_output=True, text=True, check=False).stdout
    assert "1 waiting in 'greetings', which no imported module registers" in said


def test_a_burst_inside_the_app_has_its_settings(shop, redis_url, monkeypatch):
    greeting()
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setattr(bridge, "_handed_down", ({}, ""))
    monkeypatch.setenv("PYTHONPATH", "web")
    bridge.use_framework_settings({"REDIS_URL": redis_url}, "shop")
    try:
        status, document = burst.run_burst(30)
    finally:
        use_settings(None)
    assert status == 200, document
    assert Queue("greetings", connection=shop).count == 0


def test_django_s_defaults_give_way_to_the_env_file(redis, tmp_path, monkeypatch):
    monkeypatch.delenv("DATABASE_URL")
    (tmp_path / ".env").write_text(f"DATABASE_URL=sqlite:///{tmp_path}/mine.db\nRQJOBS_IMPORT=mine\n")
    (tmp_path / "mine.py").write_text("print('mine is imported')")
    manage = str(ROOT / "examples" / "django_shop" / "manage.py")
    said = run("python", manage, "rqjobs", "db", "init", PYTHONPATH=str(ROOT))
    assert f"{tmp_path}/mine.db: tables made" in said
    log = run("python", manage, "rqjobs", "worker", "--burst", "--processes", "2", PYTHONPATH=str(ROOT))
    assert log.count("mine is imported") == 3  # here, and in both processes
