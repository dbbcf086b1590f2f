"""What `make up` and `make down` say: one line a step, with the time it took."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator


class TestbedError(Exception):
    """Something the reader can mend; the message says what it is and what to do."""

    __test__ = False


def say(text: str) -> None:
    """Write one line to standard error, so that standard output stays free for results."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(text: str, hint: str = "") -> Iterator[None]:
    """Print a line for a step when it is done, with its seconds; with a hint (for slow steps) also when it starts."""
    if hint:
        say(f"  ....... {text}: {hint}")
    start = time.monotonic()
    yield
    say(f"  {time.monotonic() - start:5.1f} s  {text}")
