"""Jobs of an app's own, as its author would write them."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel

import rqjobs
from rqjobs.attempt import Attempt


class Thumbnail(BaseModel):
    image: str
    width: int = 200


@rqjobs.job(queue="thumbnails", attempts=5, backoff="fixed:1s")
def make_thumbnail(payload: Thumbnail, attempt: Attempt) -> dict[str, object]:
    if payload.image == "flaky.png" and attempt.number == 1:
        raise ConnectionError("the image server is away")
    return {"image": payload.image, "width": payload.width, "attempt": attempt.number, "of": attempt.of}


@rqjobs.job(timeout="5s")
def write_down(payload: dict) -> str:
    with Path(payload["file"]).open("a") as file:
        file.write(json.dumps(payload) + "\n")
    return "written"


@rqjobs.job()
async def greet(payload: dict) -> str:
    return f"hello {payload['name']}"
