"""Exports in S3, spoken by s3fs to moto's server on this machine: published whole, linked, handed over, deleted.

Needs more than the other tests do, 130 MB of it: ``pip install 's3fs' 'moto[s3]' flask-cors``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask, request

from rqjobs.attempt import Attempt
from rqjobs.config.settings import use_settings
from rqjobs.database import get_engine
from rqjobs.jobs import DataExportJob
from rqjobs.processors.export import export, find, purge, purging
from rqjobs.sources import Source, register_source
from rqjobs.web.downloads import downloads
from tests.support import apptables
from tests.support.workers import Workers

pytestmark = pytest.mark.slow


@pytest.fixture
def bucket(settings, monkeypatch):
    """An empty bucket at EXPORT_URL, and s3fs to look into it."""
    hint = "pip install s3fs 'moto[s3]' flask-cors"
    s3fs = pytest.importorskip("s3fs", reason=hint)
    server = pytest.importorskip("moto.server", reason=hint).ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "EXPORT_URL": "s3://bucket/exports",
    }.items():
        monkeypatch.setenv(name, value)
    use_settings(None)
    s3fs.S3FileSystem.clear_instance_cache()
    fetch(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST"))  # one store for the process
    store = s3fs.S3FileSystem(use_listings_cache=False)
    store.mkdir("bucket", region_name="eu-central-1")
    apptables.make(get_engine())
    yield store
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def run(job_id: str = "j", data_type: str = "contacts") -> dict:
    job = DataExportJob(user_id="user_1", export_type="ndjson", data_type=data_type)
    return export(job, Attempt(job_id=job_id, queue="data-export"))


def fetch(url: str | urllib.request.Request) -> tuple[bytes, str]:
    with urllib.request.urlopen(url) as answer:
        return answer.read(), answer.headers["Content-Disposition"]


def keys(store) -> list[str]:
    return [path.removeprefix("bucket/") for path in store.find("bucket")]


def test_a_presigned_link_gives_the_file(bucket):
    apptables.add_contacts(get_engine(), 1000)
    result = run()
    assert keys(bucket) == ["exports/contacts-j.ndjson"]
    content, disposition = fetch(result["url"])
    assert [json.loads(line)["id"] for line in content.splitlines()] == list(range(1, 1001))
    assert disposition == f'attachment; filename="{result["file_name"]}"'
    assert parse_qs(urlsplit(result["url"]).query).keys() >= {"X-Amz-Signature", "X-Amz-Expires"}


def test_a_large_file_goes_up_in_parts(bucket):
    text = "Ω" * 40_000
    register_source(
        Source(name="big", columns=("n", "t"), rows=lambda _user, _filters: ((n, text) for n in range(1500)))
    )
    result = run(data_type="big")
    content, _ = fetch(result["url"])
    assert len(content) == result["bytes"] > 100_000_000  # s3fs sends less in one piece
    assert json.loads(content.splitlines()[-1]) == {"n": 1499, "t": text}
    assert "-" in bucket.info("bucket/exports/big-j.ndjson")["ETag"]  # of several parts


def test_the_page_redirects_only_the_owner_to_the_store(bucket, monkeypatch):
    monkeypatch.setenv("EXPORT_LINK_URL", "http://localhost/exports")
    use_settings(None)
    apptables.add_contacts(get_engine(), 3)
    app = Flask("app")
    app.register_blueprint(downloads(lambda: request.headers.get("X-User")), url_prefix="/exports")
    url = run()["url"]
    answer = app.test_client().get(url, headers={"X-User": "user_1"})
    assert answer.status_code == 302
    assert len(fetch(answer.headers["Location"])[0].splitlines()) == 3
    assert app.test_client().get(url, headers={"X-User": "user_2"}).status_code == 404


def test_the_file_is_deleted_when_its_time_is_over(bucket, monkeypatch):
    apptables.add_contacts(get_engine(), 3)
    run()
    monkeypatch.setenv("EXPORT_KEEP", "0")
    use_settings(None)
    monkeypatch.setattr(purging, "_next_look", 0.0)  # as a minute later
    run("second")  # purges its own at its end, not the one that is kept longer
    assert keys(bucket) == ["exports/contacts-j.ndjson"]
    assert purge() == []
    assert find("second").deleted_at is not None


RUN = """
from rqjobs.attempt import Attempt
from rqjobs.jobs import DataExportJob
from rqjobs.processors.export import export, processor
processor._REPORT_EVERY = 0.0
job = DataExportJob(user_id="user_1", export_type="ndjson", data_type="contacts")
export(job, Attempt(job_id="j", queue="data-export", report=lambda progress: print(progress["rows"], flush=True)))
"""


def test_a_killed_run_shows_nothing_and_the_next_completes(bucket, tmp_path):
    apptables.add_contacts(get_engine(), 20_000)
    environment = Workers(tmp_path).environment(RQJOBS_IMPORT="")
    for rows in (500, 10_000, 19_500):
        process = subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True, env=environment)
        for line in process.stdout:
            if int(line) >= rows:
                break
        else:
            pytest.fail("it ended before it could be killed")
        process.kill()
        process.stdout.close()
        process.wait()
        assert keys(bucket) == []
    assert run()["rows"] == 20_000
    assert len(bucket.cat("bucket/exports/contacts-j.ndjson").splitlines()) == 20_000
    assert list((tmp_path / "data" / "exports-partial").iterdir()) == []
