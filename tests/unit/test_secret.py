"""The secret key: the setting's, or one that all processes share."""

import stat
from concurrent.futures import ThreadPoolExecutor

from rqjobs.config.secret_key import secret_key
from rqjobs.config.settings import use_settings


def test_one_key_for_all_that_start_at_once(settings):
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: secret_key(), range(8)))
    assert len(keys) == 1
    assert len(keys.pop()) >= 43
    assert stat.S_IMODE((settings.rqjobs_data / "secret_key").stat().st_mode) == 0o600
    assert [path.name for path in settings.rqjobs_data.iterdir()] == ["secret_key"]


def test_the_setting_comes_first(monkeypatch, settings):
    monkeypatch.setenv("RQJOBS_SECRET_KEY", "of my own, and long")
    use_settings(None)
    assert secret_key() == "of my own, and long"
    assert not settings.rqjobs_data.exists()
