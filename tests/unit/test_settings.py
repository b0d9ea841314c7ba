"""Settings: all faults at once, each with its variable; secrets never shown."""

from datetime import timedelta
from urllib.parse import quote

import pytest
from redis.connection import parse_url
from sqlalchemy import make_url

from rqjobs.broker.connection import redact
from rqjobs.config.settings import Settings, get_settings, use_settings
from rqjobs.errors import InvalidSettings
from rqjobs.policies import get_policy, lanes_in_order


def test_all_faults_are_named_at_once_and_no_secret_is_shown(monkeypatch):
    for name, value in {
        "REDIS_URL": "http://user:hunter2@localhost",
        "EMAIL_BACKEND": "pigeon",
        "WEBHOOK_SIGNING_SECRET": "whsec_hunter2",
        "RQJOBS_LEASE": "soon",
        "RQJOBS_EMAIL_ATTEMPTS": "0",
        "RQJOBS_DATA_EXPORT_BACKOFF": "linear:1s",
        "EXPORT_KEEP": "999999999999d",
        "RESEND_RATE": "1/999999999999d",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings) as caught:
        Settings.load()
    named = {fault.partition(":")[0] for fault in caught.value.faults}
    assert named == {
        "REDIS_URL", "EMAIL_BACKEND", "WEBHOOK_SIGNING_SECRET", "RQJOBS_LEASE", "RQJOBS_EMAIL_ATTEMPTS",
        "RQJOBS_DATA_EXPORT_BACKOFF", "EXPORT_KEEP", "RESEND_RATE",
    }  # fmt: skip
    assert "hunter2" not in str(caught.value)


def test_a_queue_is_changed_through_the_environment(monkeypatch):
    monkeypatch.setenv("RQJOBS_MANYCHAT_SYNC_ATTEMPTS", "7")
    monkeypatch.setenv("RQJOBS_MANYCHAT_SYNC_BACKOFF", "fixed:10s")
    monkeypatch.setenv("RQJOBS_WEBHOOKS_TIMEOUT", "5s")
    use_settings(None)
    policy = get_policy("manychat-sync:high")
    assert (policy.attempts, policy.backoff.waits(3)) == (7, [10, 10])
    assert get_policy("webhook").timeout == timedelta(seconds=5)


def test_a_dotenv_file_is_read_and_the_environment_wins(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("RQJOBS_EMAIL_ATTEMPTS=4\nEMAIL_FROM=a@b.example\nRQJOBS_LEASE=10s\n")
    monkeypatch.setenv("RQJOBS_LEASE", "20s")
    use_settings(None)
    assert get_policy("email").attempts == 4
    assert get_settings().email_from == "a@b.example"
    assert get_settings().rqjobs_lease == timedelta(seconds=20)


def test_a_binary_dotenv_file_is_a_fault(tmp_path):
    (tmp_path / ".env").write_bytes("EMAIL_FROM=Käse <a@b.example>\n".encode("latin-1"))
    with pytest.raises(InvalidSettings, match=r"\.env cannot be read: 'utf-8' codec can't decode"):
        Settings.load()


def test_secrets_are_not_printed(monkeypatch):
    monkeypatch.setenv("MANYCHAT_API_TOKEN", "123:hunter2")
    monkeypatch.setenv("WEBHOOK_SIGNING_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw whsec_" + "QUJD" * 10)
    settings = Settings.load()
    assert len(settings.webhook_signing_secret) == 2
    assert "hunter2" not in repr(settings)
    assert "MfKQ" not in repr(settings)


def test_lanes_come_in_priority_order():
    lanes = lanes_in_order(["webhooks", "email"])
    assert lanes == ["webhooks:high", "email:high", "webhooks", "email", "webhooks:low", "email:low"]


@pytest.mark.parametrize(
    "password", ["Hun/ter2", "Hun#ter2", "Hun?ter2", "Hun@ter2", "a@Hun/ter2", "9/Hun@ter2", "[Hun"]
)
@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("REDIS_URL", "redis://:{}@localhost:1/0"),
        ("REDIS_URL", "rediss://user:{}@localhost/0"),
        ("REDIS_URL", "redis+sentinel://user:{}@localhost:1,localhost:2/mymaster"),
        ("REDIS_URL", "unix://user:{}@/run/redis.sock"),
        ("SMTP_URL", "smtp://user:{}@localhost:587"),
        ("DATABASE_URL", "postgresql://user:{}@localhost:1/x"),
    ],
)
def test_a_password_that_tears_its_url_is_refused_and_not_shown(monkeypatch, name, url, password):
    monkeypatch.setenv(name, url.format(password))
    with pytest.raises(InvalidSettings) as caught:
        Settings.load()
    (fault,) = caught.value.faults
    assert fault.startswith(f"{name}: ")
    assert "percent-encode user and password" in fault
    assert "Hun" not in str(caught.value)
    shown = redact(url.format(password))
    assert "Hun" not in shown
    assert "ter2" not in shown
    monkeypatch.setenv(name, url.format(quote(password, safe="")))
    Settings.load()


@pytest.mark.parametrize(("name", "url"), [("REDIS_URL", "Hunter2@localhost"), ("SMTP_URL", "smtp://Hunter2:x")])
def test_an_invalid_url_is_not_shown(monkeypatch, name, url):
    monkeypatch.setenv(name, url)
    with pytest.raises(InvalidSettings, match=name) as caught:
        Settings.load()
    assert "Hunter2" not in str(caught.value) + redact(url)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("REDIS_URL", "unix:///run/user@1000/redis.sock?password=p@ss"),
        ("REDIS_URL", "embedded:/home/me@work/redis"),
        ("REDIS_URL", "redis+sentinel://user:pw@a:1,b:2/mymaster/0"),
        ("DATABASE_URL", "sqlite:////home/me@work/rqjobs.db?timeout=30"),
        ("DATABASE_URL", "postgresql://postgres:@/postgres?host=/run/postgresql"),
    ],
)
def test_urls_that_are_not_torn(monkeypatch, name, url):
    monkeypatch.setenv(name, url)
    assert getattr(Settings.load(), name.lower()).get_secret_value() == url


DJANGO = "django.core.mail.backends.smtp.EmailBackend"


@pytest.mark.parametrize(
    ("variables", "overrides", "meant"),
    [
        ({"EMAIL_BACKEND": DJANGO}, {}, "file"),
        ({"EMAIL_BACKEND": DJANGO, "RQJOBS_EMAIL_BACKEND": "smtp"}, {}, "smtp"),
        ({"EMAIL_BACKEND": "resend", "RQJOBS_EMAIL_BACKEND": "smtp"}, {}, "smtp"),
        ({"EMAIL_BACKEND": DJANGO}, {"EMAIL_BACKEND": "sendgrid"}, "sendgrid"),
        ({"RQJOBS_EMAIL_BACKEND": "smtp"}, {"EMAIL_BACKEND": "sendgrid"}, "sendgrid"),
        ({"EMAIL_BACKEND": "resend"}, {"RQJOBS_EMAIL_BACKEND": "smtp"}, "smtp"),
        ({"EMAIL_BACKEND": "resend", "RQJOBS_EMAIL_BACKEND": ""}, {}, "resend"),
    ],
)
def test_a_backend_of_django_is_not_ours(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], overrides: dict[str, str], meant: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Settings.load(overrides).email_backend == meant


def test_a_wrong_backend_of_ours_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RQJOBS_EMAIL_BACKEND", "pigeon")
    with pytest.raises(InvalidSettings, match="RQJOBS_EMAIL_BACKEND: input should be"):
        Settings.load()


HARD = "p@ss:w/rd#?%41 [ä]\\'\""


@pytest.mark.parametrize(
    ("given", "user", "host"),
    [
        ("redis://redis:6379/0", None, "redis"),
        ("redis://rqjobs@redis:6379/0", "rqjobs", "redis"),
        ("rediss://rqjobs@redis", "rqjobs", "redis"),
        ("redis://rqjobs:own@redis", "rqjobs", "redis"),
        ("unix:///run/redis.sock", None, None),
    ],
)
def test_the_redis_password_needs_no_encoding(monkeypatch, given, user, host):
    monkeypatch.setenv("REDIS_URL", given)
    monkeypatch.setenv("REDIS_PASSWORD", HARD)
    options = parse_url(Settings.load().redis_url.get_secret_value())
    assert options["password"] == ("own" if "own" in given else HARD)
    assert (options.get("username") or None, options.get("host")) == (user, host)
    assert HARD not in redact(Settings.load().redis_url.get_secret_value())


def test_the_database_password_needs_no_encoding(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://rqjobs@database:5432/rqjobs")
    monkeypatch.setenv("DATABASE_PASSWORD", HARD)
    url = make_url(Settings.load().database_url.get_secret_value())
    assert (url.username, url.password, url.host, url.port) == ("rqjobs", HARD, "database", 5432)


@pytest.mark.parametrize("name", ["REDIS", "DATABASE"])
def test_a_url_without_a_server_takes_no_password(monkeypatch, name):
    before = getattr(Settings.load(), f"{name.lower()}_url")
    monkeypatch.setenv(f"{name}_PASSWORD", "x")
    assert getattr(Settings.load(), f"{name.lower()}_url") == before


@pytest.mark.parametrize("name", ["RQJOBS_SECRET_KEY", "RQJOBS_CRON_TOKEN"])
def test_a_key_that_can_be_guessed_is_refused_and_not_shown(monkeypatch, name):
    monkeypatch.setenv(name, "hunter2hunter2")
    with pytest.raises(InvalidSettings, match=f"{name}: has fewer than 16 characters") as caught:
        Settings.load()
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv(name, "")
    assert getattr(Settings.load(), name.lower()) is None
