"""RFC 3339 times as whole seconds, and the months of UTC: what `policy` has, by the name it has here."""

from __future__ import annotations

from cloudmesh.policy.moments import month_of, to_month, to_seconds, to_time

__all__ = ["month_of", "to_month", "to_seconds", "to_time"]
