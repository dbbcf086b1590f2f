"""A process that writes an object and is killed in the middle: `python -m cloudmesh.testing.stores.victim`.

Standard input is JSON: `store` (a harness's recipe), `key`, `chunk` (bytes of one), `chunks` that the source gives
before it kills the process, and `if_tag`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

from cloudmesh.data.stores.registry import StoreContext, maker


async def main(asked: dict[str, Any]) -> None:
    """Writes until it dies."""
    recipe = dict(asked["store"])
    made = maker(recipe.pop("kind"))
    secrets = {name: base64.b64decode(value) for name, value in recipe.pop("credentials", {}).items()}
    store = made(StoreContext(**recipe, credentials=secrets))

    async def source() -> AsyncIterator[bytes]:
        for _ in range(asked["chunks"]):
            yield b"x" * asked["chunk"]
        await asyncio.sleep(asked.get("seconds", 0.2))  # what was given is on its way
        os.kill(os.getpid(), signal.SIGKILL)

    await store.write(asked["key"], source(), if_tag=asked.get("if_tag", ""))


if __name__ == "__main__":
    asyncio.run(main(json.load(sys.stdin)))
