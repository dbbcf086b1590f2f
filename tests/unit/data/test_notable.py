"""What a person hears of at once about a directory, and how often."""

from tests.unit.data.directory_scene import Scene, scene

from cloudmesh.data.config import Counters, StoreSummary, Summary
from cloudmesh.data.notable import BEYOND_REPAIR, CONFLICT, PAUSE_SECONDS, Notable
from cloudmesh.engine import EVENT

SHRUNK = StoreSummary("nas", "Suspicious", "its listing lacks 11 of 50", shrunk=True)


def told(notable: Notable, clock: float, *, conflicts: int = 0, broken: int = 0, store: StoreSummary | None = None):
    done = Counters(conflicts=conflicts)
    stores = (store or StoreSummary("nas", "Up"),)
    return notable.news(Summary("x", done=done, beyond_repair=broken, stores=stores), clock)


def test_conflicts_are_told_together():
    notable = Notable()
    # what was there before this process began was told by another one
    assert told(notable, 0, conflicts=3) == []
    ((reason, message),) = told(notable, 1, conflicts=4)
    assert (reason, "1 files" in message, "cms vdir search" in message) == (CONFLICT, True, True)
    assert told(notable, 2, conflicts=4) == []
    assert [told(notable, 3 + n, conflicts=5 + n) for n in range(100)] == [[]] * 100
    ((_, message),) = told(notable, 1 + PAUSE_SECONDS, conflicts=104)
    assert "100 files" in message


def test_a_gateway_that_began_anew_counts_from_nothing():
    notable = Notable()
    assert told(notable, 0, conflicts=9) == []
    ((_, message),) = told(notable, 1, conflicts=2)
    assert "2 files" in message


def test_files_beyond_repair_are_told_when_they_are_more():
    notable = Notable()
    assert [reason for reason, _ in told(notable, 0, broken=2)] == [BEYOND_REPAIR]
    assert told(notable, PAUSE_SECONDS, broken=2) == []
    assert told(notable, 2 * PAUSE_SECONDS, broken=1) == []
    ((_, message),) = told(notable, 3 * PAUSE_SECONDS, broken=2)
    assert message.startswith("2 files have no whole copy")


def test_a_listing_that_shrank_is_told_with_what_a_person_can_say():
    notable = Notable()
    assert told(notable, 0, store=SHRUNK) == [("SuspiciousShrink", f"nas: {SHRUNK.message}")]
    assert told(notable, PAUSE_SECONDS, store=SHRUNK) == []
    more = StoreSummary("nas", "Suspicious", "its listing lacks 20 of 50", shrunk=True)
    assert told(notable, 2 * PAUSE_SECONDS, store=more) == [("SuspiciousShrink", f"nas: {more.message}")]
    assert told(notable, 3 * PAUSE_SECONDS) == []
    assert told(notable, 4 * PAUSE_SECONDS, store=more) != []
    # a marker that is missing is another matter, which the condition tells
    marker = StoreSummary("nas", "Suspicious", "the marker is missing")
    assert told(notable, 5 * PAUSE_SECONDS, store=marker) == []


@scene
async def test_a_conflict_is_an_event_of_the_directory(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory()
    async with s.operator():
        await s.settle()
        s.gateway.summary = {"done": Counters(conflicts=2)}
        await s.settle(60)
        (event,) = [event for event in s.api.all(EVENT) if event["reason"] == CONFLICT]
        assert (event["type"], "2 files" in event["note"]) == ("Warning", True)
        assert event["regarding"]["kind"] == "VirtualDirectory"
