"""What all reconcilers of one engine share: made once, by whoever asks first."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from cloudmesh.engine.engine import Engine

_Make = TypeVar("_Make", bound=Callable[..., Any])


def per_engine(make: _Make) -> _Make:
    """Makes a function that makes something into one that gives the same to all who ask for an engine's.

    Args:
        make: Takes the engine, and options, which count for the first who asks.
    """
    made: WeakKeyDictionary[Engine, Any] = WeakKeyDictionary()

    @wraps(make)
    def find(engine: Engine, *args: Any, **options: Any) -> Any:
        if engine not in made:
            made[engine] = make(engine, *args, **options)
        return made[engine]

    return cast("_Make", find)
