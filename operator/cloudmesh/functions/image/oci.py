"""The JSON documents of an OCI image in canonical form: descriptors, configuration, manifest and index."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from cloudmesh.engine.errors import InvalidRequest

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
EMPTY = "application/vnd.oci.empty.v1+json"
EMPTY_JSON = b"{}"

EPOCH = "1970-01-01T00:00:00Z"
"""The creation time of everything made here: a real one would change the digest of equal content."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def canonical_json(value: object) -> bytes:
    """Serialize to the one byte string that stands for `value`: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256(data: bytes | bytearray | memoryview) -> str:
    """The digest of `data` as OCI writes it, `sha256:<64 hex>`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def check_digest(value: object, where: str) -> str:
    """Return `value` if it is a SHA-256 digest.

    Raises:
        InvalidRequest: it is something else; the message names `where` it stood.
    """
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise InvalidRequest(f"{where}: {value!r} is no sha256 digest")
    return value


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on, `linux/amd64`."""

    os: str
    architecture: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `os/architecture`.

        Raises:
            InvalidRequest: the text has another form.
        """
        os_name, slash, architecture = text.partition("/")
        if not slash or not os_name or not architecture or "/" in architecture:
            raise InvalidRequest(f"platform {text!r}: write it as os/architecture, such as linux/amd64")
        return cls(os_name, architecture)

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}"

    def to_json(self) -> dict[str, str]:
        """The `platform` object of a descriptor."""
        return {"architecture": self.architecture, "os": self.os}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference to content by media type, digest and size in bytes."""

    media_type: str
    digest: str
    size: int
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    platform: Platform | None = None

    @classmethod
    def of(cls, media_type: str, data: bytes) -> Self:
        """Describe `data`."""
        return cls(media_type, sha256(data), len(data))

    @classmethod
    def from_json(cls, value: object, where: str) -> Self:
        """Read a descriptor that came from outside.

        Raises:
            InvalidRequest: a field is missing or of the wrong type.
        """
        if not isinstance(value, dict):
            raise InvalidRequest(f"{where}: not a descriptor")
        media_type, size = value.get("mediaType"), value.get("size")
        if not isinstance(media_type, str) or not isinstance(size, int) or size < 0:
            raise InvalidRequest(f"{where}: descriptor without mediaType or size")
        platform = value.get("platform")
        read = None
        if isinstance(platform, dict):
            read = Platform(str(platform.get("os", "")), str(platform.get("architecture", "")))
        annotations = value.get("annotations")
        return cls(
            media_type,
            check_digest(value.get("digest"), where),
            size,
            str(value.get("artifactType", "")),
            {str(k): str(v) for k, v in annotations.items()} if isinstance(annotations, dict) else {},
            read,
        )

    def to_json(self) -> dict[str, Any]:
        """The descriptor as a JSON object, empty fields left out."""
        value: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        if self.platform:
            value["platform"] = self.platform.to_json()
        return value


EMPTY_CONFIG = Descriptor.of(EMPTY, EMPTY_JSON)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """How a container of the image starts."""

    entrypoint: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Sequence[int] = ()

    def to_json(self) -> dict[str, Any]:
        """The `config` object of an image configuration, empty fields left out."""
        value: dict[str, Any] = {}
        if self.entrypoint:
            value["Entrypoint"] = list(self.entrypoint)
        if self.env:
            value["Env"] = [f"{name}={self.env[name]}" for name in sorted(self.env)]
        if self.user:
            value["User"] = self.user
        if self.working_dir:
            value["WorkingDir"] = self.working_dir
        if self.labels:
            value["Labels"] = dict(self.labels)
        if self.ports:
            value["ExposedPorts"] = {f"{port}/tcp": {} for port in self.ports}
        return value


def config_json(platform: Platform, run: RunConfig, diff_ids: Iterable[str]) -> bytes:
    """The image configuration."""
    return canonical_json(
        {
            "architecture": platform.architecture,
            "os": platform.os,
            "created": EPOCH,
            "config": run.to_json(),
            "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        }
    )


def manifest_json(
    config: Descriptor,
    layers: Iterable[Descriptor],
    *,
    artifact_type: str = "",
    subject: Descriptor | None = None,
    annotations: Mapping[str, str] | None = None,
) -> bytes:
    """An image manifest, or with `artifact_type` and `subject` an artifact that refers to another manifest."""
    value: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    if artifact_type:
        value["artifactType"] = artifact_type
    if subject:
        value["subject"] = {"mediaType": subject.media_type, "digest": subject.digest, "size": subject.size}
    if annotations:
        value["annotations"] = dict(annotations)
    return canonical_json(value)


def index_json(manifests: Iterable[Descriptor], annotations: Mapping[str, str] | None = None) -> bytes:
    """An index over `manifests`, in the order given."""
    value: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [manifest.to_json() for manifest in manifests],
    }
    if annotations:
        value["annotations"] = dict(annotations)
    return canonical_json(value)


def parse_document(data: bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object that came from a registry or a layout.

    Raises:
        InvalidRequest: it is no JSON object.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{where}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise InvalidRequest(f"{where}: not a JSON object")
    return value


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest that was read."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str
    subject: Descriptor | None
    annotations: Mapping[str, str] = field(hash=False)

    @classmethod
    def parse(cls, data: bytes, where: str) -> Self:
        """Read a manifest.

        Raises:
            InvalidRequest: it is no image manifest.
        """
        value = parse_document(data, where)
        layers = value.get("layers")
        if not isinstance(layers, list):
            raise InvalidRequest(f"{where}: not an image manifest (it has no list `layers`)")
        subject, annotations = value.get("subject"), value.get("annotations")
        return cls(
            Descriptor.from_json(value.get("config"), f"{where}: config"),
            tuple(Descriptor.from_json(layer, f"{where}: layers[{i}]") for i, layer in enumerate(layers)),
            str(value.get("artifactType", "")),
            Descriptor.from_json(subject, f"{where}: subject") if subject is not None else None,
            {str(k): str(v) for k, v in annotations.items()} if isinstance(annotations, dict) else {},
        )


def parse_index(data: bytes, where: str) -> tuple[Descriptor, ...]:
    """The manifests that an index lists.

    Raises:
        InvalidRequest: it is no index.
    """
    manifests = parse_document(data, where).get("manifests")
    if not isinstance(manifests, list):
        raise InvalidRequest(f"{where}: not an image index (it has no list `manifests`)")
    return tuple(Descriptor.from_json(item, f"{where}: manifests[{i}]") for i, item in enumerate(manifests))
