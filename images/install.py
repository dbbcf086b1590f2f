"""Installs requirements.lock inside an image that is being built: `python3.11 install.py requirements.lock PREFIX`.

Standard library only. With pip in the base, pip does it; else uv, fetched from the index and checked against its hash.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from urllib.parse import urldefrag, urljoin

_TAG = "manylinux_2_17_x86_64"


def _locked(lock: str, name: str) -> tuple[str, set[str]]:
    """Version and allowed hashes of a distribution."""
    match = re.search(rf"^{name}==(\S+)(.*\n(?:[ \t].*\n)*)", lock, re.MULTILINE)
    if match is None:
        sys.exit(f"requirements.lock doesn't name {name}")
    return match[1], set(re.findall(r"sha256:([0-9a-f]{64})", match[2]))


def _fetch(url: str) -> bytes:
    if not url.startswith(("https://", "http://")):
        sys.exit(f"{url}: not an http(s) address")
    try:
        with urllib.request.urlopen(url, timeout=120) as answer:  # noqa: S310  # the scheme was checked
            data: bytes = answer.read()
            return data
    except (urllib.error.URLError, OSError) as error:
        sys.exit(f"{url}: {error}")


def fetch_uv(lock: str, index: str, folder: Path) -> Path:
    """Bring uv from a package index, checked against its hash in the lock.

    Returns:
        The program.
    """
    version, allowed = _locked(lock, "uv")
    page = f"{index.rstrip('/')}/uv/"
    links = re.findall(r'href="([^"]+)"', _fetch(page).decode())
    wanted = [link for link in links if f"uv-{version}-py3-none-{_TAG}" in link]
    if not wanted:
        sys.exit(f"{page} has no wheel of uv {version} for {_TAG}")
    data = _fetch(urldefrag(urljoin(page, wanted[0])).url)
    if hashlib.sha256(data).hexdigest() not in allowed:
        sys.exit(f"uv {version}: differs from its hashes in requirements.lock")
    program = folder / "uv"
    with zipfile.ZipFile(io.BytesIO(data)) as wheel:
        program.write_bytes(wheel.read(f"uv-{version}.data/scripts/uv"))
    program.chmod(0o755)
    return program


def main() -> None:
    """Install into PREFIX as Debian's Python lays it out."""
    lock, prefix = Path(sys.argv[1]), Path(sys.argv[2])
    site = prefix / "lib" / "python3.11" / "dist-packages"
    index = os.environ.get("PIP_INDEX_URL", "")
    options = ["--require-hashes", "--only-binary", ":all:", "--no-deps", "-r", str(lock)]
    environment = {name: value for name, value in os.environ.items() if value}
    has_pip = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False)
    with tempfile.TemporaryDirectory() as folder:
        if has_pip.returncode == 0:
            command = [sys.executable, "-m", "pip", "install", "--no-cache-dir", "--no-compile", *options]
            command += ["--target", str(site)]
        elif index:
            environment |= {"UV_DEFAULT_INDEX": index, "UV_NO_CACHE": "1", "UV_LINK_MODE": "copy"}
            command = [str(fetch_uv(lock.read_text(), index, Path(folder))), "pip", "install", *options]
            command += ["--python", sys.executable, "--target", str(site), "--quiet"]
        else:
            sys.exit("the base image has no pip: give the package index with --build-arg PIP_INDEX_URL=…")
        subprocess.run(command, check=True, env=environment)
    compile_ = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(site)]
    subprocess.run([sys.executable, *compile_], check=False)


if __name__ == "__main__":
    main()
