"""Every error of the API ends in the right outcome; the pace after one is shared; tokens appear nowhere."""

import json
import logging
import socket
import threading
import time
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from rqjobs.attempt import Attempt
from rqjobs.broker.holds import report_away
from rqjobs.config.settings import use_settings
from rqjobs.errors import DependencyUnavailable, JobTimeout, PermanentFailure, RetryLater
from rqjobs.processors.manychat import admit, register_token_source, sync
from rqjobs.processors.manychat.accounts import account_of
from rqjobs.processors.manychat.client import ManyChat
from rqjobs.processors.manychat.records import ManyChatUnavailable, ManyChatUnclear
from rqjobs.testing.sandbox.manychat import Fault
from tests.support.clock import RedisClock
from tests.support.everything import everything
from tests.support.manychat import TOKEN, drive, job, run, sandbox, state

PATH = "subscriber/updateSubscriber"
UPDATE = ("contact", "update", {"subscriber_id": 1001, "first_name": "Ada"})


def refusal(messages):
    return Fault(400, json.dumps({"status": "error", "message": "Validation error", "details": {"messages": messages}}))


@pytest.fixture
def clock(redis, monkeypatch):
    return RedisClock(redis, monkeypatch)


@pytest.fixture
def played(redis, monkeypatch):
    with sandbox(monkeypatch) as api:
        api.account.call("POST", "subscriber/createSubscriber", {"email": "ada@example.com", "has_opt_in_email": True})
        yield api


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (Fault(401, '{"status":"error","message":"Wrong token"}'), ManyChatUnavailable,
         r"refuses the token of tool 'tool_1': Wrong token\. Check MANYCHAT_API_TOKEN"),
        (Fault(403, '{"status":"error","message":"Not for this plan"}'), ManyChatUnavailable, "Not for this plan"),
        (refusal([{"message": "Too long"}, {"message": "Too odd"}]), PermanentFailure, "Too long; Too odd"),
        (refusal({"email": {"message": ["The email is invalid"]}}), PermanentFailure, "The email is invalid"),
        (refusal({"a": ["x"], "b": "y"}), PermanentFailure, "x; y"),
        (Fault(400, '{"status":"error","message":"Validation error","details":null}'), PermanentFailure, "Validation"),
        (Fault(400, '{"status":"error"}'), PermanentFailure, "HTTP 400 without a message"),
        (Fault(400, "not json"), PermanentFailure, "HTTP 400.*MANYCHAT_API_URL"),
        (Fault(404, "<html>" + "x" * 38_000), ManyChatUnavailable, "HTTP 404.*is MANYCHAT_API_URL right"),
        (Fault(200, '{"status":"error","message":"Odd"}'), PermanentFailure, "Odd"),
        (Fault(302, "", {"Location": "http://127.0.0.1:1/"}), ManyChatUnavailable, "HTTP 302.*MANYCHAT_API_URL"),
        (Fault(200, "<html>"), ManyChatUnavailable, "is not its JSON"),
        (Fault(200, "[]"), ManyChatUnavailable, "is not its JSON"),
        (Fault(500), ManyChatUnavailable, "HTTP 500"),
        (Fault(503, "<html>"), ManyChatUnavailable, "HTTP 503"),
        (Fault(408), ManyChatUnavailable, "HTTP 408"),
    ],
)  # fmt: skip
def test_every_error_body_ends_in_the_right_outcome(played, fault, error, words):
    played.fail_next(PATH, fault)
    with pytest.raises(error, match=words) as caught:
        run(*UPDATE)
    assert "\n" not in str(caught.value)
    assert TOKEN.partition(":")[2] not in "".join(traceback.format_exception(caught.value))


def test_data_comes_in_every_shape(played):
    for data in ("null", "[]", '{"id":"1001"}', '[{"id":"1001","tags":null,"custom_fields":null}]'):
        played.fail_next(PATH, Fault(200, f'{{"status":"success","data":{data}}}'))
        assert run(*UPDATE)["outcome"] == "updated"


@pytest.mark.parametrize("data", ["null", "[]", '{"odd":1}', '"text"', '[{"id":"x"}]'])
def test_success_of_another_shape_is_tried_again(played, data):
    body = f'{{"status":"success","data":{data}}}'
    played.fail_next("page/createTag", Fault(200, body))
    with pytest.raises(ManyChatUnclear, match=r"is empty|of the shape"):
        run("tag", "create", {"name": "new"})
    played.fail_next("subscriber/createSubscriber", Fault(200, body))
    with pytest.raises(ManyChatUnclear, match=r"is empty|of the shape"):
        run("contact", "create", {"email": "new@example.com"})


def test_429_waits_for_all_jobs_of_the_token_and_uses_up_no_attempt(played, clock):
    played.fail_next(PATH, Fault(429, "Slow down", {"Retry-After": "7"}))
    with pytest.raises(RetryLater) as caught:
        run(*UPDATE)
    assert caught.value.after.total_seconds() == 7
    clock.pass_(0.5)
    assert not caught.value.counts
    with pytest.raises(RetryLater) as caught:  # another job of the same token makes no call at all
        run(*UPDATE, job_id="job-2")
    assert len(played.calls) == 1
    assert caught.value.after.total_seconds() == 6.5
    attempt = Attempt(job_id="job-3", queue="manychat-sync:high")
    before = datetime.now(UTC)
    (hold,) = admit([(job(*UPDATE), attempt)])
    assert before <= hold.until - timedelta(seconds=6.5) <= datetime.now(UTC)


def test_retry_after_as_a_date(played):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    played.fail_next(PATH, Fault(429, "Slow down", {"Retry-After": date}))
    with pytest.raises(RetryLater) as caught:
        run(*UPDATE)
    assert 20 < caught.value.after.total_seconds() <= 41


def test_a_value_that_json_cannot_represent_fails_only_its_job(played, redis):
    attempt = Attempt(job_id="j", queue="manychat-sync")
    api = ManyChat(account_of("tool_1"), played.url, redis, attempt)
    with pytest.raises(PermanentFailure, match="setCustomFields holds a number that JSON cannot carry"):
        api.set_fields(1001, [(1, float("inf"))])
    assert run(*UPDATE)["outcome"] == "updated"  # the token's other jobs are not held up


def test_a_token_that_is_throttled_for_a_day_uses_up_attempts(played):
    played.fail_next(PATH, Fault(429, "Slow down"))
    old = Attempt(job_id="j", queue="manychat-sync", enqueued_at=datetime.now(UTC) - timedelta(days=2))
    with pytest.raises(RetryLater) as caught:
        sync(job(*UPDATE), old)
    assert caught.value.counts


def test_an_outage_does_not_start_a_cooldown_of_the_token(played, clock):
    """The queue is held instead, which lets one trial through at a time."""
    played.fail_next(PATH, Fault(502))
    with pytest.raises(ManyChatUnavailable, match="502") as caught:
        run(*UPDATE)
    assert (caught.value.dependency, caught.value.scope) == ("ManyChat", "")
    assert run(*UPDATE)["outcome"] == "updated"


def test_a_refused_token_holds_its_account_only(played, redis):
    played.fail_next(PATH, Fault(401, '{"status":"error","message":"Wrong token"}'))
    attempt = Attempt(job_id="j", queue="manychat-sync")
    with pytest.raises(ManyChatUnavailable) as caught:
        sync(job(*UPDATE), attempt)
    account = account_of("tool_1").key
    assert caught.value.scope == account
    report_away(redis, "manychat-sync", "j", caught.value)
    (verdict,) = admit([(job(*UPDATE), Attempt(job_id="k", queue="manychat-sync"))])
    assert isinstance(verdict, DependencyUnavailable)
    assert verdict.scope == account


def test_a_lost_answer_to_a_creation_makes_no_second_contact(played):
    played.fail_next("subscriber/createSubscriber", Fault(504, "", applied=True))
    create = ("contact", "create", {"whatsapp_phone": "+4915112345678", "first_name": "W"})
    with pytest.raises(ManyChatUnavailable):
        run(*create)
    time.sleep(1.05)
    again = run(*create, number=2)
    assert played.account.subscribers[int(again["subscriber_id"])].profile["phone"] == "+4915112345678"
    assert len(played.account.subscribers) == 2


def test_a_closed_kept_connection_costs_no_attempt(played):
    run(*UPDATE)
    played.fail_next(PATH, Fault(dropped=True))
    assert run(*UPDATE)["outcome"] == "updated"
    played.fail_next(PATH, Fault(dropped=True), Fault(dropped=True))
    with pytest.raises(ManyChatUnavailable, match="ConnectionError"):
        run(*UPDATE)


def test_a_server_that_dawdles_is_left_at_the_time_limit(played):
    played.fail_next(PATH, Fault(200, '{"status":"success"}', delay=60))
    started = time.monotonic()
    with pytest.raises(ManyChatUnavailable, match="ReadTimeout"):
        run(*UPDATE, timeout=2)
    assert time.monotonic() - started < 9  # its own limit, without the job's, is ten
    with pytest.raises(JobTimeout):
        run(*UPDATE, timeout=0)


def test_an_answer_that_drips_is_left_at_the_time_limit(played, monkeypatch):
    listener = socket.create_server(("127.0.0.1", 0))

    def drip():
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            for _ in range(600):
                time.sleep(0.1)
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

    threading.Thread(target=drip, daemon=True).start()
    monkeypatch.setenv("MANYCHAT_API_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
    use_settings(None)
    started = time.monotonic()
    with pytest.raises(ManyChatUnavailable):
        run(*UPDATE, timeout=2)
    assert time.monotonic() - started < 9
    listener.close()


def test_an_unreachable_api_is_reported_without_the_contacts_address(played, monkeypatch):
    monkeypatch.setenv("MANYCHAT_API_URL", "http://127.0.0.1:1")
    use_settings(None)
    address = "ada@example.com"
    with pytest.raises(ManyChatUnavailable) as caught:
        run("contact", "update", {"email": address, "first_name": "A"})
    assert caught.value.__context__ is None
    assert address not in "".join(traceback.format_exception(caught.value))


def test_several_accounts_have_each_their_token_state_and_pace(redis, monkeypatch):
    tokens = ("1:hush-one", "2:hush-two", "3:hush-three")
    with sandbox(monkeypatch, tokens=tokens) as api:
        monkeypatch.setenv("MANYCHAT_API_TOKENS", '{"tool_2": "2:hush-two"}')
        monkeypatch.setenv("MANYCHAT_API_TOKEN", "1:hush-one")
        use_settings(None)
        register_token_source({"tool_3": "3:hush-three"}.get)
        try:
            for tool in ("tool_1", "tool_2", "tool_3"):
                run("tag", "create", {"name": f"of {tool}"}, tool_id=tool)
            assert [list(one.tags.values()) for one in api.accounts.values()] == [
                ["of tool_1"], ["of tool_2"], ["of tool_3"]]  # fmt: skip
            register_token_source(lambda _tool: "3:hush\nfour")
            with pytest.raises(PermanentFailure, match="a token is one word") as caught:
                run("tag", "create", {"name": "x"})
            assert "hush" not in str(caught.value)
        finally:
            register_token_source(None)
        assert len({account_of("tool_1").key, account_of("tool_2").key}) == 2
        monkeypatch.delenv("MANYCHAT_API_TOKEN")
        use_settings(None)
        with pytest.raises(PermanentFailure, match="no ManyChat token for tool 'tool_9': set MANYCHAT_API_TOKEN"):
            run("tag", "create", {"name": "x"}, tool_id="tool_9")


def test_a_token_that_is_used_up_holds_up_no_other(redis, monkeypatch):
    """Forty jobs of one account stand in line outside the slots: a job of another account runs at once."""
    with sandbox(monkeypatch, tokens=("1:hush-one", "2:hush-two")) as api:
        monkeypatch.setenv("MANYCHAT_API_TOKENS", '{"busy": "1:hush-one", "calm": "2:hush-two"}')
        use_settings(None)
        jobs = {f"busy-{n}": job("tag", "create", {"name": f"t{n}"}, tool_id="busy") for n in range(40)}
        jobs["calm"] = job("tag", "create", {"name": "t"}, tool_id="calm")
        started = time.monotonic()
        outcomes = drive(jobs, threads=2)
        assert all(outcome["outcome"] == "created" for outcome in outcomes.values())
        assert len(api.accounts["1:hush-one"].tags) == 40
        assert list(outcomes).index("calm") < 30  # each time that this process stands still lets ten through
        assert time.monotonic() - started > 3


def test_the_token_is_in_no_redis_value_log_or_error(played, redis, caplog):
    caplog.set_level(logging.DEBUG)
    errors = []
    secret = TOKEN.partition(":")[2]
    echo = refusal([{"message": f"Bearer {TOKEN} may not; nor may {secret}"}])
    for fault in (echo, Fault(401, json.dumps({"status": "error", "message": f"Wrong token {TOKEN}"})), Fault(500)):
        played.fail_next(PATH, fault)
        with pytest.raises((PermanentFailure, ManyChatUnavailable)) as caught:
            run(*UPDATE, merge=True)
        errors.append("".join(traceback.format_exception(caught.value)))
    run("contact", "update", {"email": "ada@example.com", "add_tags": ["vip"]}, merge=True)
    admit([(job(*UPDATE, merge=True), Attempt(job_id="a", queue="manychat-sync"))])
    kept = everything(redis)
    assert account_of("tool_1").key in kept
    for text in [*errors, caplog.text, repr(account_of("tool_1")), kept]:
        assert secret not in text
    assert state(played)["ada@example.com"]["tags"] == {"vip"}
