"""Back ends that many cases share, one after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

T = TypeVar("T")


@contextlib.contextmanager
def one_at_a_time(start: Callable[[str], AbstractContextManager[T]]) -> Iterator[Callable[[str], T]]:
    """Gives what runs under a name, for as long as the same name is asked for; another name ends it.

    A parametrized fixture is no way to this: beside a parameter of the test itself pytest makes it anew for each test.
    """
    running: dict[str, T] = {}
    with contextlib.ExitStack() as stack:

        def get(name: str) -> T:
            if name not in running:
                running.clear()
                stack.close()
                running[name] = stack.enter_context(start(name))
            return running[name]

        yield get
