"""The images: made twice they are the same, and what is in them runs."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

from images.compose import Recipe, default_cache

from cloudmesh.functions.image.layer import decompress
from cloudmesh.functions.image.layout import Image

_PROGRAM = """
import bz2, ctypes, decimal, hashlib, lzma, mimetypes, os, sqlite3, ssl, subprocess, uuid, zlib, zoneinfo
import xml.parsers.expat
assert ssl.create_default_context().cert_store_stats()["x509_ca"] > 100
assert str(zoneinfo.ZoneInfo("Europe/Berlin")) == "Europe/Berlin"
assert sqlite3.connect(":memory:").execute("select 1").fetchone() == (1,)
assert subprocess.check_output("cat /etc/passwd | wc -l", shell=True).strip() == b"2"
assert os.getuid() == 65532
assert __import__("json").__cached__.endswith(".pyc") and os.path.exists(__import__("json").__cached__)
assert "é".encode() == os.fsencode("é")
print("fine")
"""


def _unpack(image: Image, folder: Path) -> None:
    folder.mkdir()
    for layer in image.layers:
        data = decompress(layer.blob.read(), 1 << 30)
        subprocess.run(["tar", "-x", "-C", folder, "--numeric-owner", "-p"], input=data, check=True)
    (folder / "dev").mkdir(exist_ok=True)
    for name, minor in (("null", 3), ("urandom", 9)):
        os.mknod(folder / "dev" / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))


def _run(folder: Path, *command: str) -> str:
    run = subprocess.run(
        [shutil.which("chroot") or "/usr/sbin/chroot", "--userspec=65532:65532", folder, *command],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_the_base_runs_and_holds_nothing_odd(tmp_path: Path) -> None:
    image = Recipe(default_cache()).base.image
    assert sum(layer.descriptor.size for layer in image.layers) < 25_000_000
    root = tmp_path / "root"
    _unpack(image, root)
    assert _run(root, "/usr/bin/python3.11", "-c", _PROGRAM) == "fine"
    assert _run(root, "/bin/sh", "-c", "echo $((1 + 1)) | cat") == "2"
    for folder, _, names in os.walk(root):
        for name in names:
            found = (Path(folder) / name).lstat()
            assert not stat.S_ISREG(found.st_mode) or not found.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH)
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777


def test_operator_and_builder_start(tmp_path: Path) -> None:
    image = Recipe(default_cache()).builder
    root = tmp_path / "root"
    _unpack(image, root)
    program = "import kopf, kubernetes, uv, cloudmesh.operator, cloudmesh.functions.builder.__main__; print('imports')"
    assert _run(root, "/usr/bin/python3.11", "-c", program) == "imports"
    assert _run(root, "/usr/bin/python3.11", "-c", "import uv; print(uv.find_uv_bin())") == "/usr/local/bin/uv"
    assert (root / "opt/cloudmesh/layout/index.json").exists()
    assert _run(root, "/usr/local/bin/cms", "vdir", "get", "--help").startswith("usage: cms vdir get ")
    metadata = "import importlib.metadata as m; print(m.version('cloudmesh-operator'))"
    assert _run(root, "/usr/bin/python3.11", "-c", metadata) == Recipe(default_cache()).version


def test_a_machine_with_an_empty_cache_makes_the_same_digests(tmp_path: Path) -> None:
    """Downloads are taken over (they are checked against their hashes), everything made is made anew."""
    warm = Recipe(default_cache())
    expected = {name: image.digest for name, image in warm.function_layout.items()}
    for name in ("debs", "wheels"):
        shutil.copytree(default_cache() / name, tmp_path / name)
    assert {name: image.digest for name, image in Recipe(tmp_path).function_layout.items()} == expected
