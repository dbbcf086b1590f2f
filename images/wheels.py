"""Brings the wheels of requirements.lock, each checked against its hash there, from the index the machine is set to."""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import re
import subprocess
import tomllib
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.tags import Tag
from packaging.utils import canonicalize_name, parse_wheel_filename
from uv import find_uv_bin

from cloudmesh.functions.image.oci import Platform
from cloudmesh.functions.lock import Target
from images.debian import RecipeError


@dataclass(frozen=True, slots=True)
class LockedWheel:
    """A wheel that the lock allows: its distribution, file name and SHA-256, and where it lies once fetched."""

    name: str
    version: str
    filename: str
    sha256: str
    path: Path


def index_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for uv, which reads none of pip's settings: index and CA as pip would use them.

    Settings made for uv itself win.
    """
    result = dict(environment)
    pip: dict[str, str] = {}
    for path in ("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf", environment.get("PIP_CONFIG_FILE", "")):
        parser = configparser.ConfigParser(interpolation=None)
        if path and parser.read(Path(path).expanduser()) and parser.has_section("global"):
            pip.update(parser["global"])
    index = environment.get("PIP_INDEX_URL") or pip.get("index-url")
    if index and not (environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL")):
        result["UV_DEFAULT_INDEX"] = index
    ca = environment.get("PIP_CERT") or pip.get("cert")
    if ca:
        result.setdefault("SSL_CERT_FILE", ca)
    return result


def _hashes(lock: Path) -> dict[str, set[str]]:
    """Distribution -> the SHA-256 values that the lock allows."""
    hashes: dict[str, set[str]] = {}
    name = ""
    for line in lock.read_text().splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==", line):
            name = canonicalize_name(match[1])
        hashes.setdefault(name, set()).update(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
    return hashes


def _urls(lock: Path, platform: str) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Name, version and (URL, SHA-256) of what the index offers for the pins of the lock."""
    command = [find_uv_bin(), "pip", "compile", str(lock), "--no-deps", "--generate-hashes", "--only-binary", ":all:"]
    command += ["--python-version", "3.11", "--python-platform", platform, "--format", "pylock.toml", "--quiet"]
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=300, check=False, env=index_environment(), cwd="/"
        )
    except subprocess.TimeoutExpired as error:
        raise RecipeError("the package index didn't answer within 300 s") from error
    if run.returncode:
        raise RecipeError(f"requirements.lock: {run.stderr.strip()[-1000:]}")
    return [
        (
            package["name"],
            package["version"],
            [(wheel["url"], wheel["hashes"]["sha256"]) for wheel in package["wheels"]],
        )
        for package in tomllib.loads(run.stdout).get("packages", [])
    ]


def fetch_wheels(lock: Path, cache: Path, *, python: str, glibc: tuple[int, int]) -> list[LockedWheel]:
    """The wheels of `lock` for the base image, fetched where the cache doesn't have them.

    Args:
        lock: a requirements file with pins and hashes.
        cache: folder kept between runs.
        python: full version of the base's Python.
        glibc: version of the base's C library.

    Raises:
        RecipeError: a wheel is not to be had, or differs from its hash.
    """
    tags = Target(python, glibc, Platform("linux", "amd64")).tags()
    state = f"{hashlib.sha256(lock.read_bytes()).hexdigest()}-{python}-{glibc}"
    record = cache / f"resolved-{hashlib.sha256(state.encode()).hexdigest()[:32]}.json"
    cache.mkdir(parents=True, exist_ok=True)
    if record.exists():
        wheels = [
            LockedWheel(**{**item, "path": cache / item["sha256"] / item["filename"]})
            for item in json.loads(record.read_text())
        ]
        if all(wheel.path.exists() for wheel in wheels):
            return wheels
    allowed = _hashes(lock)
    wheels = []
    for name, version, offers in _urls(lock, f"x86_64-manylinux_{glibc[0]}_{glibc[1]}"):
        url, sha256 = _choose(name, offers, tags, allowed.get(canonicalize_name(name), set()))
        filename = unquote(urlsplit(url).path.rpartition("/")[2])
        wheel = LockedWheel(name, version, filename, sha256, cache / sha256 / filename)
        if not wheel.path.exists():
            _download(url, wheel)
        wheels.append(wheel)
    values = [{"name": w.name, "version": w.version, "filename": w.filename, "sha256": w.sha256} for w in wheels]
    part = record.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(values))
    part.replace(record)
    return wheels


def _choose(name: str, offers: Iterable[tuple[str, str]], tags: list[Tag], allowed: set[str]) -> tuple[str, str]:
    rank = {tag: i for i, tag in enumerate(tags)}
    best: tuple[int, str, str] | None = None
    for url, sha256 in offers:
        filename = unquote(urlsplit(url).path.rpartition("/")[2])
        ranks = [rank[tag] for tag in parse_wheel_filename(filename)[3] if tag in rank]
        if ranks and sha256 in allowed and (best is None or (min(ranks), url) < best[:2]):
            best = (min(ranks), url, sha256)
    if best is None:
        raise RecipeError(f"{name}: the index has no wheel for the base image among the hashes of requirements.lock")
    return best[1], best[2]


def _download(url: str, wheel: LockedWheel) -> None:
    if urlsplit(url).scheme not in ("https", "http"):
        raise RecipeError(f"{wheel.filename}: the index names an address that isn't HTTP")
    try:
        with urllib.request.urlopen(url, timeout=120) as answer:  # noqa: S310  # the scheme was checked
            data = answer.read()
    except OSError as error:
        raise RecipeError(f"{wheel.filename}: {error}") from error
    if hashlib.sha256(data).hexdigest() != wheel.sha256:
        raise RecipeError(f"{wheel.filename}: differs from its hash in requirements.lock")
    wheel.path.parent.mkdir(parents=True, exist_ok=True)
    part = wheel.path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(wheel.path)
