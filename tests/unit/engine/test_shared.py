"""What reconcilers of one engine share is made once, and goes with its engine."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from cloudmesh.engine import per_engine


class Place:
    """Stands for an engine."""


class Thing:
    """Something shared, with the options that it was made with."""

    def __init__(self, *options: Any) -> None:
        self.options = options


def test_one_for_each_engine_made_as_the_first_who_asks_wants_it() -> None:
    @per_engine
    def thing_of(engine: Any, option: str = "usual") -> Thing:
        """Words."""
        return Thing(option)

    one, other = Place(), Place()
    first = thing_of(one, option="odd")
    assert thing_of(one) is thing_of(one, "else") is first
    assert first.options == ("odd",)
    assert thing_of(other) is not first and thing_of(other).options == ("usual",)
    assert thing_of.__doc__ == "Words."
    gone = weakref.ref(first)
    del one, first
    gc.collect()
    assert gone() is None
