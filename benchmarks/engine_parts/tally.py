"""How many objects a process has handled, told on stdout so that the benchmark needs no port of it."""

from __future__ import annotations

import sys


class Tally:
    """Counts distinct names; prints the count at 1, and at each 100 more."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def handled(self, name: str) -> None:
        """Counts an object."""
        before = len(self._names)
        self._names.add(name)
        if len(self._names) > before and (before == 0 or len(self._names) % 100 == 0):
            sys.stdout.write(f"{len(self._names)}\n")
            sys.stdout.flush()
