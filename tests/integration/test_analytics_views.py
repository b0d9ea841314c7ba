"""The report as the command line and the dashboard show it: the same numbers, faults in one plain line."""

import json
import re
from datetime import UTC, datetime

import pytest

from rqjobs import cli
from rqjobs.processors.analytics import record_batch, report
from rqjobs.settings import use_settings
from rqjobs.web import create_app
from tests.support.scans import attempts, scans

PERIOD = {"since": "2026-03-01", "until": "2026-03-14"}
OPTIONS = ["--since", PERIOD["since"], "--until", PERIOD["until"]]


@pytest.fixture
def counted():
    record_batch(attempts(scans(400, datetime(2026, 2, 25, tzinfo=UTC), 18)))


@pytest.fixture
def client(redis, monkeypatch, counted):
    monkeypatch.setenv("DASHBOARD_PASSWORD", "x")
    use_settings(None)
    client = create_app().test_client()
    token = re.search(r'name="csrf_token" value="([^"]+)"', client.get("/login").text)[1]
    client.post("/login", data={"username": "admin", "password": "x", "csrf_token": token})
    return client


def run(capsys, *args):
    with pytest.raises(SystemExit) as ended:
        cli.main(["analytics", *args])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def test_the_command_line_as_json(counted, capsys):
    code, out, _ = run(capsys, "report", *OPTIONS, "--zone", "Asia/Kolkata", "--json")
    assert code == 0
    assert json.loads(out) == json.loads(json.dumps(report(**PERIOD, zone="Asia/Kolkata").as_dict()))


def test_the_command_line_as_tables(counted, capsys):
    found = report(**PERIOD)
    code, out, _ = run(capsys, "report", *OPTIONS)
    assert code == 0
    assert re.search(rf"^scans +{found.totals.scans} +{found.previous.scans} +[+-]\d+\.\d %", out, re.MULTILINE)
    assert re.search(rf"^Sun 2026-03-01 +{found.series[0].scans} ", out, re.MULTILINE)
    for words in ("Mon  ", "qr_0", "mobile", "Firefox", "Berlin, DE", "validation: valid"):
        assert words in out
    code, out, _ = run(capsys, "report", "--qr-code", "never", *OPTIONS)
    assert (code, "no scans in this period" in out) == (0, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--since", "yesterday"], "'yesterday' is not a day|yesterday is not a day"),
        (["--zone", "Mars"], "unknown time zone 'Mars'"),
        (["--qr-code", "a", "--user", "b"], "not for both"),
        (["--step", "minute"], "minute"),
    ],
)
def test_a_users_mistake_is_one_plain_line(capsys, options, message):
    code, out, err = run(capsys, "report", *options)
    assert (code, out) == (2, "")
    assert re.search(message, err)
    assert "Traceback" not in err


def test_purge(counted, capsys):
    assert run(capsys, "purge", "--older-than", "1d")[1].startswith("deleted 0 rows older than 1d")
    assert run(capsys, "purge", "--older-than", "soon")[0] == 2


def test_the_page_says_what_the_report_says(client):
    found = report(**PERIOD)
    page = client.get("/analytics/", query_string=PERIOD)
    assert page.status_code == 200
    assert f"<b>{found.totals.scans:,}</b>" in page.text
    assert page.text.count('<rect class="tip"') == 14
    assert page.text.count('class="heat"') == sum(scans > 0 for row in found.heatmap for scans in row)
    assert 'aria-current="page">Analytics' in page.text
    assert not re.search(r"<style|style=|<script>|https?://(?!www\.w3\.org)", page.text)
    assert client.get("/analytics/report.json", query_string=PERIOD).json == json.loads(json.dumps(found.as_dict()))


@pytest.mark.parametrize("query", [{"zone": "<script>"}, {"since": "x' OR 1=1"}, {"code": "a", "user": "b"}])
def test_a_question_that_cannot_be_answered_is_shown_with_its_mend(client, query):
    page = client.get("/analytics/", query_string=query)
    assert page.status_code == 422
    assert 'role="alert"' in page.text
    assert "<script>" not in page.text.replace('<script src="', "")
    assert client.get("/analytics/report.json", query_string=query).status_code == 422


def test_hostile_names_stay_text(client):
    hostile = "<img src=x onerror=alert(1)>\"'"
    jobs = scans(3, datetime(2026, 3, 1, tzinfo=UTC), 1, seed=9)
    data = {**jobs[0].data, "eventId": "h", "location": {"country": hostile, "city": hostile}}
    record_batch(attempts([jobs[0].model_copy(update={"qr_code_id": hostile, "event": "scan", "data": data})]))
    for query in (PERIOD, PERIOD | {"code": hostile}):
        page = client.get("/analytics/", query_string=query)
        assert "<img src=x" not in page.text
        assert "&lt;img src=x" in page.text
