"""Writes the digest of every foreign image in deploy/ behind its tag: python:3.13-slim-bookworm@sha256:...

A tag can be moved to another image, a digest cannot. Run it again to take what the tag names by then, and commit the
difference. It asks the registries through ``docker buildx imagetools inspect``; nothing is pulled.

    make pin-images
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
FILES = ("Dockerfile", "compose.yaml", "kubernetes/rqjobs.yaml", "kubernetes/stores.yaml")
OWN = "rqjobs"  # built here; its digest is that of your own registry
_IMAGE = re.compile(r"^(?P<before>\s*(?:FROM|image:)\s+)(?P<name>[^\s@#]+)(?:@sha256:[0-9a-f]{64})?", re.MULTILINE)


def images(text: str) -> list[str]:
    """The foreign images that a file names, without digests."""
    return [found["name"] for found in _IMAGE.finditer(text) if found["name"].partition(":")[0] != OWN]


def digest(image: str) -> str:
    """What the registry has under the image's tag, for all platforms together.

    Raises:
        SystemExit: docker is missing, or the registry does not answer.
    """
    words = ["docker", "buildx", "imagetools", "inspect", "--format", "{{json .Manifest}}", image]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)  # noqa: S603  # no shell
    except (OSError, subprocess.TimeoutExpired) as error:
        sys.exit(f"pin_images: {error}")
    if done.returncode != 0:
        sys.exit(f"pin_images: the digest of {image} cannot be read: {done.stderr.strip()}")
    found = str(json.loads(done.stdout)["digest"])
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", found):
        sys.exit(f"pin_images: the registry's digest of {image} is none: {found!r}")
    return found


def main() -> None:
    """Asks once for each image, and writes the files only when all answers are there."""
    texts = {name: (FOLDER / name).read_text(encoding="utf-8") for name in FILES}
    digests = {image: digest(image) for image in sorted({image for text in texts.values() for image in images(text)})}

    def pinned(found: re.Match[str]) -> str:
        name = found["name"]
        return f"{found['before']}{name}@{digests[name]}" if name in digests else found[0]

    for name, text in texts.items():
        (FOLDER / name).write_text(_IMAGE.sub(pinned, text), encoding="utf-8")
    for image, value in digests.items():
        print(f"{image}@{value}")


if __name__ == "__main__":
    main()
