"""The analytics page in a real browser: drawn to scale, readable on a phone, nothing loaded from elsewhere."""

import re
import threading
from datetime import UTC, datetime

import pytest
from werkzeug.serving import make_server

from rqjobs.config.settings import use_settings
from rqjobs.processors.analytics import record_batch, report
from rqjobs.web import create_app
from tests.support.scans import attempts, scans

PERIOD = {"since": "2026-03-01", "until": "2026-03-14", "zone": "Europe/Berlin"}

pytestmark = [
    pytest.mark.browser,
    # Werkzeug's server leaves the file open when the browser drops its request, as it does on its way to another page.
    pytest.mark.filterwarnings("ignore:unclosed file .*/web/static/:ResourceWarning"),
]


@pytest.fixture
def address(redis, monkeypatch):
    record_batch(attempts(scans(600, datetime(2026, 2, 25, tzinfo=UTC), 18)))
    monkeypatch.setenv("DASHBOARD_PASSWORD", "x")
    use_settings(None)
    server = make_server("127.0.0.1", 0, create_app(), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_page_in_a_browser(address, browser):
    found = report(**PERIOD)
    for width, scheme in ((1280, "light"), (390, "dark")):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.set_default_timeout(120_000)
        faults, elsewhere = [], []
        page.on("console", lambda message, faults=faults: faults.append(message.text))
        page.on("pageerror", lambda error, faults=faults: faults.append(str(error)))
        page.on(
            "request",
            lambda request, seen=elsewhere: None if request.url.startswith(address) else seen.append(request.url),
        )
        page.goto(f"{address}/login")
        page.fill("[name=username]", "admin")
        page.fill("[name=password]", "x")
        page.click("main button")
        page.goto(f"{address}/analytics/?" + "&".join(f"{name}={value}" for name, value in PERIOD.items()))
        assert page.locator(".figures b").first.inner_text() == f"{found.totals.scans:,}"
        check_bars(page, found)
        check_shares(page, found)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert (faults, elsewhere) == ([], [])
        page.close()


def check_bars(page, found):
    """The bars' heights are in proportion to the days' scans."""
    path = page.locator(".series path.c-done").get_attribute("d")
    heights = [float(height) for height in re.findall(r"v-([\d.]+)h", path)]
    top = float(page.locator(".series .top-axis").inner_text().replace(",", ""))
    days = [point.scans for point in found.series if point.scans]
    assert heights == pytest.approx([scans / top * 120 for scans in days], abs=0.1)
    box = page.locator(".series svg").bounding_box()
    assert box["height"] > 100
    assert page.locator(".series path.c-done").bounding_box()["height"] == pytest.approx(
        max(days) / top * box["height"], rel=0.05
    )


def check_shares(page, found):
    """The devices' bars are as wide as their shares."""
    card = page.locator("section.card", has=page.get_by_role("heading", name="Devices"))
    assert card.locator("th[scope=row]").all_inner_texts() == [share.name for share in found.devices]
    whole = card.locator(".bar-all").first.bounding_box()["width"]
    widths = [card.locator(".bar-part").nth(index).bounding_box()["width"] for index in range(len(found.devices))]
    assert widths == pytest.approx([share.share * whole for share in found.devices], abs=1.5)
