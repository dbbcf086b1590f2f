"""The small operator on our engine, as a process: `python -m benchmarks.engine_parts.ours`."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.engine_parts.tally import Tally
from benchmarks.engine_parts.widgets import WIDGET, status_for
from cloudmesh import operator
from cloudmesh.engine import Done, Engine, Key, Obj, Resource, Settings


class Widgets:
    """Writes the status of widgets."""

    resource = WIDGET
    owns: Sequence[Resource] = ()

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tally = Tally()

    async def reconcile(self, key: Key, obj: Obj) -> Done:
        """One write at most."""
        await self._engine.status.write(WIDGET, obj, status_for(obj["spec"], obj["metadata"]["generation"]))
        self._tally.handled(key.name)
        return Done()

    def forget(self, key: Key) -> None:
        """Nothing is held."""


def make(engine: Engine, settings: Settings) -> Widgets:
    """The factory for the operator's table."""
    return Widgets(engine)


if __name__ == "__main__":
    operator.run([make])
