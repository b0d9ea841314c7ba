"""The locks: every package by version and hash, the same version in all of them, and nothing installed past them."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.workers import ROOT

LOCKS = [ROOT / "requirements.lock", *sorted((ROOT / "locks").glob("*.lock"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def entries(lock):
    """Each requirement of a lock with its hashes, as pip reads them."""
    text = re.sub(r"^\s*#.*$", "", lock.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        requirement, *hashes = line.split("--hash=")
        yield Requirement(requirement), [value.strip() for value in hashes]


def versions(lock):
    found = {}
    for requirement, _ in entries(lock):
        found.setdefault(canonicalize_name(requirement.name), set()).add(str(requirement.specifier))
    return found


def group(name):
    for item in PROJECT["dependency-groups"][name]:
        yield from [item] if isinstance(item, str) else group(item["include-group"])


def wanted(*, extras=(), groups=()):
    """What a lock is made of, by pyproject.toml."""
    declared = [*PROJECT["project"]["dependencies"]] if extras is not None else []
    declared += [item for extra in extras or () for item in PROJECT["project"]["optional-dependencies"][extra]]
    return [Requirement(item) for item in [*declared, *(item for name in groups for item in group(name))]]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_package_has_an_exact_version_and_its_hashes(lock):
    assert list(entries(lock))
    for requirement, hashes in entries(lock):
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes), requirement


EXTRAS = ("embedded", "postgres", "django", "fastapi", "css", "fast", "otel")


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("requirements.lock", {"extras": EXTRAS, "groups": ("dev",)}),
        ("locks/image.lock", {"extras": ("postgres", "fast")}),
        ("locks/build.lock", {"extras": None, "groups": ("build",)}),
        ("locks/audit.lock", {"extras": None, "groups": ("audit",)}),
    ],
)
def test_a_lock_has_the_versions_that_pyproject_requires(name, of):
    locked = versions(ROOT / name)
    for requirement in wanted(**of):
        found = locked.get(canonicalize_name(requirement.name), ())  # several where they differ by Python's version
        assert found, f"{requirement}: make lock"
        for version in found:
            assert requirement.specifier.contains(version.removeprefix("==")), f"{requirement}: make lock"


def test_the_image_has_the_tested_versions():
    tested = versions(ROOT / "requirements.lock")
    for name in ("image.lock", "build.lock"):
        for package, version in versions(ROOT / "locks" / name).items():
            assert tested.get(package) == version, package


def test_nothing_is_installed_without_a_hash():
    lines = (ROOT / "Makefile").read_text() + (ROOT / "deploy" / "Dockerfile").read_text()
    commands = re.findall(r"(?:-m pip (?:install|wheel)|\$\(PIP_INSTALL\)) +[^\n&]*", lines.replace("\\\n", " "))
    installs = [command for command in commands if not command.startswith("-m pip install --quiet --disable")]
    assert len(installs) >= 6
    for command in installs:
        locked = "--require-hashes" in command or "$(LOCKED)" in command
        assert locked or ("--no-deps" in command and re.search("--no-build-isolation|--no-index", command)), command
    assert "--require-hashes --only-binary :all:" in lines
