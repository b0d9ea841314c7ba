"""The stores beside rqjobs in compose and Kubernetes: passwords from secrets, closed containers, closed networks."""

import ipaddress
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest
import redis as redis_py
import yaml

from rqjobs.broker.embedded import find_server
from tests.support.workers import ROOT, eventually

DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
RQJOBS = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "rqjobs.yaml").read_text()))
STORES = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "stores.yaml").read_text()))
SETS = {item["metadata"]["name"]: item["spec"]["template"] for item in STORES if item["kind"] == "StatefulSet"}
POLICIES = {item["metadata"]["name"]: item["spec"] for item in RQJOBS + STORES if item["kind"] == "NetworkPolicy"}
HARD = "p@ss:w/rd#?%41 $HOME '\"\\ \u00e4"
STARTS = {
    "compose": COMPOSE["services"]["redis"]["command"],
    "kubernetes": SETS["rqjobs-redis"]["spec"]["containers"][0]["command"],
}
PINNED = r"sha256:[0-9a-f]{64}"


@pytest.mark.parametrize("where", STARTS)
def test_redis_starts_with_one_user_with_a_password_and_least_rights(where, tmp_path):
    (tmp_path / "valkey-server").symlink_to(find_server())
    shell, option, text = STARTS[where]
    text = text.replace("$$", "$") if where == "compose" else text
    text = text.replace("/tmp/", f"{tmp_path}/").replace(
        "--dir /data", f"--dir {tmp_path} --port 0 --unixsocket r.sock"
    )
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "REDIS_PASSWORD": HARD, "HOME": "/"}
    server = subprocess.Popen([shell, option, text], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    try:
        socket = tmp_path / "r.sock"
        eventually(socket.exists)
        client = redis_py.Redis(unix_socket_path=str(socket), username="rqjobs", password=HARD)
        assert client.ping()
        assert client.set("rqjobs:x", "1")
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        for refused in (
            ["FLUSHALL"],
            ["CONFIG", "SET", "dir", "/"],
            ["SET", "other", "1"],
            ["ACL", "LIST"],
            ["KEYS", "*"],
        ):
            with pytest.raises(redis_py.exceptions.NoPermissionError):
                client.execute_command(*refused)
        with pytest.raises(redis_py.exceptions.AuthenticationError):
            redis_py.Redis(unix_socket_path=str(socket)).ping()
        with pytest.raises(redis_py.exceptions.AuthenticationError):
            redis_py.Redis(unix_socket_path=str(socket), username="rqjobs", password="another").ping()
        assert HARD not in (tmp_path / "users.acl").read_text()
        client.close()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)


@pytest.mark.parametrize("where", STARTS)
def test_the_rights_are_those_of_the_documentation(where):
    documented = re.search(r"ACL SETUSER rqjobs on '>\w+' (.+)", (ROOT / "docs" / "deployment.md").read_text())[1]
    assert f"user rqjobs on #%s {documented} +info +config|get\\n" in STARTS[where][2]


def test_no_url_holds_a_password():
    for path in [DEPLOY / "compose.yaml", *(DEPLOY / "kubernetes").iterdir()]:
        urls = re.findall(r"(?:redis|rediss|postgresql)://\S+", path.read_text())
        assert all(re.fullmatch(r"\w+://\w+@[\w-]+(:\d+)?/\w+", url) for url in urls), urls
    for service in COMPOSE["services"].values():
        for name, value in service["environment"].items():
            if "PASSWORD" in name:
                assert re.fullmatch(r"\$\{\w+:\?.+\}", value), f"{name} must be given"
    assert "secret" not in RQJOBS[0]["data"]
    for template in SETS.values():
        for variable in template["spec"]["containers"][0]["env"]:
            assert "PASSWORD" not in variable["name"] or variable["valueFrom"]["secretKeyRef"]["name"] == "rqjobs"


def test_every_service_of_compose_is_closed_and_limited():
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"]), name
        assert service["image"] == "rqjobs" or service["user"] not in ("root", "0"), name
    assert COMPOSE["networks"]["stores"]["internal"] is True
    for name in ("redis", "database"):
        assert COMPOSE["services"][name]["networks"] == ["stores"]
        assert "ports" not in COMPOSE["services"][name]


def test_the_stores_of_kubernetes_are_closed_and_limited():
    for name, template in SETS.items():
        pod, (container,) = template["spec"], template["spec"]["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
        }  # fmt: skip
        assert {"cpu", "memory"} <= set(container["resources"]["limits"])
    for item in RQJOBS:
        if "template" in item.get("spec", {}):
            for container in item["spec"]["template"]["spec"]["containers"]:
                assert {"cpu", "memory"} <= set(container["resources"]["limits"])


def selected(policy, labels):
    return policy["podSelector"]["matchLabels"].items() <= labels.items()


def test_every_pod_is_behind_a_policy_in_both_directions():
    pods = [item["spec"]["template"] for item in RQJOBS + STORES if "template" in item.get("spec", {})]
    assert len(pods) == 5
    for pod in pods:
        labels = pod["metadata"]["labels"]
        types = {kind for policy in POLICIES.values() if selected(policy, labels) for kind in policy["policyTypes"]}
        assert types == {"Ingress", "Egress"}, labels


def allowed(labels, address, port):
    """Whether a pod may connect to an address outside of the cluster."""
    for policy in POLICIES.values():
        for rule in policy.get("egress", []) if selected(policy, labels) else []:
            if port not in [each["port"] for each in rule["ports"]]:
                continue
            blocks = [each["ipBlock"] for each in rule.get("to", []) if "ipBlock" in each]
            for block in blocks:
                network = ipaddress.ip_network(block["cidr"])
                holes = [ipaddress.ip_network(hole) for hole in block["except"]]
                assert all(hole.subnet_of(network) for hole in holes)
                if address in network and not any(address in hole for hole in holes):
                    return True
    return False


def test_workers_reach_the_internet_and_neither_metadata_nor_private_networks():
    worker = {"app.kubernetes.io/name": "rqjobs", "app.kubernetes.io/component": "worker"}
    dashboard = {**worker, "app.kubernetes.io/component": "dashboard"}
    for address in ("93.184.216.34", "2606:2800:220:1::1"):
        assert allowed(worker, ipaddress.ip_address(address), 443)
        assert not allowed(worker, ipaddress.ip_address(address), 22)
        assert not allowed(dashboard, ipaddress.ip_address(address), 443)
    refused = "169.254.169.254 10.1.2.3 172.20.0.1 192.168.1.1 100.64.0.1 127.0.0.1 "
    refused += "fd00:ec2::254 fe80::1 ::1 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1"
    for address in refused.split():
        assert not allowed(worker, ipaddress.ip_address(address), 80), address


@pytest.mark.parametrize("name", ["rqjobs-worker.service", "rqjobs-dashboard.service"])
def test_systemd_units_are_closed_and_limited(name):
    unit = dict(line.split("=", 1) for line in (DEPLOY / "systemd" / name).read_text().splitlines() if "=" in line)
    assert (unit["User"], unit["UMask"], unit["StateDirectoryMode"]) == ("rqjobs", "0077", "0700")
    assert (unit["CapabilityBoundingSet"], unit["AmbientCapabilities"], unit["NoNewPrivileges"]) == ("", "", "yes")
    assert (unit["ProtectSystem"], unit["ProtectHome"], unit["PrivateTmp"]) == ("strict", "yes", "yes")
    assert {"MemoryMax", "TasksMax", "LimitNOFILE", "SystemCallFilter"} <= set(unit)


def fake_docker(folder, script):
    program = folder / "docker"
    program.write_text(f"#!{sys.executable}\n" + textwrap.dedent(script))
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def pin(folder, environment):
    program = [sys.executable, folder / "pin_images.py"]
    return subprocess.run(program, capture_output=True, text=True, check=False, env=environment)


def foreign(folder):
    texts = [
        path.read_text()
        for path in (folder / "Dockerfile", folder / "compose.yaml", *(folder / "kubernetes").iterdir())
    ]
    found = re.findall(r"^\s*(?:FROM|image:) +(\S+)", "\n".join(texts), re.MULTILINE)
    return [name for name in found if name.partition(":")[0] != "rqjobs"]


def test_images_are_pinned_by_digest_and_pinned_again(tmp_path):
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    before = foreign(tmp_path / "deploy")
    assert {name.partition(":")[0] for name in before} == {"python", "valkey/valkey", "postgres"}
    for digit in ("1", "2"):  # the second time the tags name other images
        environment = fake_docker(
            tmp_path,
            f"""
            import hashlib, json, sys
            assert sys.argv[1:-1] == {shlex.split("buildx imagetools inspect --format '{{json .Manifest}}'")}, sys.argv
            assert "@" not in sys.argv[-1]
            print(json.dumps({{"digest": "sha256:" + hashlib.sha256((sys.argv[-1] + "{digit}").encode()).hexdigest()}}))
            """,
        )
        done = pin(tmp_path / "deploy", environment)
        assert done.returncode == 0, done.stderr
        after = foreign(tmp_path / "deploy")
        assert [re.sub(f"@{PINNED}$", "", name) for name in after] == [name.partition("@")[0] for name in before]
        assert all(re.search(f"@{PINNED}$", name) for name in after)
        assert set(done.stdout.split()) == set(after)
    first = yaml.safe_load((tmp_path / "deploy" / "compose.yaml").read_text())["services"]
    assert first["worker"]["image"] == "rqjobs"


def test_a_registry_that_does_not_answer_changes_nothing(tmp_path):
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    environment = fake_docker(
        tmp_path, """
        import sys
        if "python" in sys.argv[-1]:
            print('{"digest": "sha256:' + "0" * 64 + '"}')
        else:
            sys.exit("no such host")
        """,
    )  # fmt: skip
    done = pin(tmp_path / "deploy", environment)
    assert done.returncode == 1
    assert "cannot be read: no such host" in done.stderr
    assert all(
        (tmp_path / "deploy" / name).read_bytes() == (DEPLOY / name).read_bytes()
        for name in ("Dockerfile", "compose.yaml", "kubernetes/stores.yaml")
    )
