"""What several test modules look at: the dashboard; exports of a process that has just begun."""

from __future__ import annotations

import pytest
import redis as redis_py
from flask import Flask
from flask.testing import FlaskClient

from rqjobs.config.settings import use_settings
from rqjobs.processors.export import purging
from rqjobs.web import create_app
from tests.support.dashboard import PASSWORD, sign_in, token_of


@pytest.fixture
def app(redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> Flask:
    monkeypatch.setenv("DASHBOARD_PASSWORD", PASSWORD)
    use_settings(None)
    return create_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return sign_in(app)


@pytest.fixture
def token(client: FlaskClient) -> str:
    return token_of(client.get("/").text)


@pytest.fixture
def nothing_purged_lately(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "_next_look", 0.0)
