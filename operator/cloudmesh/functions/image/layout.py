"""Images in the file system: OCI layouts (read and written) and OCI archives that container runtimes import."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cloudmesh.engine.errors import InvalidRequest
from cloudmesh.functions.image.blobs import Blob, Layer
from cloudmesh.functions.image.layer import Entry, File, write_tar
from cloudmesh.functions.image.oci import (
    CONFIG,
    MANIFEST,
    Descriptor,
    Manifest,
    Platform,
    RunConfig,
    canonical_json,
    config_json,
    index_json,
    manifest_json,
    parse_document,
    parse_index,
    sha256,
)

_REF_NAME = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME = "io.containerd.image.name"
_LAYOUT = canonical_json({"imageLayoutVersion": "1.0.0"})


@dataclass(frozen=True)
class Image:
    """An image for one platform: layers and how a container of it starts."""

    platform: Platform
    run: RunConfig
    layers: tuple[Layer, ...]

    @cached_property
    def config(self) -> Blob:
        """The configuration."""
        return Blob.of(CONFIG, config_json(self.platform, self.run, (layer.diff_id for layer in self.layers)))

    @cached_property
    def manifest(self) -> Blob:
        """The manifest; its digest is the image's."""
        return Blob.of(MANIFEST, manifest_json(self.config.descriptor, (layer.descriptor for layer in self.layers)))

    @property
    def digest(self) -> str:
        """The image's digest."""
        return self.manifest.descriptor.digest

    def blobs(self) -> Iterator[Blob]:
        """Everything the image consists of: layers, configuration, manifest last."""
        yield from (layer.blob for layer in self.layers)
        yield self.config
        yield self.manifest


def layout_entries(images: Mapping[str, Image], prefix: str = "") -> list[File]:
    """The files of an OCI layout that holds `images` under their names.

    Args:
        images: reference name -> image.
        prefix: folder of the layout, ending in `/`; empty for the top.
    """
    return _entries({name: {_REF_NAME: name} for name in images}, images, prefix)


def _entries(annotations: Mapping[str, Mapping[str, str]], images: Mapping[str, Image], prefix: str) -> list[File]:
    manifests = []
    blobs: dict[str, Blob] = {}
    for name in sorted(images):
        image = images[name]
        for blob in image.blobs():
            blobs[blob.descriptor.digest] = blob
        described = image.manifest.descriptor
        manifests.append(
            Descriptor(
                described.media_type,
                described.digest,
                described.size,
                annotations=annotations[name],
                platform=image.platform,
            )
        )
    return [
        File.of(f"{prefix}oci-layout", _LAYOUT),
        File.of(f"{prefix}index.json", index_json(manifests)),
        *(
            File(f"{prefix}blobs/{digest.replace(':', '/')}", blob.descriptor.size, blob.read)
            for digest, blob in blobs.items()
        ),
    ]


def write_layout(folder: Path, images: Mapping[str, Image]) -> None:
    """Write `images` as an OCI layout into `folder`."""
    for file in layout_entries(images):
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.read())


def write_archive(path: Path, images: Mapping[str, Image]) -> None:
    """Write an OCI archive that `ctr images import`, `kind load image-archive` and `podman load` read.

    Args:
        path: the file, replaced at once when the archive is complete.
        images: full name with tag, such as `cloudmesh.local/operator:0.1.0-0123456789ab` -> image.
    """
    annotations = {name: {_CONTAINERD_NAME: name, _REF_NAME: name.rpartition(":")[2]} for name in images}
    entries: list[Entry] = list(_entries(annotations, images, ""))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as out:
        write_tar(entries, out)
    part.replace(path)


class Layout:
    """An OCI layout that is read; layers stay on disk until someone opens them.

    Args:
        folder: where `oci-layout` and `index.json` are.

    Raises:
        InvalidRequest: it is no OCI layout, or a document in it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            manifests = parse_index((folder / "index.json").read_bytes(), str(folder / "index.json"))
        except OSError as error:
            raise InvalidRequest(f"{folder}: not an OCI layout ({error.strerror})") from error
        self._by_name = {item.annotations.get(_REF_NAME, item.digest): item for item in manifests}

    @property
    def names(self) -> tuple[str, ...]:
        """The reference names in it."""
        return tuple(sorted(self._by_name))

    def image(self, name: str) -> Image:
        """The image called `name`.

        Raises:
            InvalidRequest: there is none, or a document is damaged.
        """
        described = self._by_name.get(name)
        if described is None:
            raise InvalidRequest(f"{self._folder}: no image {name!r}; it has {', '.join(self.names) or 'none'}")
        manifest = Manifest.parse(self._document(described), f"{self._folder}: {name}")
        config = parse_document(self._document(manifest.config), f"{self._folder}: {name}: config")
        diff_ids = config.get("rootfs", {}).get("diff_ids", [])
        if len(diff_ids) != len(manifest.layers):
            raise InvalidRequest(f"{self._folder}: {name}: {len(diff_ids)} diff_ids, {len(manifest.layers)} layers")
        image = Image(
            Platform(str(config.get("os", "")), str(config.get("architecture", ""))),
            _run_config(config.get("config") or {}),
            tuple(
                Layer(diff_id, Blob(layer, self._path(layer.digest)))
                for diff_id, layer in zip(diff_ids, manifest.layers, strict=True)
            ),
        )
        if image.digest != described.digest:
            raise InvalidRequest(f"{self._folder}: {name} was not made by this program: its digest can't be made again")
        return image

    def _path(self, digest: str) -> Path:
        return self._folder / "blobs" / digest.replace(":", "/")

    def _document(self, described: Descriptor) -> bytes:
        try:
            data = self._path(described.digest).read_bytes()
        except OSError as error:
            raise InvalidRequest(f"{self._folder}: {described.digest}: {error.strerror}") from error
        if sha256(data) != described.digest:
            raise InvalidRequest(f"{self._folder}: {described.digest}: damaged")
        return data


def _run_config(value: Mapping[str, object]) -> RunConfig:
    def texts(name: str) -> list[str]:
        found = value.get(name)
        return [str(item) for item in found] if isinstance(found, list) else []

    labels, ports = value.get("Labels"), value.get("ExposedPorts")
    return RunConfig(
        entrypoint=texts("Entrypoint"),
        env=dict(item.partition("=")[::2] for item in texts("Env")),
        user=str(value.get("User", "")),
        working_dir=str(value.get("WorkingDir", "")),
        labels={str(k): str(v) for k, v in labels.items()} if isinstance(labels, dict) else {},
        ports=sorted(int(str(port).partition("/")[0]) for port in ports) if isinstance(ports, dict) else (),
    )
