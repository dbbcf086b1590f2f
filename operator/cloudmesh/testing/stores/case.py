"""Cases of the conformance suite for stores, and what each one stands on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from cloudmesh.data.stores.ports import POWERS, Conditional, Object, Store
from cloudmesh.engine.errors import CloudmeshError
from cloudmesh.testing.stores.harness import NEEDS, Harness, Injection, Operation

E = TypeVar("E", bound=CloudmeshError)
CHUNK = 1 << 18
CLEAN_TRIES = 50


class CaseFailed(AssertionError):
    """A store doesn't do what the case asks for; the message says what was seen."""


class SourceBroke(Exception):
    """What a source of content raises in a case."""


def need(condition: object, message: str) -> None:
    """Fails the case unless the condition holds.

    Raises:
        CaseFailed: It doesn't.
    """
    if not condition:
        raise CaseFailed(message)


@lru_cache(maxsize=8)
def noise(size: int, seed: int = 0) -> bytes:
    """Content that isn't like any other."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - no secret


async def chunks(content: bytes | Iterable[bytes], *, size: int = CHUNK) -> AsyncIterator[bytes]:
    """Content as a source gives it."""
    pieces = [content[at : at + size] for at in range(0, len(content), size)] if isinstance(content, bytes) else content
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


class Bench:
    """One case's view: a store and its back end.

    Args:
        harness: The back end, open.
        store: The store under test.
    """

    def __init__(self, harness: Harness, store: Store) -> None:
        self.harness = harness
        self.store = store

    async def put(self, key: str, content: bytes = b"content", **more: Any) -> Object:
        """Writes an object."""
        return await self.store.write(key, chunks(content), **more)

    async def got(self, key: str, **more: Any) -> bytes:
        """Reads an object."""
        return b"".join([piece async for piece in self.store.read(key, **more)])

    async def seen(self, key: str) -> Object:
        """What a look tells of an object, which must be there."""
        found = await self.store.stat(key)
        if found is None:
            raise CaseFailed(f"{key} isn't there")
        return found

    async def there(self, key: str, content: bytes) -> None:
        """The back end has this content, and nothing is left behind."""
        truth = await self.harness.truth()
        need(key in truth, f"{key} isn't there")
        need(truth[key] == content, f"{key} has {len(truth[key])} other bytes, not the {len(content)}")
        await self.clean()

    async def absent(self, key: str) -> None:
        """The back end has no such object, and nothing is left behind."""
        need(key not in await self.harness.truth(), f"{key} is there")
        await self.clean()

    async def clean(self) -> None:
        """No interrupted write has left anything; what a thread clears away may go a moment later."""
        left = await self.harness.leftovers()
        for _ in range(CLEAN_TRIES):
            if not left:
                return
            await asyncio.sleep(0.1)
            left = await self.harness.leftovers()
        raise CaseFailed(f"{left} rests of interrupted writes")

    async def inject(
        self, what: str, operation: Operation = "any", *, times: int | None = 1, seconds: float = 0.0, status: int = 200
    ) -> None:
        """Breaks something until it has acted so often, or until `heal`."""
        await self.harness.inject(Injection(what, operation, times, seconds, status))

    async def keys(self, prefix: str = "", *, limit: int = 1000) -> list[str]:
        """Keys of a whole listing, page by page."""
        found: list[str] = []
        after = ""
        while True:
            page = await self.store.list(prefix, after=after, limit=limit)
            need(len(page.objects) <= limit, f"a page of {len(page.objects)} objects, {limit} were asked for")
            need(page.complete, "the page says that it isn't complete")
            found += [each.key for each in page.objects]
            after = page.after
            if not after:
                return found


async def refused(kind: type[E] | tuple[type[E], ...], call: Awaitable[object], what: str) -> E:
    """The error of a call, which must be of this kind.

    Raises:
        CaseFailed: It succeeded, or failed in another way.
    """
    kinds = kind if isinstance(kind, tuple) else (kind,)
    expected = " or ".join(each.__name__ for each in kinds)
    try:
        result = await call
    except kinds as error:
        need(str(error).strip(), f"{what}: the error has no words")
        return error
    except Exception as error:
        raise CaseFailed(f"{what}: {type(error).__name__} instead of {expected}: {error}") from error
    raise CaseFailed(f"{what}: {result!r:.120} instead of {expected}")


Run = Callable[[Bench], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Case:
    """One case.

    Args:
        id: Stable name, `group/words`.
        title: What must hold, one sentence.
        run: Does it; returning is passing.
        power: Power that it is about, empty for the port itself.
        needs: What is asked of the back end, of `NEEDS`.
        conditional: What writes must be able to be tied to.
        attributes: Whether it is about attributes.
    """

    id: str
    title: str
    run: Run
    power: str = ""
    needs: tuple[str, ...] = ()
    conditional: Conditional = "None"
    attributes: bool = False


CASES: dict[str, Case] = {}
"""All cases by id, filled when `cloudmesh.testing.stores` is imported."""


def case(
    id_: str,
    title: str,
    *,
    power: str = "",
    needs: Sequence[str] = (),
    conditional: Conditional = "None",
    attributes: bool = False,
) -> Callable[[Run], Run]:
    """Registers a case.

    Raises:
        ValueError: The id is there already, or a need or power is unknown.
    """
    if id_ in CASES:
        raise ValueError(f"there are two cases {id_!r}")
    if unknown := [name for name in needs if name not in NEEDS]:
        raise ValueError(f"{id_}: unknown needs {', '.join(unknown)}")
    if power and power not in POWERS:
        raise ValueError(f"{id_}: unknown power {power}")

    def keep(run: Run) -> Run:
        CASES[id_] = Case(id_, title, run, power, tuple(needs), conditional, attributes)
        return run

    return keep
