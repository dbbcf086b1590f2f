"""Layers: the same input gives the same bytes, anywhere; odd paths are refused."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.functions.layer_entries import ENTRIES

from cloudmesh.engine.errors import InvalidRequest
from cloudmesh.functions.image.blobs import layer_of
from cloudmesh.functions.image.layer import Entry, File, decompress, write_tar

# What any machine must give for these entries; a change here makes every layer that was ever pushed anew.
_DIFF_ID = "sha256:0ac69295da8f5d2bbb3baed1a0a20293595ebe5dd7c4278d530899b5d0ec5680"
_DIGEST = "sha256:0e2921c751fcec9936ec052751ed0380dfa1eeed1540a5a3d40059f051aed31f"

_PROGRAM = """
import sys
sys.path[:0] = sys.argv[1:3]
from tests.unit.functions.layer_entries import ENTRIES
from cloudmesh.functions.image.blobs import layer_of
layer = layer_of(ENTRIES)
print(layer.diff_id, layer.descriptor.digest)
"""


def _tar(entries: list[Entry]) -> bytes:
    out = io.BytesIO()
    write_tar(entries, out)
    return out.getvalue()


def test_one_digest_in_twenty_orders() -> None:
    seen = set()
    for seed in range(20):
        entries = list(ENTRIES)
        random.Random(seed).shuffle(entries)
        layer = layer_of(entries)
        seen.add((layer.diff_id, layer.descriptor.digest))
    assert seen == {(_DIFF_ID, _DIGEST)}


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C"},
        {"PYTHONHASHSEED": "4711", "TZ": "Asia/Kathmandu", "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": "1"},
    ],
)
def test_one_digest_in_other_processes(environment: dict[str, str]) -> None:
    root = Path(__file__).parents[3]
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(root), str(root / "operator")],
        env={**os.environ, **environment},
        umask=0o077 if environment["TZ"] == "UTC" else 0,
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert run.stdout.split() == [_DIFF_ID, _DIGEST]


def test_entries_carry_nothing_of_the_machine() -> None:
    with tarfile.open(fileobj=io.BytesIO(_tar(ENTRIES))) as archive:
        members = archive.getmembers()
    names = [member.name for member in members]
    assert names == sorted(names, key=lambda name: name.encode())
    assert names.index("opt") < names.index("opt/app") < names.index("opt/app/function.py")
    for member in members:
        assert (member.uid, member.gid, member.uname, member.gname, member.mtime) == (0, 0, "", "", 0)
    modes = {member.name: member.mode for member in members}
    assert modes["opt/app/bin/run"] == 0o755
    assert modes["opt/app/function.py"] == 0o644
    assert modes["opt"] == 0o755
    assert modes["tmp"] == 0o1777
    assert len(_tar(ENTRIES)) % 10240 == 0


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../b", "a//b", "./a", "", "a/", "a\\b", "a\0b", "."])
def test_odd_paths_are_refused(path: str) -> None:
    with pytest.raises(InvalidRequest, match="path"):
        _tar([File.of(path, b"")])


def test_a_path_is_there_once_and_is_one_thing() -> None:
    with pytest.raises(InvalidRequest, match="twice"):
        _tar([File.of("a", b"1"), File.of("a", b"2")])
    with pytest.raises(InvalidRequest, match="at once"):
        _tar([File.of("a", b"1"), File.of("a/b", b"2")])


def test_a_file_that_changes_while_it_is_read_is_noticed() -> None:
    with pytest.raises(InvalidRequest, match="3 bytes instead of 2"):
        _tar([File("a", 2, lambda: b"abc")])


def test_decompress_checks_the_size_first() -> None:
    packed = zstandard.ZstdCompressor().compress(bytes(1 << 20))
    assert decompress(packed, 1 << 20) == bytes(1 << 20)
    with pytest.raises(InvalidRequest, match="limit"):
        decompress(packed, (1 << 20) - 1)
    with pytest.raises(InvalidRequest, match="layer"):
        decompress(b"no frame", 100)


_names = st.text(
    st.characters(exclude_characters="/\\\0", exclude_categories=("Cs",)), min_size=1, max_size=120
).filter(lambda name: name not in (".", ".."))


@given(st.dictionaries(_names, st.binary(max_size=50), max_size=8), st.randoms(use_true_random=False))
def test_any_names_come_back(files: dict[str, bytes], order: random.Random) -> None:
    entries: list[Entry] = [File.of(f"top/{name}", data) for name, data in files.items()]
    first = _tar(entries)
    order.shuffle(entries)
    assert _tar(entries) == first
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        found = {}
        for member in archive:
            stream = archive.extractfile(member) if member.isreg() else None
            if stream is not None:
                found[member.name] = stream.read()
    assert found == {f"top/{name}": data for name, data in files.items()}
