"""detect-secrets finds no secret in the tree but those that are explained here; part of ``make audit``."""

import subprocess
from fnmatch import fnmatch

import pytest
from detect_secrets import SecretsCollection
from detect_secrets.settings import default_settings, get_settings

from tests.support.workers import ROOT

_PASSWORDS = {"Secret Keyword", "Basic Auth Credentials"}
_EXAMPLE = "the published example key of Standard Webhooks"

# Files, kinds of findings, why they are no secrets.
EXPLAINED = [
    ("tests/*", _PASSWORDS, "made-up passwords of servers and sandboxes that the tests start themselves"),
    ("tests/*", {"Base64 High Entropy String"}, f"{_EXAMPLE}, and keys made of counted letters"),
    ("tests/support/tls/server.pem", {"Private Key"}, "of a server on loopback, signed by an authority of the tests"),
    ("tests/unit/test_cli_output.py", {"Hex High Entropy String"}, "job ids"),
    ("bench/webhooks.py", {"Base64 High Entropy String", "Secret Keyword"}, _EXAMPLE),
    ("README.md", {"Hex High Entropy String"}, "job ids, in the output of commands"),
    (".env", {"Basic Auth Credentials"}, "user:password@host: the form of a URL"),
    ("rqjobs/*", {"Basic Auth Credentials"}, "user:password@host: the form of a URL, in messages and help"),
    ("docs/*", _PASSWORDS, "user:secret@host and the form of a value, in examples"),
]


def tracked():
    """The files of the repository; the locks hold hashes of packages and nothing else (test_locks.py)."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git repository: which files are the project's is not known")
    return [name for name in done.stdout.split("\0") if name and not name.endswith(".lock")]


def findings(names):
    """Each finding as its file, kind and line. Nothing is verified over the network."""
    found = SecretsCollection(root=str(ROOT))
    with default_settings():
        get_settings().disable_filters("detect_secrets.filters.common.is_ignored_due_to_verification_policies")
        for name in names:
            if (ROOT / name).is_file():
                found.scan_file(name)
    return [(name, secret.type, secret.line_number) for name, secret in found]


def explanations(name, kind):
    return [entry for entry in EXPLAINED if fnmatch(name, entry[0]) and kind in entry[1]]


@pytest.mark.slow
def test_every_finding_is_explained_and_every_explanation_is_needed():
    found = findings(tracked())
    unexplained = [f"{name}:{line}: {kind}" for name, kind, line in found if not explanations(name, kind)]
    assert not unexplained, "remove the secret and revoke it; if it is none, explain it above"
    used = [entry for name, kind, _ in found for entry in explanations(name, kind)]
    assert [entry for entry in EXPLAINED if entry not in used] == []


def test_a_committed_key_would_be_found(tmp_path):
    (tmp_path / "settings.py").write_text(f'KEY = "AKIA{"Z7Q2" * 4}"\n')
    with default_settings():
        found = SecretsCollection(root=str(tmp_path))
        found.scan_file("settings.py")
    assert [(secret.type, explanations("rqjobs/config/settings.py", secret.type)) for _, secret in found] == [
        ("AWS Access Key", [])
    ]
