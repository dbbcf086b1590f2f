"""A prefix within another directory's: whoever comes later gives way, and nothing of the other one is touched."""

import msgspec
import pytest
from tests.unit.data.virtual import virtual

from cloudmesh.data.following import Following
from cloudmesh.data.mesh import MARKER
from cloudmesh.data.stores.ports import Ours
from cloudmesh.engine.errors import AuthFailed
from cloudmesh.testing.directories.world import Fault, World


async def second(w: World, prefix: str, **changes: object) -> World:
    """Another directory over the same stores."""
    (w.folder / "second").mkdir()
    other = World(w.folder / "second", [])
    stores = tuple(msgspec.structs.replace(store, prefix=prefix) for store in w.config.stores)
    other.config = msgspec.structs.replace(w.config, **{"name": "other", "uid": "uid2", "stores": stores} | changes)
    other.faults = w.faults
    return await other.start(background=False)


@pytest.mark.parametrize(
    ("prefix", "state"),
    [("lab/sub/", "Claimed"), ("lab/a/b/", "Claimed"), ("labs/", "Up"), ("la/", "Up"), ("", "Up")],
)
def test_who_comes_later_gives_way(tmp_path, prefix, state):
    @virtual()
    async def run(w: World):
        other = await second(w, prefix)
        assert {member.state for member in other.mesh.members.values()} == {state}
        if state == "Claimed":
            assert "lies within 'lab/', which belongs to the directory ns/lab" in other.member("a").message
            assert not [key for key in w.place("a").objects if key.startswith(prefix) and key.endswith(MARKER)]

    run(tmp_path)


@virtual()
async def test_its_own_prefix_above_is_no_other_directory(w: World):
    other = await second(w, "lab/sub/", name="lab", uid="uid")
    assert {member.state for member in other.mesh.members.values()} == {"Up"}


@virtual()
async def test_keys_that_reach_no_further_than_the_prefix(w: World):
    for store in w.names:
        w.faults.planned.append(Fault(store, "read", error=AuthFailed("no"), key="elsewhere/.cloudmesh", times=-1))
    other = await second(w, "elsewhere/deep/")
    assert {member.state for member in other.mesh.members.values()} == {"Up"}


@virtual("a")
async def test_what_another_directory_is_just_writing_goes_on(w: World):
    await second(w, "elsewhere/")
    w.place("a").put(f"lab/sub/{MARKER}", w.place("a").objects[f"elsewhere/{MARKER}"].content)
    uploads = {"lab/sub/f", "lab/f"}

    async def sweep(prefix: str, older_than_seconds: int, *, ours: Ours | None = None) -> int:
        assert ours is not None
        uploads.difference_update([key for key in sorted(uploads) if await ours(key)])
        return 0

    w.member("a").store.sweep = sweep  # type: ignore[attr-defined]
    await Following(w.tree, stir=lambda: None, clock=w.clock).look(w.member("a"))
    assert uploads == {"lab/sub/f"}
