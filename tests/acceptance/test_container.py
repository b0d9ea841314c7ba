"""The commands of the image and of compose.yaml, run here as they stand, without a container around them."""

import json
import os
import re
import signal
import subprocess
import sys

import yaml

from tests.support.servers import Browser, free_port
from tests.support.workers import ROOT, eventually

DEPLOY = ROOT / "deploy"
PASSWORD = "r:e/d@i#s? %"


def test_the_image_s_command_is_healthy_and_stops_politely(workers):
    text = (DEPLOY / "Dockerfile").read_text()
    health, command = (json.loads(words) for words in re.findall(r"CMD (\[.*\])", text))
    port = str(free_port())
    worker = workers.command(*[word.replace("8080", port).replace("0.0.0.0", "127.0.0.1") for word in command])
    check = [sys.executable, "-c", health[2].replace("8080", port)]
    eventually(lambda: subprocess.run(check, check=False, stderr=subprocess.DEVNULL).returncode == 0, every=0.3)
    eventually(lambda: "worker started" in workers.logs())
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert all(json.loads(line)["event"] for line in workers.logs().splitlines())  # --log-format json
    assert subprocess.run(check, check=False, stderr=subprocess.DEVNULL).returncode != 0


class Composed:
    """The services of compose.yaml, with its addresses and folders as they are here."""

    def __init__(self, workers, redis_url, folder):
        self._workers = workers
        self._services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
        self.ports = {"8080": str(free_port()), "9181": str(free_port()), "8000": str(free_port())}
        here = redis_url.replace("://", "://rqjobs@")
        self._here = {"redis://rqjobs@redis:6379/0": here, "0.0.0.0": "127.0.0.1", "/data": str(folder), **self.ports}
        for volume in self._services["web"]["volumes"]:
            source, _, place = volume.partition(":")
            if source.startswith("."):
                self._here[place.partition(":")[0]] = str((DEPLOY / source).resolve())
        self._given = {"RQJOBS_SECRET_KEY": "s" * 40, "POSTGRES_PASSWORD": "p", "DASHBOARD_PASSWORD": "d"}
        self._given["REDIS_PASSWORD"] = PASSWORD

    def redis_user(self):
        """The user that compose's Redis makes, as words of ACL SETUSER."""
        rights = re.search(r"user rqjobs on #%s ([^\\]+)", self._services["redis"]["command"][-1])
        return ["rqjobs", "reset", "on", f">{PASSWORD}", *rights[1].split()]

    def up(self, name):
        """Starts a service; one that ends is waited for."""
        service = self._services[name]
        entrypoint = service.get("entrypoint", ["rqjobs"])
        words = [self._translate(word) for word in [*entrypoint, *service.get("command", [])]]
        wanted = {key: self._translate(value) for key, value in service["environment"].items()}
        wanted |= {"DATABASE_URL": os.environ["DATABASE_URL"]}  # PostgreSQL is another test's
        environment = self._workers.environment(**{**wanted, "PYTHONPATH": f"{wanted['PYTHONPATH']}:{ROOT}"})
        return self._workers.command(*words[1:], program=words[0], **environment)

    def healthy(self, name):
        """Whether its health check says so."""
        check = [self._translate(word) for word in self._services[name]["healthcheck"]["test"][1:]]
        return subprocess.run([sys.executable, *check[1:]], check=False, stderr=subprocess.DEVNULL).returncode == 0

    def _translate(self, text):
        text = re.sub(r"\$\{(\w+)(?::([-?])([^}]*))?\}", self._variable, text)
        there = "|".join(map(re.escape, self._here))
        return re.sub(rf"(?<!\w)(?:{there})(?!\w)", lambda match: self._here[match[0]], text)

    def _variable(self, match):
        name, kind, default = match.groups()
        assert kind != "?" or name in self._given, f"{name} is needed: {default}"
        return self._given.get(name, default if kind == "-" else "")


def test_a_booking_of_the_composed_app_gets_its_receipt(workers, redis, redis_url, tmp_path, request):
    composed = Composed(workers, redis_url, tmp_path)
    redis.execute_command("ACL", "SETUSER", *composed.redis_user())
    request.addfinalizer(lambda: (workers.stop(), redis.execute_command("ACL", "DELUSER", "rqjobs")))
    assert composed.up("tables").wait(60) == 0
    for name in ("web", "worker", "dashboard"):
        composed.up(name)
    for name in ("web", "dashboard"):
        eventually(lambda name=name: composed.healthy(name), every=0.3)
    booked = Browser(f"http://127.0.0.1:{composed.ports['8000']}").post("/bookings", {"id": 4711, "amount": 12.5})
    assert booked.status == 202, booked.text
    eventually(lambda: redis.hget(f"rq:job:{booked.json['receipt']}", "status") == b"finished")
    assert "receipts" in Browser(f"http://127.0.0.1:{composed.ports['8080']}").get("/metrics").text
