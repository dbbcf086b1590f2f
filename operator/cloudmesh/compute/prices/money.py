"""Money as whole nano-units of a currency, and its exact text: what `policy` has, by the name it has here."""

from __future__ import annotations

from cloudmesh.policy.amounts import HOUR, HOURS_A_MONTH, MoneyError, cost, from_list, rounded, to_nanos, to_text

__all__ = ["HOUR", "HOURS_A_MONTH", "MoneyError", "cost", "from_list", "rounded", "to_nanos", "to_text"]
