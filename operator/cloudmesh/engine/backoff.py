"""How long to wait before the next try."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential growth with jitter, so that many failures don't come back at one moment.

    Args:
        base_seconds: Upper bound of the first wait.
        cap_seconds: Upper bound of every wait.
        full_jitter: Waits are drawn from 0 to the bound; else from half the bound to the bound.
    """

    base_seconds: float = 0.25
    cap_seconds: float = 60.0
    full_jitter: bool = False

    def bound(self, failures: int) -> float:
        """The longest wait after that many failures in a row (1 is the first)."""
        exponent = min(max(failures, 1) - 1, 62)
        return min(self.cap_seconds, self.base_seconds * 2.0**exponent)

    def delay(self, failures: int, rng: random.Random) -> float:
        """Seconds to wait after that many failures in a row."""
        bound = self.bound(failures)
        return rng.uniform(0.0 if self.full_jitter else bound / 2, bound)
