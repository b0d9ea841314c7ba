"""The sandbox itself, over plain HTTP: envelope, limits, quirks; and its command."""

import contextlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest

from rqjobs.testing.sandbox import manychat, manychat_account
from rqjobs.testing.sandbox.manychat import ManyChatSandbox
from tests.support.servers import free_port


@pytest.fixture
def call():
    with ManyChatSandbox(["7:secret"]) as api:

        def request(path, body=None, token="7:secret"):
            data = None if body is None else json.dumps(body).encode()
            asked = urllib.request.Request(f"{api.url}/fb/{path}", data, {"Authorization": f"Bearer {token}"})
            try:
                with urllib.request.urlopen(asked) as answer:
                    return answer.status, json.load(answer)
            except urllib.error.HTTPError as error:
                with error:
                    text = error.read()
                return error.code, json.loads(text) if text[:1] == b"{" else text

        yield request


def test_envelope_and_errors_are_the_apis(call):
    assert call("page/getInfo")[1]["data"]["id"] == 7
    assert call("page/getInfo", token="7:wrong") == (401, {"status": "error", "message": "Wrong token"})
    assert call("page/createTag", {"name": "vip"})[1]["data"]["tag"]["name"] == "vip"
    exists = [{"message": "Tag with specified name already exists"}]
    assert call("page/createTag", {"name": "VIP"})[1]["details"]["messages"] == exists
    status, page = call("page/renameTag", {})
    assert status == 404
    assert len(page) > 38_000


def test_contacts_have_the_apis_quirks(call):
    for lacking in ({"first_name": "A"}, {"email": "a@b.example"}, {"phone": "+14155550123"}, {"whatsapp_phone": "12"},
                    {"phone": "+14155550123", "has_opt_in_sms": True}):  # fmt: skip
        assert call("subscriber/createSubscriber", lacking)[0] == 400
    made = call("subscriber/createSubscriber", {"whatsapp_phone": "+14155550123"})[1]["data"]
    assert isinstance(made["id"], str)
    assert made["email"] is None
    again = call("subscriber/createSubscriber", {"whatsapp_phone": "+14155550123"})[1]
    assert again["details"]["messages"]["wa_id"]["message"] == ["This WhatsApp ID already exists: 14155550123"]
    assert call("subscriber/findBySystemField?phone=%2B14155550123") == (200, {"status": "success", "data": []})
    assert call("subscriber/addTag", {"subscriber_id": made["id"], "tag_id": 1})[0] == 400


@pytest.fixture
def still(monkeypatch):
    """All calls come in the same second."""
    moment = time.monotonic()
    for module in (manychat, manychat_account):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: moment, sleep=time.sleep))


def test_flows_have_limits_of_their_own(call, still):
    person = int(call("subscriber/createSubscriber", {"whatsapp_phone": "+14155550123"})[1]["data"]["id"])
    answers = [call("sending/sendFlow", {"subscriber_id": person, "flow_ns": "f"})[0] for _ in range(21)]
    assert answers == [200] * 20 + [429]


def test_more_than_the_limit_in_a_second_is_429(call, still):
    assert [call("page/createTag", {"name": f"t{n}"})[0] for n in range(11)] == [200] * 10 + [429]
    assert {call("page/getTags")[0] for _ in range(50)} == {200}


def test_the_command_serves_until_it_is_ended():
    port = free_port()
    command = [sys.executable, "-m", "rqjobs", "sandbox", "manychat", "--port"]
    with (
        subprocess.Popen([*command, str(port), "--token", "5:x"], stdout=subprocess.PIPE, text=True) as process,
        contextlib.ExitStack() as end,
    ):
        end.callback(process.terminate)
        assert f"http://127.0.0.1:{port}" in process.stdout.readline()
        process.stdout.readline()
        assert f"MANYCHAT_API_URL=http://127.0.0.1:{port} MANYCHAT_API_TOKEN=5:x" in process.stdout.readline()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/sandbox/state") as answer:
            assert json.load(answer) == {"5": {"tags": [], "fields": [], "contacts": []}}
        taken = subprocess.run([*command, str(port)], capture_output=True, text=True, check=False)
        assert (taken.returncode, "choose another --port" in taken.stderr) == (2, True)
