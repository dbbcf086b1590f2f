"""The Dockerfile makes the image that `make images` makes: buildah builds it on our base, without a daemon."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zstandard
from images import debian
from images.__main__ import build, write_base
from images.compose import ROOT, default_cache
from images.wheels import index_environment

_PACKAGES = (
    "buildah",
    "golang-github-containers-common",
    "golang-github-containers-image",
    "libassuan0",
    "libdevmapper1.02.1",
    "libgpgme11",
    "libseccomp2",
)
_OURS = (
    "usr/local/lib/python3.11/dist-packages/cloudmesh/",
    "usr/local/lib/python3.11/dist-packages/cloudmesh_function/",
    "usr/local/bin/cms",
)
_IN_NAMESPACE = """
set -e
mount -t overlay overlay -o "lowerdir=$PACKAGES/usr:/usr" /usr
exec "$@"
"""


class Buildah:
    """buildah out of unpacked Debian packages, in a mount namespace of its own; nothing is installed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._packages = folder / "packages"
        self._packages.mkdir(parents=True)
        debs = debian.packages(_PACKAGES, default_cache() / "debs")
        for path in debs.values():
            subprocess.run(["dpkg-deb", "-x", path, self._packages], check=True)
        self.policy = self._packages / "etc" / "containers" / "policy.json"

    def __call__(self, *arguments: str) -> str:
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _IN_NAMESPACE, "sh", "buildah"]
        command += ["--root", str(self._folder / "store"), "--runroot", str(self._folder / "run")]
        command += ["--storage-driver", "vfs", *arguments]
        run = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PACKAGES": str(self._packages)},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert run.returncode == 0, f"{run.stdout[-4000:]}\n{run.stderr[-4000:]}"
        return run.stdout


def _read(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Configuration and files of ours of the image in an OCI archive."""
    with tarfile.open(path) as archive:

        def blob(digest: str) -> bytes:
            stream = archive.extractfile("blobs/" + digest.replace(":", "/"))
            assert stream is not None
            return stream.read()

        stream = archive.extractfile("index.json")
        assert stream is not None
        manifest = json.loads(blob(json.load(stream)["manifests"][0]["digest"]))
        files: dict[str, bytes] = {}
        for layer in manifest["layers"]:
            data = blob(layer["digest"])
            if layer["mediaType"].endswith("zstd"):
                data = zstandard.ZstdDecompressor().decompress(data)
            with tarfile.open(fileobj=io.BytesIO(data)) as content:
                for member in content:
                    name = member.name.removeprefix("./")
                    if name.startswith(_OURS) and member.isreg() and "__pycache__" not in name:
                        found = content.extractfile(member)
                        assert found is not None
                        files[name] = found.read()
        config: dict[str, Any] = json.loads(blob(manifest["config"]["digest"]))["config"]
        return config, files


def _index_arguments(environment: Mapping[str, str]) -> list[str]:
    """The machine's package index and authorities, as arguments of the build."""
    found = environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL") or environment.get("PIP_INDEX_URL")
    if not found:
        from pip._internal.models.index import PyPI  # what pip itself would ask

        found = PyPI.simple_url
    arguments = ["--build-arg", f"PIP_INDEX_URL={found}"]
    bundle = environment.get("SSL_CERT_FILE")
    if bundle:
        inside = "/run/ca/ca.crt"
        arguments += ["--build-arg", f"SSL_CERT_FILE={inside}", "-v", f"{Path(bundle).resolve()}:{inside}:ro"]
    return arguments


def test_the_dockerfile_makes_the_same_image(tmp_path: Path) -> None:
    out = tmp_path / "images"
    write_base(out, default_cache())
    build(out, default_cache(), ("operator",))
    buildah = Buildah(tmp_path / "buildah")
    buildah(
        "bud",
        *("--isolation", "chroot", "--signature-policy", str(buildah.policy)),
        *("--build-arg", f"BASE=oci-archive:{out / 'base' / 'base.tar'}"),
        *_index_arguments(index_environment()),
        *("-t", "operator", "."),
    )
    archive = tmp_path / "docker.tar"
    buildah("push", "--signature-policy", str(buildah.policy), "localhost/operator", f"oci-archive:{archive}")
    config, files = _read(archive)
    expected_config, expected = _read(out / "operator.tar")
    assert config["Entrypoint"] == expected_config["Entrypoint"]
    assert config["User"] == expected_config["User"]
    assert config["WorkingDir"] == expected_config["WorkingDir"]
    assert len(expected) > 50
    assert files == expected
    container = buildah("from", "--pull-never", "localhost/operator").strip()
    program = "import kopf, kubernetes, cloudmesh.operator, cloudmesh.functions.builder.__main__; print('imports')"
    assert "imports" in buildah("run", "--isolation", "chroot", container, "/usr/bin/python3.11", "-c", program)
