"""Makes docs/pictures/*.png: the dashboard in Debian's Chromium, light and dark, with jobs that really ran.

Run by ``make pictures``. A Redis, a webhook receiver, ManyChat and a mail server run on loopback, as they do for
``rqjobs demo``.
"""  # noqa: INP001

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from rqjobs import DataExportJob, EmailJob, ManyChatSyncJob, QRAnalyticsJob, WebhookJob, enqueue, enqueue_many
from rqjobs.broker.connection import get_connection
from rqjobs.broker.rq_schema import fetch_job
from rqjobs.monitoring.queue_health import pause
from rqjobs.testing.sandbox.world import World, play
from rqjobs.webhooks import add_endpoint

FOLDER = Path(__file__).parent / "pictures"
PASSWORD = "for the pictures only"  # noqa: S105  # of a dashboard on loopback that ends with this script
WIDTH, HEIGHT = 1280, 860


def main() -> None:
    """Starts everything, runs the jobs, and takes each picture twice."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("Debian's chromium is not installed: apt-get install chromium")
    FOLDER.mkdir(exist_ok=True)
    with play() as world, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
        probe.close()
        os.environ |= {"DASHBOARD_PASSWORD": PASSWORD, "RQJOBS_WEBHOOKS_BACKOFF": "fixed:1s"}
        with _program("dashboard", "--port", port), _program("worker"):
            dead_id = _run_jobs(world)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                for scheme in ("light", "dark"):
                    context = browser.new_context(
                        base_url=f"http://127.0.0.1:{port}", color_scheme=scheme,
                        viewport={"width": WIDTH, "height": HEIGHT}, locale="en-GB", timezone_id="UTC",
                    )  # fmt: skip
                    _take_all(context.new_page(), scheme, dead_id)
                browser.close()


@contextmanager
def _program(*words: str) -> Iterator[None]:
    """``rqjobs WORDS`` for as long as the block runs."""
    command = [sys.executable, "-m", "rqjobs", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _run_jobs(world: World) -> str:
    """Jobs of all kinds in all states. Returns the id of one that is dead."""
    for name, path in (("shop", "/ok"), ("crm", "/flaky/1")):
        add_endpoint(name, world.receiver.url + path, events=["booking.*"], secret=world.receiver.secret)

    def hook(path: str, number: int, **fields: str) -> WebhookJob:
        payload = {"booking": number, "guest": "Ada", "api_token": "secret-4711"}
        url = world.receiver.url + path
        return WebhookJob(webhook_id=f"wh_{number % 7}", event="booking.created", url=url, payload=payload, **fields)

    contact = {"email": "ada@example.com", "first_name": "Ada", "add_tags": ["vip"]}
    booking = {"name": "Ada", "service_type": "Consultation", "start_time": "2027-03-01T10:00:00+00:00"}
    mail = EmailJob(to="ada@example.com", subject="Your booking", template="booking-confirmation", data=booking)
    jobs = [hook("/ok", number, endpoint="shop") for number in range(140)]
    jobs += [hook("/flaky/1", number, endpoint="crm") for number in range(6)]
    jobs += [hook("/status/404", number) for number in range(9)]
    jobs += [ManyChatSyncJob(type="contact", action="create", tool_id="shop_1", data=contact)] * 4
    jobs += [mail] * 12
    export = {"user_id": "shop_1", "data_type": "contacts", "filters": {}}
    jobs += [DataExportJob(export_type=kind, **export) for kind in ("csv", "excel")]
    jobs += [QRAnalyticsJob(qr_code_id=f"table-{at % 4}", event="scan", data=_scan(at)) for at in range(1600)]
    jobs += [
        QRAnalyticsJob(qr_code_id="table-1", event="validation", data=_scan(at, "validation"))
        for at in range(1, 400, 20)
    ]
    enqueue_many(jobs)
    dead = enqueue(hook("/status/503", 4711), attempts=3, backoff="fixed:1s")
    enqueue_many([hook("/ok", number) for number in range(5)], delay="2h")
    _until(lambda: fetch_job(dead.id, get_connection()).get_status().value == "failed")
    _until(lambda: not get_connection().llen("rq:queue:qr-analytics"))
    pause("email")
    enqueue_many([mail] * 3)
    time.sleep(4)  # the metrics of a second, and the delivery log
    return dead.id


def _scan(number: int, kind: str = "scan") -> dict[str, str | float]:
    """One event of 1,600, spread over the last thirty days and the hours of the day."""
    hours_ago = (number * 37) % 720 + (number % 5) / 6
    return {
        "event_id": f"{kind}-{number}", "ip": f"192.0.2.{number % 23}", "user_agent": _AGENTS[number % len(_AGENTS)],
        "timestamp": time.time() - 3600 * hours_ago * (hours_ago / 720) ** 0.3,
    }  # fmt: skip


_AGENTS = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Version/17.5 Mobile/15E148",
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 Chrome/125.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/125.0 Safari/537.36",
)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            sys.exit("the jobs of the pictures did not end within two minutes")
        time.sleep(0.2)


def _take_all(page: Page, scheme: str, dead_id: str) -> None:
    page.goto("/")
    page.get_by_label("User name").fill("admin")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Dead letters").first.wait_for()
    page.goto("/dead/")
    group = re.search(r'"(/dead/groups/[^"]+)"', page.content())
    assert group, "there is no group of dead letters"
    addresses = {
        "overview": "/", "dead-letters": "/dead/", "dead-group": group[1], "job": f"/jobs/{dead_id}",
        "webhooks": "/webhooks/", "analytics": "/analytics/?code=table-1",
    }  # fmt: skip
    for name, address in addresses.items():
        page.goto(address)
        path = FOLDER / f"{name}-{scheme}.png"
        page.screenshot(path=path, clip={"x": 0, "y": 0, "width": WIDTH, "height": _height(page)}, full_page=True)
        print(f"{path.relative_to(FOLDER.parent)}: {path.stat().st_size // 1000} kB")


def _height(page: Page) -> int:
    """The pixels that the page fills, up to the height of a window."""
    box = page.locator("main").bounding_box()
    return min(HEIGHT, round(box["y"] + box["height"])) if box else HEIGHT


if __name__ == "__main__":
    main()
