"""The pause image: one static file, written as an OCI archive by the standard library alone."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any


def _tar(files: dict[str, bytes], mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def write_archive(target: Path, name: str, binary: Path, architecture: str) -> str:
    """Write an image that holds and runs one static binary.

    Args:
        target: the OCI archive to write.
        name: full reference the image is imported under, such as `registry.example/pause:1`.
        binary: static executable, placed at `/` under its own name.
        architecture: OCI name of the machine's architecture, such as `amd64`.

    Returns:
        Digest of the manifest (`sha256:…`); equal input gives an equal digest.
    """
    blobs: dict[str, bytes] = {}

    def put(media_type: str, content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def put_json(media_type: str, document: dict[str, Any]) -> dict[str, Any]:
        return put(media_type, json.dumps(document, sort_keys=True).encode())

    layer = _tar({binary.name: binary.read_bytes()}, 0o755)
    layer_entry = put("application/vnd.oci.image.layer.v1.tar", layer)
    config_entry = put_json(
        "application/vnd.oci.image.config.v1+json",
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Entrypoint": [f"/{binary.name}"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [layer_entry["digest"]]},
        },
    )
    manifest_entry = put_json(
        "application/vnd.oci.image.manifest.v1+json",
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config_entry,
            "layers": [layer_entry],
        },
    )
    manifest_entry["annotations"] = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rpartition(":")[2],
    }
    index = {"schemaVersion": 2, "manifests": [manifest_entry]}
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode(), **blobs}
    target.write_bytes(_tar(files, 0o644))
    return str(manifest_entry["digest"])
