"""The download page and ``rqjobs exports``: the owner gets the file, everybody else learns nothing."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from flask import Flask, request

from rqjobs.attempt import Attempt
from rqjobs.broker.job_records import describe_progress as describe
from rqjobs.cli import cli
from rqjobs.cli.exports import size
from rqjobs.cli.progress import bar
from rqjobs.config.settings import use_settings
from rqjobs.database import get_engine
from rqjobs.jobs import DataExportJob
from rqjobs.processors.export import export, find
from rqjobs.web.downloads import downloads
from tests.support import apptables


@pytest.fixture
def done(settings):
    apptables.make(get_engine())
    apptables.add_contacts(get_engine(), 20)
    job = DataExportJob(user_id="user_1", export_type="csv", data_type="contacts")
    return export(job, Attempt(job_id="job-1", queue="data-export"))


@pytest.fixture
def web(monkeypatch):
    app = Flask("app")
    app.register_blueprint(downloads(lambda: request.headers.get("X-User")), url_prefix="/exports")
    return app.test_client()


def test_the_owner_downloads_the_file(done, web):
    response = web.get(done["url"], headers={"X-User": "user_1"}, buffered=True)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert response.headers["Content-Disposition"] == f"attachment; filename={done['file_name']}"
    assert response.headers["Cache-Control"] == "private, no-store"
    assert len(response.data.decode("utf-8-sig").splitlines()) == 21
    assert len(response.data) == done["bytes"]
    part = web.get(done["url"], headers={"X-User": "user_1", "Range": "bytes=3-9"}, buffered=True)
    assert (part.status_code, part.data) == (206, response.data[3:10])


def test_only_the_owner_gets_the_file(done, web):
    for headers in ({}, {"X-User": "user_2"}):
        response = web.get(done["url"], headers=headers)
        assert response.status_code == 404
        assert b"not yours" in response.data
    for url in (done["url"] + "x", "/exports/job-1", "/exports/..%2f..%2fetc%2fpasswd"):
        assert web.get(url, headers={"X-User": "user_1"}, buffered=True).status_code == 404


def test_a_deleted_file_returns_410(done, web):
    record = find("job-1")
    from pathlib import Path

    (Path(record.location) / record.file_name).unlink()
    assert web.get(done["url"], headers={"X-User": "user_1"}, buffered=True).status_code == 410


def test_a_store_without_folders_streams(settings, web, monkeypatch):
    monkeypatch.setenv("EXPORT_URL", "memory://downloads")
    use_settings(None)
    apptables.make(get_engine())
    apptables.add_contacts(get_engine(), 3)
    job = DataExportJob(user_id="user_1", export_type="json", data_type="contacts")
    result = export(job, Attempt(job_id="far", queue="data-export"))
    assert len(web.get(result["url"], headers={"X-User": "user_1"}, buffered=True).json) == 3


def run(*args):
    done = CliRunner().invoke(cli, ["exports", *args])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_the_command_line_lists_links_and_purges(done, web, monkeypatch):
    assert "contacts as csv" in run("list")
    (record,) = json.loads(run("list", "--json"))
    assert (record["id"], record["rows"], record["available"]) == ("job-1", 20, True)
    assert json.loads(run("list", "--user", "user_2", "--json")) == []
    link = json.loads(run("link", "job-1", "--json"))
    assert web.get(link["url"], headers={"X-User": "user_1"}, buffered=True).status_code == 200
    monkeypatch.setenv("EXPORT_LINK_URL", "https://app.example.com/exports/")
    use_settings(None)
    assert run("link", "job-1").startswith("https://app.example.com/exports/")
    assert json.loads(run("purge", "--json")) == {"purged": [], "dry_run": False}
    with pytest.raises(LookupError, match="no export 'nope'"):
        run("link", "nope")


def test_progress_and_sizes_in_words():
    assert describe({"rows": 500, "of": 1200, "percent": 41.7}) == "500 of 1,200 rows, 41.7 %"
    assert describe({"rows": 500}) == "500 rows"
    assert describe({"step": 2}) == "step 2"
    assert describe({"percent": 50, "step": 2}) == "step 2, 50 %"
    assert [bar({"percent": n}).count("#") for n in (0, 41.7, 100.0)] == [0, 12, 30]
    assert bar({"rows": 500}) == ""
    assert [size(n) for n in (0, 999, 1000, 1_234_567, 5e12)] == ["0 B", "999 B", "1.0 kB", "1.2 MB", "5000.0 GB"]
