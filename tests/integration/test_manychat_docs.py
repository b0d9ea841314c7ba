"""The examples in docs/manychat.md run as they stand there."""

import re
from pathlib import Path

from rq import Queue

from rqjobs.processors.manychat import register_token_source
from rqjobs.processors.manychat.accounts import account_of
from tests.support.manychat import drive, sandbox, state

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs/manychat.md").read_text(), re.DOTALL)


def test_the_examples_run(redis, monkeypatch):
    first, second = BLOCKS
    with sandbox(monkeypatch) as api:
        for name, kind in (("Plan", "text"), ("Visits", "number")):
            api.account.call("POST", "page/createCustomField", {"caption": name, "type": kind})
        namespace = {"print": print}
        exec(compile(first, "docs/manychat.md", "exec"), namespace)
        assert Queue("manychat-sync", connection=redis).count == 1
        try:
            exec(compile(second, "docs/manychat.md", "exec"), {})
            assert account_of("shop_1").token == "1234:abcd"
        finally:
            register_token_source(None)
        payload = namespace["job"].args[1]
        (outcome,) = drive({"job": namespace["ManyChatSyncJob"].parse(payload)}).values()
        assert outcome["outcome"] == "created"
        assert state(api)["ada@example.com"] == {
            "first_name": "Ada", "fields": {"Plan": "pro", "Visits": 3}, "tags": {"customer"}}  # fmt: skip
