"""Fault tools for everything built on the engine: crashes, a faulty API server, two leaders, virtual time."""

from __future__ import annotations

from cloudmesh.testing.apiserver import MemoryApi
from cloudmesh.testing.crash import Crash, CrashPoint, for_every_crash
from cloudmesh.testing.faults import Fault, Faults, FaultyTransport
from cloudmesh.testing.virtualtime import VirtualLoop, run_virtual, tick
from cloudmesh.testing.world import World

__all__ = [
    "Crash",
    "CrashPoint",
    "Fault",
    "Faults",
    "FaultyTransport",
    "MemoryApi",
    "VirtualLoop",
    "World",
    "for_every_crash",
    "run_virtual",
    "tick",
]
