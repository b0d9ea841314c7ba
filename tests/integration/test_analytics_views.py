"""The report as the command line and the dashboard show it: the same numbers, faults in one plain line."""

import html
import json
import re
from datetime import UTC, date, datetime

import pytest
from sqlalchemy import update

from rqjobs import cli
from rqjobs.config.settings import use_settings
from rqjobs.database import get_engine
from rqjobs.database.analytics import counts
from rqjobs.processors.analytics import record_batch, report
from rqjobs.web import create_app
from rqjobs.web.analytics import axis_label, label, rounded
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
        (["--qr-code", "a", "--user", "b"], "not both"),
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


def test_the_page_shows_the_numbers_of_the_report(client):
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
def test_an_invalid_report_is_shown_with_the_fix(client, query):
    page = client.get("/analytics/", query_string=query)
    assert page.status_code == 422
    assert 'role="alert"' in page.text
    assert "<script>" not in page.text.replace('<script src="', "")
    assert client.get("/analytics/report.json", query_string=query).status_code == 422


@pytest.mark.parametrize(
    "query", [{"_scheme": "javascript", "_anchor": "\nalert(1)"}, {"endpoint": "x"}, {"_method": "X"}]
)
def test_unknown_arguments_in_the_url_are_ignored(client, query):
    page = client.get("/analytics/", query_string=PERIOD | query)
    assert page.status_code == 200
    links = re.findall(r'href="(/analytics/report.json[^"]*)">The same as JSON', page.text)
    assert client.get(html.unescape(links[0])).json == json.loads(json.dumps(report(**PERIOD).as_dict()))


def test_from_a_wrong_question_the_links_lead_on(client):
    page = client.get("/analytics/", query_string={"zone": "Mars", "code": "a", "user": "b"})
    links = re.findall(r'href="(/analytics/\?[^"]*since=[^"]*)"', page.text)
    assert {client.get(html.unescape(link)).status_code for link in links} == {200}


def test_axes_name_the_year_where_there_are_several():
    def labels(since, until):
        found = report(since=since, until=until)
        return [axis_label(point.start, found) for point in found.series]

    assert labels("2026-12-30", "2027-01-01") == ["30 Dec", "31 Dec", "1 Jan"]
    assert labels("2025-06-01", "2026-06-30")[:2] == ["May 2025", "Jun 2025"]
    assert labels("2024-01-01", "2026-06-30")[-1] == "Jun 2026"
    assert label(date(2026, 11, 23), "week") == "week of 23 Nov 2026"
    assert label(datetime(2026, 11, 7, 9), "hour") == "Sat 7 Nov 09:00"  # noqa: DTZ001  # local


def test_numbers_that_would_break_are_rounded():
    assert [rounded(number) for number in (0, 9_999_999, 10_000_000, 12_345_678, 22_427_160_530)] == [
        "0", "9,999,999", "10 M", "12.35 M", "22.43 bn",
    ]  # fmt: skip
    assert [rounded(number, 100_000) for number in (99_999, 150_000, 1_500_000)] == ["99,999", "150 k", "1.5 M"]


def test_long_names_are_cut_and_large_numbers_rounded_with_all_of_them_when_pointed_at(client):
    name = "n" * 200
    record_batch(attempts([scans(1, datetime(2026, 3, 1, tzinfo=UTC), 1, seed=2)[0].model_copy(
        update={"qr_code_id": name, "event": "scan", "data": {"eventId": "long", "timestamp": "2026-03-02T12:00:00Z"}}
    )]))  # fmt: skip
    with get_engine().begin() as connection:
        connection.execute(
            update(counts).where(counts.c.day == date(2026, 3, 2), counts.c.value == name).values(total=12_345_678)
        )
    page = client.get("/analytics/", query_string={"since": "2026-03-02", "until": "2026-03-02"}).text
    assert f'<th scope="row" title="{name}">' in page
    assert f">{'n' * 57}...</a>" in page
    assert '<td class="n" title="12,345,678">12.35 M</td>' in page


def test_hostile_names_stay_text(client):
    hostile = "<img src=x onerror=alert(1)>\"'"
    jobs = scans(3, datetime(2026, 3, 1, tzinfo=UTC), 1, seed=9)
    data = {**jobs[0].data, "eventId": "h", "location": {"country": hostile, "city": hostile}}
    record_batch(attempts([jobs[0].model_copy(update={"qr_code_id": hostile, "event": "scan", "data": data})]))
    for query in (PERIOD, PERIOD | {"code": hostile}):
        page = client.get("/analytics/", query_string=query)
        assert "<img src=x" not in page.text
        assert "&lt;img src=x" in page.text
