"""`python -m images build [--out build/images]`: writes OCI archives and the chart values that name them."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import shutil
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

from cloudmesh.engine.errors import CloudmeshError
from cloudmesh.functions.image.layout import Image, layout_entries, write_archive, write_layout
from images.compose import Recipe, default_cache
from images.debian import RecipeError

NAMES = ("operator", "builder", "registry", "machine")


@contextlib.contextmanager
def _step(text: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    sys.stderr.write(f"images: {text} ({time.monotonic() - start:.1f} s)\n")
    sys.stderr.flush()


def _is_current(path: Path, image: Image) -> bool:
    """Whether the archive at `path` already holds `image`."""
    try:
        with tarfile.open(path) as archive:
            member = archive.extractfile("index.json")
            return member is not None and any(
                item.get("digest") == image.digest for item in json.load(member).get("manifests", [])
            )
    except (OSError, KeyError, ValueError, tarfile.TarError):
        return False


def _write_layout(folder: Path, images: dict[str, Image]) -> None:
    """The layout that lies in the builder's image, for building functions on this machine."""
    stamp = folder / "index.json"
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    expected = next(file.read() for file in layout_entries(images) if file.path == "index.json")
    if stamp.exists() and stamp.read_bytes() == expected:
        return
    write_layout(part, images)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def build(out: Path, cache: Path, names: tuple[str, ...] = NAMES) -> dict[str, str]:
    """Make the images.

    Args:
        out: folder for `NAME.tar` and `values.yaml`.
        cache: folder kept between runs.
        names: which of them.

    Returns:
        Image name -> full name with tag.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:  # ends with the process; two builds of one checkout take turns
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _build(out, Recipe(cache), names)


def _build(out: Path, recipe: Recipe, names: tuple[str, ...]) -> dict[str, str]:
    with _step("base: Debian packages, Python's byte code"):
        base = recipe.base
    sys.stderr.write(f"images: base {base.image.layers[0].descriptor.size / 1e6:.1f} MB, Python {base.python}\n")
    tags = {}
    for name in names:
        with _step(name):
            image: Image = getattr(recipe, name)
            tags[name] = f"cloudmesh.local/{name}:{recipe.version}-{image.digest.removeprefix('sha256:')[:12]}"
            archive = out / f"{name}.tar"
            if not _is_current(archive, image):
                write_archive(archive, {tags[name]: image})
    if "builder" in names:
        with _step("layout"):
            _write_layout(out / "layout", recipe.function_layout)
    (out / "values.yaml").write_text(_values(tags))
    return tags


def _values(tags: dict[str, str]) -> str:
    """The chart values that name the images: parts of Cloudmesh under `image`, that of Pod machines under `machine`."""
    lines = ["# Written by `python -m images build`: the images that belong together."]
    if parts := [name for name in tags if name != "machine"]:
        lines.append("image:")
        for name in parts:
            repository, _, label = tags[name].rpartition(":")
            lines += [f"  {name}:", f"    repository: {repository}", f"    tag: {label}"]
    if "machine" in tags:
        repository, _, label = tags["machine"].rpartition(":")
        lines += ["machine:", "  image:", f"    repository: {repository}", f"    tag: {label}"]
    return "\n".join(lines) + "\n"


def write_base(out: Path, cache: Path) -> str:
    """Write the base image as `base.tar`.

    Returns:
        Its full name with tag.
    """
    recipe = Recipe(cache)
    image = recipe.base.image
    tag = f"cloudmesh.local/base:{recipe.version}-{image.digest.removeprefix('sha256:')[:12]}"
    if not _is_current(out / "base" / "base.tar", image):
        write_archive(out / "base" / "base.tar", {tag: image})
    return tag


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m images", description="Make this project's images without Docker.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help="write OCI archives and values.yaml")
    base = commands.add_parser("base", help="write the base image alone, to build the Dockerfile on")
    for parsed in (command, base):
        parsed.add_argument("--out", type=Path, default=Path("build/images"), help="folder for the archives")
        parsed.add_argument("--cache", type=Path, default=default_cache(), help="folder kept between runs")
    command.add_argument("--only", choices=NAMES, action="append", help="make only this image (may be repeated)")
    options = parser.parse_args(arguments)
    try:
        if options.command == "base":
            tags = {"base": write_base(options.out, options.cache)}
        else:
            tags = build(options.out, options.cache, tuple(options.only or NAMES))
    except (RecipeError, CloudmeshError) as error:
        sys.stderr.write(f"images: {error}\n")
        return 1
    for tag in tags.values():
        sys.stdout.write(f"{tag}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
