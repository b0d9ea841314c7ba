"""The deployment files: their commands parse, their times fit together, nothing runs as root, no secret is in them."""

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from rqjobs.cli import cli

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FILES = [path for path in DEPLOY.rglob("*") if path.is_file() and path.name != "README.md"]
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
RENDER = yaml.safe_load((DEPLOY / "render.yaml").read_text())
FLY = tomllib.loads((DEPLOY / "fly.toml").read_text())
RAILWAY = json.loads((DEPLOY / "railway.json").read_text())
KUBERNETES = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "rqjobs.yaml").read_text()))
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
INSTRUCTIONS = re.findall(r"^([A-Z]+) +((?:.*\\\n)*.*)$", DOCKERFILE, re.MULTILINE)
PODS = [item["spec"]["template"]["spec"] for item in KUBERNETES if "template" in item.get("spec", {})]


def unit(name):
    text = (DEPLOY / "systemd" / name).read_text()
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def commands():
    """Every command of rqjobs in every file, as words after ``rqjobs``."""
    procfile = re.sub(r"\$\{PORT:-(\d+)\}", r"\1", (ROOT / "Procfile").read_text())
    found = [("Procfile", shlex.split(words)) for words in re.findall(r": rqjobs (.*)", procfile)]
    found += [("Dockerfile", json.loads(words)) for name, words in INSTRUCTIONS if name == "CMD"]
    found += [(f"compose {name}", service["command"]) for name, service in COMPOSE.items()
              if service["image"] == "rqjobs" and service["command"]]  # fmt: skip
    found += [("render", shlex.split(item[key])[1:]) for item in RENDER["services"]
              for key in ("dockerCommand", "preDeployCommand") if key in item]  # fmt: skip
    found += [("fly", shlex.split(words)) for words in [*FLY["processes"].values(), FLY["deploy"]["release_command"]]]
    found += [("railway", shlex.split(words)[1:])
              for words in [RAILWAY["deploy"]["startCommand"], *RAILWAY["deploy"]["preDeployCommand"]]]  # fmt: skip
    found += [("kubernetes", container["args"]) for pod in PODS for container in pod["containers"]]
    found += [("systemd", shlex.split(unit(path.name)["ExecStart"])[1:]) for path in (DEPLOY / "systemd").iterdir()]
    pm2 = (DEPLOY / "ecosystem.config.cjs").read_text()
    return found + [("pm2", shlex.split(words)) for words in re.findall(r'args: "(.*)"', pm2)]


@pytest.mark.parametrize(
    ("where", "words"), commands(), ids=lambda value: " ".join(value) if isinstance(value, list) else value
)
def test_every_command_parses(where, words):
    group = cli
    while hasattr(group, "get_command"):
        name, *words = words
        group = group.get_command(None, name)
        assert group, name
    group.make_context(group.name, list(words))


def test_a_stop_lasts_longer_than_the_grace_of_the_worker():
    def grace(words):
        return float(words[words.index("--grace") + 1]) if "--grace" in words else 25

    worker = next(pod for pod in PODS if pod["containers"][0]["name"] == "worker")
    systemd = unit("rqjobs-worker.service")
    stops = {
        "compose": (COMPOSE["worker"]["stop_grace_period"].rstrip("s"), COMPOSE["worker"]["command"]),
        "render": (RENDER["services"][1]["maxShutdownDelaySeconds"], RENDER["services"][1]["dockerCommand"].split()),
        "fly": (FLY["kill_timeout"].rstrip("s"), FLY["processes"]["worker"].split()),
        "railway": (RAILWAY["deploy"]["drainingSeconds"], RAILWAY["deploy"]["startCommand"].split()),
        "kubernetes": (worker["terminationGracePeriodSeconds"], worker["containers"][0]["args"]),
        "systemd": (systemd["TimeoutStopSec"], systemd["ExecStart"].split()),
    }
    for where, (stop, words) in stops.items():
        assert float(stop) >= grace(words) + 10, where


def test_no_secret_is_in_a_file():
    for path in FILES:
        for line in path.read_text().splitlines():
            assert not re.search(r"(whsec_|SECRET_KEY\s*[=:]\s*[A-Za-z0-9]|PASSWORD\s*[=:]\s*[A-Za-z0-9])", line), path


def test_the_dockerfile_keeps_the_rules():
    names = [name for name, _ in INSTRUCTIONS]
    assert "ADD" not in names
    assert all(":" in image.split()[0] and "latest" not in image for name, image in INSTRUCTIONS if name == "FROM")
    last = names[len(names) - names[::-1].index("FROM") :]
    assert {"USER", "HEALTHCHECK", "STOPSIGNAL", "ENTRYPOINT"} <= set(last)
    user = next(value for name, value in INSTRUCTIONS if name == "USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)  # a number, so that Kubernetes can see that it is not root
    assert all(json.loads(value) for name, value in INSTRUCTIONS if name in ("ENTRYPOINT", "CMD"))  # exec form
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    for name, words in INSTRUCTIONS:
        if name == "COPY" and "--from" not in words:
            for source in words.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in ignored


def test_compose_waits_for_its_dependencies():
    for name, service in COMPOSE.items():
        assert "healthcheck" in service or name == "worker", name  # the worker has the image's
        assert "latest" not in service["image"]
        assert all(needed in COMPOSE for needed in service.get("depends_on", {}))
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))
    assert "--maxmemory-policy noeviction" in COMPOSE["redis"]["command"][-1]


def test_kubernetes_pods_are_closed_and_probed():
    for item in KUBERNETES:
        assert {"apiVersion", "kind", "metadata", "data" if item["kind"] == "ConfigMap" else "spec"} <= set(item)
    for pod in PODS:
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
            }  # fmt: skip
            assert container["resources"]["limits"]["memory"]
            assert {mount["name"] for mount in container["volumeMounts"]} == {
                volume["name"] for volume in pod["volumes"]
            }
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
                check = container.get(probe, {})
                assert {kind["port"] for kind in check.values() if isinstance(kind, dict)} <= ports
    for item in KUBERNETES:
        if item["kind"] == "Deployment":
            labels = item["spec"]["template"]["metadata"]["labels"]
            assert item["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_render_and_fly_refer_to_existing_files_and_commands():
    names = {item["name"] for item in RENDER["services"]} | {item["name"] for item in RENDER["databases"]}
    for service in RENDER["services"]:
        assert service["type"] in ("keyvalue", "worker", "web", "pserv", "cron")
        for variable in service.get("envVars", []):
            source = variable.get("fromService") or variable.get("fromDatabase")
            assert source is None or source["name"] in names
    processes = set(FLY["processes"])
    assert set(FLY["http_service"]["processes"]) <= processes
    assert set(FLY["checks"]["ready"]["processes"]) <= processes
    assert (DEPLOY / FLY["build"]["dockerfile"]).exists()
    assert (ROOT / RAILWAY["build"]["dockerfilePath"]).exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here")
@pytest.mark.parametrize("name", ["rqjobs-worker.service", "rqjobs-dashboard.service"])
def test_systemd_accepts_the_units(name, tmp_path):
    text = (DEPLOY / "systemd" / name).read_text().replace("/opt/rqjobs/bin/rqjobs", shutil.which("true"))
    (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / name], capture_output=True, text=True, check=False
    )
    faults = [line for line in done.stderr.splitlines() if name in line]
    assert (done.returncode, faults) == (0, []), done.stderr


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed here")
def test_node_loads_the_pm2_file():
    program = f"console.log(JSON.stringify(require({json.dumps(str(DEPLOY / 'ecosystem.config.cjs'))})))"
    done = subprocess.run(["node", "-e", program], capture_output=True, text=True, check=True)
    for app in json.loads(done.stdout)["apps"]:
        assert (app["script"], app["interpreter"]) == ("rqjobs", "none")
    assert json.loads(done.stdout)["apps"][0]["kill_timeout"] >= 35_000
