"""The model as a state machine of Hypothesis: random operations and faults, then everything is looked at."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from cloudmesh.engine.errors import AuthFailed, RateLimited, Transient
from cloudmesh.testing.directories.model import Model, Tally
from cloudmesh.testing.directories.world import Fault, World

FILES = st.sampled_from(["f", "g", "d/f", "d/g", "e/f", "d/e/f"])
DIRECTORIES = st.sampled_from(["d", "e", "d/e", "h"])
ANYTHING = st.one_of(FILES, DIRECTORIES)
STORES = st.sampled_from("abc")
SIZES = st.sampled_from([0, 1, 10, 300, 3000])
ERRORS = {"transient": Transient, "rate": RateLimited, "auth": AuthFailed}


class Machine(RuleBasedStateMachine):
    """Each operation is a rule; the end is `Model.settle`. What goes wrong raises at once."""

    tally: ClassVar[Tally | None] = None
    """Takes the figures of all runs; None for one each."""
    make_world: ClassVar[Callable[..., World]] = World
    """Makes the directory, with its catalogue."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable(logging.CRITICAL)
        self.folder = Path(tempfile.mkdtemp(prefix="vdir-model-"))
        self.model: Model

    @initialize(
        seed=st.integers(0, 1 << 16), copies=st.integers(1, 3), least=st.integers(1, 2),
        versions=st.sampled_from([0, 2]),
    )  # fmt: skip
    def begin(self, seed: int, copies: int, least: int, versions: int) -> None:
        """A directory of three stores."""
        self.model = Model(self.folder, type(self).tally or Tally(), seed=seed, world=self.make_world)
        self.model.policy(copies, least, "", "", versions=versions)

    def teardown(self) -> None:
        """Faults end; all must be well."""
        try:
            if hasattr(self, "model"):
                self.model.lose_catalogue()
                self._judge()
        finally:
            if hasattr(self, "model"):
                self.model.close()
            shutil.rmtree(self.folder, ignore_errors=True)
            logging.disable(logging.NOTSET)

    def _judge(self) -> None:
        if not self.model.tally.clean:
            told = "\n".join(self.model.log)
            raise AssertionError(f"{self.model.tally.notes[0]}\n{told}")

    @rule(
        path=FILES, size=SIZES, told=st.booleans(), condition=st.sampled_from(["any"] * 3 + ["absent", "same", "wrong"])
    )
    def put(self, path: str, size: int, told: bool, condition: str) -> None:
        """Writes."""
        self.model.put(path, size, told=told, condition=condition)
        self._judge()

    @rule(path=FILES, size=SIZES, seconds=st.sampled_from([1, 5, 90]))
    def put_slowly(self, path: str, size: int, seconds: int) -> None:
        """Writes beside other operations."""
        self.model.put_slowly(path, size, seconds)

    @rule(path=FILES, store=STORES)
    def link(self, path: str, store: str) -> None:
        """Links what somebody else keeps."""
        self.model.link(path, store)
        self._judge()

    @rule(path=FILES)
    def change_linked(self, path: str) -> None:
        """Somebody else changes what is linked."""
        self.model.change_linked(path)

    @rule(path=FILES)
    def adopt(self, path: str) -> None:
        """Makes a link a file."""
        self.model.adopt(path)
        self._judge()

    @rule(path=FILES)
    def read(self, path: str) -> None:
        """Reads."""
        self.model.read(path)
        self._judge()

    @rule(path=FILES, start=st.integers(0, 400), length=st.integers(0, 400))
    def read_range(self, path: str, start: int, length: int) -> None:
        """Reads a part."""
        self.model.read(path, start, length)
        self._judge()

    @rule(source=ANYTHING, to=ANYTHING, overwrite=st.booleans())
    def move(self, source: str, to: str, overwrite: bool) -> None:
        """Renames."""
        self.model.move(source, to, overwrite=overwrite)
        self._judge()

    @rule(path=ANYTHING)
    def delete(self, path: str) -> None:
        """Deletes."""
        self.model.delete(path)
        self._judge()

    @rule(number=st.integers(0, 20), path=st.sampled_from(["", "g", "h", "e/f"]))
    def restore(self, number: int, path: str) -> None:
        """Brings back."""
        self.model.restore(number, path)
        self._judge()

    @rule(path=DIRECTORIES)
    def mkdir(self, path: str) -> None:
        """Makes a directory."""
        self.model.mkdir(path)

    @rule(path=ANYTHING, value=st.sampled_from(["", "red", "blue"]))
    def tag(self, path: str, value: str) -> None:
        """Tags."""
        self.model.tag(path, value)

    @rule(
        copies=st.integers(1, 3), least=st.integers(1, 2), only=st.sampled_from(["", "", "ab", "bc", "ac"]),
        drain=st.sampled_from(["", "", "a", "b", "c"]), versions=st.sampled_from([0, 0, 1, 3]), settle=st.booleans(),
        room=st.sampled_from([0, 0, 20_000]),
    )  # fmt: skip
    def policy(
        self, copies: int, least: int, only: str, drain: str, versions: int, settle: bool, room: int
    ) -> None:  # fmt: skip
        """Another policy."""
        self.model.policy(copies, least, only, drain, versions=versions, settle=settle, room=room)

    @rule(path=FILES, number=st.integers(0, 3))
    def restore_version(self, path: str, number: int) -> None:
        """Brings an older content back."""
        self.model.restore_version(path, number)
        self._judge()

    @rule(path=FILES, number=st.integers(0, 3))
    def delete_version(self, path: str, number: int) -> None:
        """Gives an older content up."""
        self.model.delete_version(path, number)

    @rule(
        where=st.sampled_from(["a", "b", "c", "catalog"]), operation=st.sampled_from(
            ["", "stat", "read", "publish", "delete", "list", "probe", "write"]
        ),
        after=st.booleans(), error=st.sampled_from(["transient"] * 4 + ["rate", "auth"]), times=st.integers(1, 3),
        skip=st.integers(0, 4),
    )  # fmt: skip
    def fault(self, where: str, operation: str, after: bool, error: str, times: int, skip: int) -> None:
        """Calls go wrong."""
        kind: type[Any] = Transient if where == "catalog" or after else ERRORS[error]
        moment: Any = "after" if after else "before"
        self.model.fault(Fault(where, operation, moment, kind("a fault"), "", times, skip))

    @rule(store=STORES)
    def down(self, store: str) -> None:
        """A store goes."""
        self.model.down(store)

    @rule(store=STORES)
    def up(self, store: str) -> None:
        """It comes back."""
        self.model.up(store)

    @rule(calls=st.integers(0, 60))
    def die(self, calls: int) -> None:
        """The process dies."""
        self.model.die(calls)

    @rule(path=FILES, store=STORES, how=st.sampled_from(["lost", "older", "foreign", "kept"]))
    def harm(self, path: str, store: str, how: str) -> None:
        """An object is lost or changed."""
        self.model.harm(path, store, how)

    @rule(path=FILES, store=STORES)
    def flip(self, path: str, store: str) -> None:
        """A bit flips."""
        self.model.flip(path, store)
        self._judge()

    @rule(number=st.integers(0, 20))
    def flip_kept(self, number: int) -> None:
        """A bit flips in the trash."""
        self.model.flip_kept(number)
        self._judge()

    @rule(seconds=st.sampled_from([-600, -61, 0, 61, 3600]))
    def set_clock(self, seconds: int) -> None:
        """The clock is wrong."""
        self.model.set_clock(seconds)

    @rule(store=STORES, seconds=st.sampled_from([0.0, 30.0]))
    def lag(self, store: str, seconds: float) -> None:
        """Listings are late."""
        self.model.lag(store, seconds)

    @rule(seconds=st.sampled_from([0.5, 3.0, 40.0, 120.0]))
    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.model.wait(seconds)

    @rule()
    def settle(self) -> None:
        """All becomes well."""
        self.model.settle()
        self._judge()
