"""``.env`` in the project lists every setting with its default, each explained, and no secret."""

import re
from pathlib import Path

from rqjobs.config.settings import QueueSettings, Settings

DOTENV = Path(__file__).parents[2] / ".env"
LINES = DOTENV.read_text().splitlines()
VALUES = dict(line.split("=", 1) for line in LINES if re.match(r"[A-Z]", line))


def test_every_setting_is_there_and_nothing_else():
    assert set(VALUES) == {name.upper() for name in Settings.model_fields if name != "queues"}
    commented = "\n".join(line for line in LINES if line.startswith("#RQJOBS_"))
    assert all(f"_{name.upper()}=" in commented for name in QueueSettings.model_fields)


def test_its_values_are_the_defaults(monkeypatch):
    for name in ("RQJOBS_DATA", "DATABASE_URL"):
        monkeypatch.delenv(name)
    monkeypatch.setitem(Settings.model_config, "env_file", str(DOTENV))
    from_file = Settings.load().model_dump()
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    assert from_file == Settings.load().model_dump()


def test_it_explains_and_keeps_no_secret():
    for index, line in enumerate(LINES):
        if re.match(r"[A-Z].*(SECRET|PASSWORD|TOKEN|_KEY)", line):
            assert line.endswith("="), line
        if re.match(r"#?[A-Z_]+=", line):
            above = LINES[: index + 1][::-1]
            assert next(text for text in above if not re.match(r"#?[A-Z_]+=", text)).startswith("#"), line
