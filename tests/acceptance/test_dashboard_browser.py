"""The dashboard in a real Chromium, over a real server and a real worker."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py
from playwright.sync_api import Browser, Page, expect

from rqjobs import WebhookJob, enqueue, enqueue_many
from rqjobs.broker.rq_schema import job_key
from tests.support.dashboard import pages, wrong_pages
from tests.support.hostile import CORPUS, MARK, kill, plant
from tests.support.processors import ProbeJob
from tests.support.servers import free_port
from tests.support.workers import Workers, eventually

pytestmark = pytest.mark.browser


@pytest.fixture
def url(workers: Workers, redis: redis_py.Redis) -> str:
    port = str(free_port())
    workers.command("dashboard", "--port", port, DASHBOARD_PASSWORD="correct horse")
    eventually(lambda: "dashboard: http" in workers.logs())
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    context = browser.new_context(base_url=url)
    context.set_default_timeout(120_000)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.goto("/")
    page.get_by_label("User name").fill("admin")
    page.get_by_label("Password").fill("correct horse")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("link", name="Dead letters").first).to_be_visible()
    yield page
    context.close()
    # What the page's policy refuses is said on the console: nothing hostile may come even that far.
    assert [fault for fault in faults if "Failed to load resource" not in fault] == []


def probe(tmp_path: Path, **fields: object) -> ProbeJob:
    return ProbeJob(log=str(tmp_path / "log"), **fields)


def test_a_night_shift(page: Page, workers: Workers, redis: redis_py.Redis, tmp_path: Path) -> None:
    row = page.locator("tr", has=page.get_by_role("link", name="probe", exact=True))
    waiting, delayed_to_done = row.locator("td").nth(0), row.locator("td").nth(4)

    # The numbers move without a reload.
    enqueue_many([probe(tmp_path) for _ in range(3)])
    expect(waiting).to_have_text("3")

    # A pause holds them back even from a worker.
    row.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("status")).to_contain_text("probe is paused")
    workers.start("probe")
    eventually(lambda: "worker started" in workers.logs())
    expect(row).to_contain_text("paused")
    row.get_by_role("button", name="Resume").click()
    expect(waiting).to_have_text("0")
    expect(delayed_to_done).to_have_text("3")

    # A job that dies shows each of its attempts.
    job = enqueue(probe(tmp_path, fail_times=9), attempts=2, backoff="fixed:0s")
    eventually(lambda: redis.hget(job_key(job.id), "status") == b"failed")
    page.goto(f"/jobs/{job.id}")
    expect(page.locator(".attempts > li")).to_have_count(2)
    expect(page.locator(".attempts > li").first).to_contain_text("2. failed")

    # Its payload is mended, and it runs.
    page.get_by_role("link", name="Edit and run again").click()
    editor = page.get_by_role("textbox", name=re.compile("fields"))
    editor.fill(editor.input_value().replace('"fail_times": 9', "oops"))
    page.get_by_role("button", name="Save and run again").click()
    expect(page.get_by_role("alert")).to_contain_text("not JSON")
    editor.fill(editor.input_value().replace("oops", '"fail_times": 0'))
    page.get_by_role("button", name="Save and run again").click()
    expect(page.locator(".tag").first).to_have_text("done")

    # One that runs away is stopped.
    page.on("dialog", lambda dialog: dialog.accept())
    endless = enqueue(probe(tmp_path, do="spin"), timeout="300s")
    eventually(lambda: redis.hget(job_key(endless.id), "status") == b"started")
    page.goto(f"/jobs/{endless.id}")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".tag").first).to_have_text("dead")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("status")).to_contain_text("was deleted")

    # A group is run again: one canary first, then the others.
    for dead in enqueue_many([probe(tmp_path) for _ in range(6)], delay="1h"):
        redis.zrem("rq:scheduled:probe", dead.id)
        kill(dead.id, "probe", "ConnectionError: the other side is down", redis)
    page.goto("/dead/")
    page.get_by_role("link", name="ConnectionError: the other side is down").click()
    page.get_by_label("Then, jobs a second").fill("50")
    page.get_by_role("button", name="Dry run").click()
    expect(page.locator("main")).to_contain_text("6 jobs belong to this group")
    page.go_back()
    page.get_by_role("button", name="Run again").click()
    expect(page.locator("main")).to_contain_text("6 jobs were requeued")
    page.goto("/dead/")
    expect(page.locator("main")).to_contain_text("No dead letters")

    # And the same figures under /rq.
    page.goto("/rq/")
    expect(page.get_by_role("row", name=re.compile("^probe"))).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()


def whole_pages(ids: dict[str, str], page: Page) -> list[str]:
    """Every page that shows something of the planted jobs, without those that are parts of others."""
    page.goto("/dead/")
    paths = [path for path in pages(ids, page.content()) if not path.endswith("/live")]
    assert any("/groups/" in path for path in paths)
    return paths


SHOWN = """(texts) => {
    const fields = [...document.querySelectorAll("input, textarea")].map((each) => each.value);
    const closed = [...document.querySelectorAll("details")].map((each) => each.textContent);
    const seen = [document.title, document.body.innerText, ...fields, ...closed].join("\\n");
    return texts.filter((text) => seen.includes(text)).length;
}"""
"""How many of the texts a page shows, in its title, its text, its fields, or what opens at a click."""

SILENT = re.compile(r"/queues/webhooks\?state=(running|delayed)|/rq/0/view/jobs/webhooks/"
                    r"(started|rate_limited|scheduled|deferred|canceled)/")  # fmt: skip
"""Pages of registries in which nothing hostile is planted."""


def look(page: Page, path: str) -> int:
    """Opens the page; fails if something on it has run, or has become an element; how many of the texts it shows."""
    page.goto(path)
    if path.startswith("/rq/0/view/job/"):
        page.locator("#facts > *").first.wait_for(state="attached")
    elif path.startswith("/rq/"):
        page.locator("#rows > *").first.wait_for(state="attached")
        assert page.locator("#rows").inner_text(), path
    shown = page.evaluate(SHOWN, list(CORPUS))
    assert page.evaluate(f"window.{MARK}") is None, path
    assert page.locator("iframe, img[src='x'], svg[onload], [ontoggle], [onerror]").count() == 0, path
    return int(shown)


def fields(ids: dict[str, str]) -> dict[str, dict[str, str]]:
    """By page the places, as CSS, at which a stranger's text stands, and what they show of it."""
    script, image, svg = CORPUS[0], CORPUS[1], CORPUS[2]
    return {
        "/": {".troubles p": script, "td[data-label=State]": script, "th code": image[:12], "th small": script,
              "th.dest": script, ".flash[role=alert]": svg},
        f"/jobs/{ids['dead']}": {"h1": script, ".card:not(.grid2 *) pre": script, ".grid2 pre": script,
                                 "p.error-line": script, "details pre": script},
        f"/jobs/{ids['waiting']}": {"h1": script, "dt:text-is('Group') + dd": image,
                                    "h3:text-is('Progress') ~ p": script},
        f"/jobs/{ids['plain']}": {"h1": script, "pre": script, "dd code": script},
        f"/jobs/{ids['done']}": {"h3:text-is('Result') + pre": script},
        f"/jobs/{ids['dead']}/edit": {".error-line": script, ".head p": script},
        "/dead/": {"th.error-line": script, "section:last-of-type": script},
        f"/dead/repairs/{ids['repair']}": {"p.error-line": script, "dd code": script, "dl ~ p": script},
        "/queues/webhooks?state=dead": {"th a": script, "small.error-line": script, ".troubles p": script},
        "/webhooks/": {"th.dest a": script, "th.dest small": svg, "td[data-label=Events]": script, "td.dest": script,
                       "th[scope=row] > a": script, "small.error-line": script, "details pre": script},
        "/webhooks/deliveries/j1": {"h1": script, "td.error-line": script, "td pre": script, ".card > pre": script},
        "/batches/": {"th a": script},
        f"/batches/{ids['batch']}": {"h1": script, "dt": script, "dd": script},
        "/exports/": {"th a": script, "td[data-label=User]": script},
        "/analytics/": {".shares th a": script, "th[scope=row]:text('validation')": script},
        "/rq/0/view/workers": {"#rows td": script},
        f"/rq/0/view/job/{ids['plain']}": {"#label": script, "#metadata": script},
        f"/rq/0/view/job/{ids['done']}": {"#result": script},
    }  # fmt: skip


def test_pages_run_no_text_of_jobs(page: Page, redis: redis_py.Redis, capsys: pytest.CaptureFixture[str]) -> None:
    ids = plant(redis)
    page.on("dialog", lambda dialog: pytest.fail(f"a job opened a dialog: {dialog.message}"))
    places, found, missing = fields(ids), {}, []
    paths = whole_pages(ids, page)
    assert set(places) <= set(paths)
    for path in paths:
        found[path] = look(page, path)
        missing += [
            (path, place)
            for place, text in places.get(path, {}).items()
            if not any(text in each for each in page.locator(place).all_text_contents())
        ]
    with capsys.disabled():
        print(
            f"\nhostile texts: {sum(found.values())} shown on {sum(map(bool, found.values()))} pages, "
            f"{sum(map(len, places.values()))} fields looked at, none ran"
        )
    assert missing == [], "a field does not show what is planted in it"
    assert [path for path, shown in found.items() if not shown and not SILENT.search(path)] == []
    page.goto("/webhooks/")
    page.get_by_role("button", name="Enable").first.click()
    expect(page.get_by_role("status")).to_contain_text(CORPUS[0])
    assert page.evaluate(f"window.{MARK}") is None
    page.goto("/")
    page.wait_for_timeout(2300)  # the live part has been redrawn once
    assert page.evaluate(f"window.{MARK}") is None


def test_pages_run_no_text_of_their_url(page: Page) -> None:
    page.on("dialog", lambda dialog: pytest.fail(f"a page opened a dialog: {dialog.message}"))
    shown = 0
    for path in wrong_pages():
        page.goto(path)
        shown += page.evaluate(SHOWN, list(CORPUS))
        assert page.evaluate(f"window.{MARK}") is None, path
        assert page.locator("iframe, img[src='x'], svg[onload], [ontoggle], [onerror]").count() == 0, path
    assert shown > 5
    page.goto("/")
    for text in CORPUS:
        search = page.get_by_role("searchbox").first
        search.fill(text)
        search.press("Enter")
        expect(page.get_by_role("searchbox").nth(1)).to_have_value(text.strip())
        assert page.evaluate(f"window.{MARK}") is None, text


def test_outdated_numbers_are_marked_as_outdated(page: Page, redis: redis_py.Redis) -> None:
    enqueue(WebhookJob(webhook_id="w", event="a.b", url="https://a.example/", payload={}))
    for path in ("/", "/rq/"):
        page.goto(path)
        banner = page.get_by_role("alert")
        expect(banner).to_be_hidden()
        page.context.set_offline(True)
        expect(banner).to_contain_text("The dashboard does not answer. What you see is")
        page.context.set_offline(False)
        expect(banner).to_be_hidden()
    page.route("**/live", lambda route: route.fulfill(status=503))
    page.goto("/")
    expect(banner).to_contain_text("Redis does not answer")


def test_no_page_is_wider_than_its_window(page: Page, redis: redis_py.Redis) -> None:
    ids = plant(redis)
    for path in whole_pages(ids, page):
        for width in (1280, 360):
            page.set_viewport_size({"width": width, "height": 800})
            page.goto(path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)


def test_on_a_phone_the_present_page_is_in_sight_among_the_others(page: Page) -> None:
    page.set_viewport_size({"width": 375, "height": 800})
    for name in ("Overview", "Exports", "Analytics"):
        page.get_by_role("link", name=name, exact=True).click()
        expect(page.locator(".top nav [aria-current]")).to_have_text(name)
        expect(page.locator(".top nav [aria-current]")).to_be_in_viewport(ratio=1)
