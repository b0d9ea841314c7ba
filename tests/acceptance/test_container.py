"""The image's own command and its health check, run here as they stand in the Dockerfile."""

import json
import re
import signal
import subprocess
import sys

from tests.support.servers import free_port
from tests.support.workers import ROOT, eventually


def test_the_image_s_command_is_healthy_and_stops_politely(workers):
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    health, command = (json.loads(words) for words in re.findall(r"CMD (\[.*\])", text))
    port = str(free_port())
    worker = workers.command(*[word.replace("8080", port).replace("0.0.0.0", "127.0.0.1") for word in command])
    check = [sys.executable, "-c", health[2].replace("8080", port)]
    eventually(lambda: subprocess.run(check, check=False, stderr=subprocess.DEVNULL).returncode == 0, every=0.3)
    eventually(lambda: "worker started" in workers.logs())
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert all(json.loads(line)["event"] for line in workers.logs().splitlines())  # --log-format json
    assert subprocess.run(check, check=False, stderr=subprocess.DEVNULL).returncode != 0
