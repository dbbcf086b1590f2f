"""Layers on disk and images in files: found again, made again when lost or damaged."""

from __future__ import annotations

import io
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloudmesh.engine.errors import InvalidRequest
from cloudmesh.functions.image.blobs import LayerStore, layer_of
from cloudmesh.functions.image.layer import Entry, File, decompress
from cloudmesh.functions.image.layout import Image, Layout, write_archive, write_layout
from cloudmesh.functions.image.oci import Platform, RunConfig, sha256

_ENTRIES: list[Entry] = [File.of("opt/x", b"content" * 1000)]
_AMD64 = Platform("linux", "amd64")


def _image(*layers: str) -> Image:
    run = RunConfig(["/bin/x"], {"B": "2", "A": "1=1"}, "65532:65532", "/tmp", {"l": "v"}, [8080])
    return Image(_AMD64, run, tuple(layer_of([File.of(f"opt/{name}", name.encode())]) for name in layers))


def test_a_layer_is_made_once_and_outlives_the_process(tmp_path: Path) -> None:
    made = []

    def make() -> list[Entry]:
        made.append(1)
        return _ENTRIES

    first = LayerStore(tmp_path).get_or_make("key", make)
    again = LayerStore(tmp_path).get_or_make("key", make)
    assert (first.diff_id, first.descriptor) == (again.diff_id, again.descriptor)
    assert first.descriptor == layer_of(_ENTRIES).descriptor
    assert len(made) == 1
    other = LayerStore(tmp_path).get_or_make("other key, same content", make)
    assert other.descriptor == first.descriptor
    assert len(list((tmp_path / "blobs").iterdir())) == 1


def test_a_large_layer_is_the_same_from_disk_as_from_memory(tmp_path: Path) -> None:
    entries: list[Entry] = [File.of(f"opt/{i}", bytes([i]) * 1_000_000) for i in range(6)]
    layer = LayerStore(tmp_path).get_or_make("key", lambda: entries)
    assert layer.descriptor == layer_of(entries).descriptor
    assert sha256(decompress(layer.blob.read(), 1 << 30)) == layer.diff_id


@pytest.mark.parametrize("damage", ["truncate", "remove", "record"])
def test_what_is_lost_is_made_again(tmp_path: Path, damage: str) -> None:
    store = LayerStore(tmp_path)
    layer = store.get_or_make("key", lambda: _ENTRIES)
    (blob,) = (tmp_path / "blobs").iterdir()
    match damage:
        case "truncate":
            blob.write_bytes(b"x")
        case "remove":
            blob.unlink()
        case _:
            for record in (tmp_path / "input").iterdir():
                record.write_bytes(b"{")
    assert store.find("key") is None
    again = store.get_or_make("key", lambda: _ENTRIES)
    assert again.descriptor == layer.descriptor
    assert store.verified(again)


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    layer = store.get_or_make("key", lambda: _ENTRIES)
    (blob,) = (tmp_path / "blobs").iterdir()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    assert not store.verified(layer)
    assert store.find("key") is None


def test_the_longest_unused_layers_go_first(tmp_path: Path) -> None:
    store = LayerStore(tmp_path, limit=1)
    store.get_or_make("one", lambda: _ENTRIES)
    last = store.get_or_make("two", lambda: [File.of("opt/y", b"other")])
    assert store.find("one") is None
    assert store.find("two") == last


def test_threads_that_make_the_same_layer_agree(tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        layers = list(pool.map(lambda _: store.get_or_make("key", lambda: _ENTRIES), range(16)))
    assert len({layer.descriptor for layer in layers}) == 1
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> bytes:
        raise InvalidRequest("broken wheel")

    store = LayerStore(tmp_path)
    with pytest.raises(InvalidRequest):
        store.get_or_make("key", lambda: [File("opt/x", 1, fail)])
    assert store.find("key") is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_layout_comes_back(tmp_path: Path) -> None:
    images = {"base": _image("a"), "runtime": _image("a", "b")}
    write_layout(tmp_path, images)
    layout = Layout(tmp_path)
    assert layout.names == ("base", "runtime")
    for name, image in images.items():
        found = layout.image(name)
        assert found.digest == image.digest
        assert found.run == image.run
        assert [layer.blob.read() for layer in found.layers] == [layer.blob.read() for layer in image.layers]
    with pytest.raises(InvalidRequest, match="no image 'other'; it has base, runtime"):
        layout.image("other")


def test_a_damaged_layout_is_refused(tmp_path: Path) -> None:
    image = _image("a")
    write_layout(tmp_path, {"base": image})
    config = tmp_path / "blobs" / image.config.descriptor.digest.replace(":", "/")
    config.write_bytes(config.read_bytes().replace(b"amd64", b"arm64"))
    with pytest.raises(InvalidRequest, match="damaged"):
        Layout(tmp_path).image("base")
    (tmp_path / "index.json").write_text("[]")
    with pytest.raises(InvalidRequest, match=r"index.json"):
        Layout(tmp_path)
    with pytest.raises(InvalidRequest, match="not an OCI layout"):
        Layout(tmp_path / "nowhere")


def test_an_archive_is_what_container_runtimes_import(tmp_path: Path) -> None:
    image = _image("a", "b")
    name = "cloudmesh.local/demo:1-abc"
    write_archive(tmp_path / "x.tar", {name: image})
    write_archive(tmp_path / "y.tar", {name: image})
    data = (tmp_path / "x.tar").read_bytes()
    assert data == (tmp_path / "y.tar").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()

        def read(path: str) -> bytes:
            stream = archive.extractfile(path)
            assert stream is not None
            return stream.read()

        assert json.loads(read("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
        (described,) = json.loads(read("index.json"))["manifests"]
        assert described["digest"] == image.digest
        assert described["annotations"]["io.containerd.image.name"] == name
        assert described["annotations"]["org.opencontainers.image.ref.name"] == "1-abc"
        for path in names:
            if path.startswith("blobs/sha256/"):
                assert sha256(read(path)) == "sha256:" + path.rpartition("/")[2]
        config = json.loads(read("blobs/" + image.config.descriptor.digest.replace(":", "/")))
    assert config["created"] == "1970-01-01T00:00:00Z"
    assert config["config"]["Env"] == ["A=1=1", "B=2"]
    assert config["rootfs"]["diff_ids"] == [layer.diff_id for layer in image.layers]
