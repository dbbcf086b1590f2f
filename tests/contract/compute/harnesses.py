"""Back ends on which the conformance suite runs, and on which clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from cloudmesh.testing.providers import Harness
from cloudmesh.testing.providers.memory import MemoryHarness

Clock = Literal["virtual", "real"]

HARNESSES: Mapping[str, tuple[Callable[[], Harness], Clock]] = {
    "memory": (MemoryHarness, "virtual"),
    # a cloud that has no tokens and no optional power, as some of the real ones
    "memory-plain": (lambda: MemoryHarness(name="memory-plain", powers="none", native_tokens=False), "virtual"),
}
"""Name, what makes the harness, and the clock; harnesses on real time share an event loop for a whole run."""
