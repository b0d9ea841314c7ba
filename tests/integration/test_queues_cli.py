"""``rqjobs queues``: the policy table with settings applied, and where each value comes from."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from rqjobs.cli import cli
from rqjobs.policies import get_policy, register_queue


def run(*args: str) -> str:
    return CliRunner().invoke(cli, args, catch_exceptions=False, standalone_mode=False).output


@pytest.fixture(autouse=True)
def tuned(configure, only_our_queues: None) -> None:
    configure(RQJOBS_EMAIL_ATTEMPTS="5", RQJOBS_QR_ANALYTICS_RATE="100/s")
    register_queue(replace(get_policy("webhooks"), name="own", kind="own", processor="app:run", attempts=7))


def test_the_table_marks_values_of_settings_and_of_the_app() -> None:
    table = run("queues")
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()[1:7]}
    assert rows["webhooks"] == ["3", "exponential:2s", "30s", "200", "no", "limit"]
    assert rows["data-export"][:4] == ["3", "exponential:2s", "1h", "1"]
    assert rows["email"][0] == "5*"
    assert rows["qr-analytics"][-1] == "100/1s*"
    assert rows["own"][0] == "7+"
    assert "* RQJOBS_EMAIL_ATTEMPTS=5 (without it: 3)" in table
    assert table.index("webhooks:high manychat-sync:high") < table.index("  webhooks manychat-sync")
    assert max(map(len, run("queues").split("lanes")[0].splitlines())) <= 80


def test_the_document_names_the_source_and_the_setting_of_each_value() -> None:
    queues = {queue["name"]: queue for queue in json.loads(run("queues", "--json"))["queues"]}
    email = queues["email"]
    assert (email["attempts"], email["sources"]["attempts"], email["sources"]["timeout"]) == (5, "setting", "default")
    assert email["settings"]["attempts"] == "RQJOBS_EMAIL_ATTEMPTS"
    assert email["lanes"] == ["email:high", "email", "email:low"]
    assert queues["own"]["sources"]["attempts"] == "code"
    assert queues["qr-analytics"]["rate"] == "100/1s"
