"""A loopback HTTP proxy in front of an emulator: it loses answers, delays, refuses, repeats, and serves stale reads.

`FaultProxy` moves requests and applies rules; a `Dialect` knows one cloud's operations and how it words an error.
"""

from cloudmesh.testing.proxy.core import Answer, Call, Dialect, FaultProxy, Rule

__all__ = ["Answer", "Call", "Dialect", "FaultProxy", "Rule"]
