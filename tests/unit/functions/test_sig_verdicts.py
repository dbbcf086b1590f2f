"""Verdicts on sources: remembered, shared while they are found, and dropped when nobody waits."""

from __future__ import annotations

import asyncio

import pytest

from cloudmesh.functions.signatures import Parsed, SourceError, read
from cloudmesh.functions.signatures.verdicts import PASSING_SECONDS, PassingError, Verdicts


class Reader:
    """Counts readings, which last until `go` is set."""

    def __init__(self, outcome: Exception | None = None) -> None:
        self.outcome = outcome
        self.begun = self.ended = self.cancelled = 0
        self.go = asyncio.Event()

    async def __call__(self) -> Parsed:
        self.begun += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.ended += 1
        if self.outcome is not None:
            raise self.outcome
        return read("def f() -> int: ...\n", name="f", module="f")


async def test_equal_ones_at_once_are_read_once_and_then_known() -> None:
    verdicts, reader = Verdicts(), Reader()
    waiting = [asyncio.create_task(verdicts.get("k", reader)) for _ in range(5)]
    await asyncio.sleep(0)
    reader.go.set()
    found = await asyncio.gather(*waiting)
    assert await verdicts.get("k", reader) == found[0]
    assert reader.begun == 1


async def test_an_error_is_remembered_and_new_for_everybody() -> None:
    verdicts, reader = Verdicts(), Reader(SourceError(2, 3, "no"))
    reader.go.set()
    errors = []
    for _ in range(3):
        with pytest.raises(SourceError) as caught:
            await verdicts.get("k", reader)
        errors.append(caught.value)
    assert [(error.line, error.column, error.message) for error in errors] == [(2, 3, "no")] * 3
    assert len({id(error) for error in errors}) == 3
    assert reader.begun == 1


async def test_an_error_that_a_busy_machine_may_have_caused_passes() -> None:
    now = [0.0]
    verdicts, reader = Verdicts(clock=lambda: now[0]), Reader(PassingError(1, 1, "too slow"))
    reader.go.set()
    for now[0], begun in ((0.0, 1), (PASSING_SECONDS - 1, 1), (PASSING_SECONDS + 1, 2)):
        with pytest.raises(SourceError, match="too slow"):
            await verdicts.get("k", reader)
        assert reader.begun == begun


async def test_other_faults_are_not_remembered() -> None:
    verdicts, reader = Verdicts(), Reader(OSError("no process"))
    reader.go.set()
    for _ in range(2):
        with pytest.raises(OSError, match="no process"):
            await verdicts.get("k", reader)
    assert reader.begun == 2


async def test_only_so_many_are_kept_the_latest_used() -> None:
    verdicts, reader = Verdicts(kept=2), Reader()
    reader.go.set()
    for key in ("a", "b", "a", "c", "a", "b"):
        await verdicts.get(key, reader)
    assert reader.begun == 4  # a, b, c, and b again


async def test_what_nobody_waits_for_is_dropped() -> None:
    verdicts, reader = Verdicts(), Reader()
    first, second = (asyncio.create_task(verdicts.get("k", reader)) for _ in range(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first})
    await asyncio.sleep(0)
    assert reader.cancelled == 0
    second.cancel()
    await asyncio.wait({second})
    await asyncio.sleep(0)
    assert reader.cancelled == 1
    reader.go.set()
    await verdicts.get("k", reader)
    assert (reader.begun, reader.ended) == (2, 1)
