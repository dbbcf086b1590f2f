"""What goes into which image, and in what order of layers."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from packaging.utils import canonicalize_name

from cloudmesh.functions.image import layer as layer_module
from cloudmesh.functions.image import wheel as wheel_module
from cloudmesh.functions.image.blobs import Layer, LayerStore
from cloudmesh.functions.image.bytecode import Interpreter
from cloudmesh.functions.image.layer import Directory, Entry, File
from cloudmesh.functions.image.layout import Image, layout_entries
from cloudmesh.functions.image.oci import Platform, RunConfig
from cloudmesh.functions.image.wheel import Target, Wheel, merge
from images import debian, machines
from images.wheels import LockedWheel, fetch_wheels

ROOT = Path(__file__).parent.parent
PLATFORM = Platform("linux", "amd64")
SITE = "usr/local/lib/python3.11/dist-packages"
RUNTIME_DIR = "opt/cloudmesh/runtime"
LAYOUT_DIR = "opt/cloudmesh/layout"
USER = f"{debian.USER}:{debian.USER}"
_BASE_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
_SOURCES = (".py", ".pyi", ".typed", ".json", ".css", ".js", ".html", ".txt", ".svg", ".png", ".gz", ".yaml")


@dataclass(frozen=True, slots=True)
class Base:
    """The base image and the interpreter in it."""

    image: Image
    python: str
    glibc: tuple[int, int]
    compiler: Interpreter


def default_cache() -> Path:
    """Where downloads and layers are kept between runs, outside any checkout."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cloudmesh" / "images"


class Recipe:
    """Makes the images.

    Args:
        cache: folder for packages, wheels and layers, kept between runs; may be shared by several checkouts.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._layers = LayerStore(cache / "layers", limit=8 << 30)
        self.version: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    @cached_property
    def _debs(self) -> dict[debian.Package, Path]:
        return debian.packages(debian.package_names(), self._cache / "debs")

    @cached_property
    def base(self) -> Base:
        """The base: Python, what it needs, `sh`, and byte code made by that Python itself."""
        debs = self._debs
        version = next(p.file.split("_")[1] for p in debs if p.file.startswith("python3.11_")).partition("-")[0]
        libc = next(p.file.split("_")[1] for p in debs if p.file.startswith("libc6_")).partition("-")[0]
        major, minor = (int(part) for part in libc.split(".")[:2])
        key = "\n".join(("base", _fingerprint(debian, layer_module), *sorted(p.sha256 for p in debs)))
        root = self._cache / "roots" / hashlib.sha256(key.encode()).hexdigest()[:32]

        def make() -> Iterable[Entry]:
            tree = debian.base_entries(debs.values())
            sources = {
                path: entry.read()
                for path, entry in tree.items()
                if isinstance(entry, File) and path.startswith("usr/lib/python3.11/") and path.endswith(".py")
            }
            command = self._unpack(tree, root)
            if debian.python_version(command) != version:
                raise debian.RecipeError(f"the base's Python says {debian.python_version(command)}, not {version}")
            for path, data in Interpreter(version, command).compile(sources).items():
                tree[path] = File.of(path, data)
            return tree.values()

        layer = self._layers.get_or_make(key, make)
        if not root.exists():
            self._unpack(debian.base_entries(debs.values()), root)
        run = RunConfig(
            entrypoint=["/usr/bin/python3.11"],
            env=_BASE_ENV,
            user=USER,
            working_dir="/tmp",  # noqa: S108  # a path in the image
            labels={"org.cloudmesh.python": version, "org.cloudmesh.glibc": f"{major}.{minor}"},
        )
        compiler = Interpreter(version, debian.python_command(root))
        return Base(Image(PLATFORM, run, (layer,)), version, (major, minor), compiler)

    def _unpack(self, tree: Mapping[str, Entry], root: Path) -> list[str]:
        if not root.exists():
            root.parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=root.parent))
            try:
                debian.materialize(tree, folder)
                folder.chmod(0o755)
                if not root.exists():
                    folder.rename(root)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        return debian.python_command(root)

    @cached_property
    def wheels(self) -> dict[str, LockedWheel]:
        """The wheels of requirements.lock by canonical name."""
        found = fetch_wheels(
            ROOT / "requirements.lock", self._cache / "wheels", python=self.base.python, glibc=self.base.glibc
        )
        return {canonicalize_name(wheel.name): wheel for wheel in found}

    def _wheel_layer(self, wheel: LockedWheel, target: Target) -> Layer:
        key = "\n".join(
            (
                "wheel",
                _fingerprint(wheel_module, layer_module),
                wheel.sha256,
                wheel.filename,
                target.site,
                target.python,
                self.base.compiler.identity,
            )
        )

        with contextlib.ExitStack() as opened:  # members are read while the layer is written

            def make() -> Iterable[Entry]:
                return opened.enter_context(Wheel.open(wheel.path, target)).entries(self.base.compiler)

            return self._layers.get_or_make(key, make)

    def _code_layer(self, files: Sequence[File]) -> Layer:
        key = "\n".join(("code", self.base.compiler.identity, _fingerprint(layer_module), _content_hash(files)))

        def make() -> Iterable[Entry]:
            sources = {file.path: file.read() for file in files if file.path.endswith(".py")}
            compiled = self.base.compiler.compile(sources)
            return [*files, *(File.of(path, data) for path, data in compiled.items())]

        return self._layers.get_or_make(key, make)

    @cached_property
    def operator(self) -> Image:
        """The operator's image: base, one layer a wheel, our code."""
        target = Target(site=SITE, scripts="usr/local/bin")
        with ThreadPoolExecutor(2) as pool:
            layers = list(pool.map(lambda wheel: self._wheel_layer(wheel, target), self.wheels.values()))
        code = self._code_layer(
            [
                *package_files("cloudmesh", SITE),
                *package_files("cloudmesh_function", SITE),
                *metadata_files(SITE, self.version),
                File.of("usr/local/bin/cms", (ROOT / "images/cms").read_bytes(), executable=True),
            ]
        )
        run = replace(
            self.base.image.run,
            entrypoint=["/usr/bin/python3.11", "-m", "cloudmesh.operator"],
            env={**_BASE_ENV, "CLOUDMESH_VERSION": self.version},
            labels={"org.opencontainers.image.version": self.version},
        )
        return Image(PLATFORM, run, (*self.base.image.layers, *layers, code))

    def _part(self, distributions: Iterable[str], own: Sequence[File] = ()) -> tuple[Layer, dict[str, str]]:
        """One layer under the runtime's folder out of several wheels and files of ours."""
        target = Target(site=RUNTIME_DIR, scripts=f"{RUNTIME_DIR}/bin")
        chosen = []
        for name in distributions:
            wheel = self.wheels.get(canonicalize_name(name))
            if wheel is None:
                raise debian.RecipeError(f"cloudmesh_function.parts names {name}, which requirements.lock doesn't have")
            chosen.append(wheel)
        key = "\n".join(
            (
                "part",
                _fingerprint(wheel_module, layer_module),
                self.base.compiler.identity,
                _content_hash(own),
                *sorted(wheel.sha256 for wheel in chosen),
            )
        )

        with contextlib.ExitStack() as opened:

            def make() -> Iterable[Entry]:
                sources = {file.path: file.read() for file in own if file.path.endswith(".py")}
                compiled = self.base.compiler.compile(sources)
                parts: list[list[File]] = [[*own, *(File.of(path, data) for path, data in compiled.items())]]
                parts += (
                    opened.enter_context(Wheel.open(wheel.path, target)).entries(self.base.compiler) for wheel in chosen
                )
                return merge(parts)

            return self._layers.get_or_make(key, make), {wheel.name: wheel.version for wheel in chosen}

    @cached_property
    def function_layout(self) -> dict[str, Image]:
        """What functions are built on: `base` and `runtime`."""
        from cloudmesh_function.parts import RUNTIME

        own = package_files("cloudmesh_function", RUNTIME_DIR)
        layer, versions = self._part(RUNTIME, own)
        provides = " ".join(f"{canonicalize_name(dist)}=={versions[dist]}" for dist in sorted(versions))
        runtime = Image(PLATFORM, RunConfig(labels={"org.cloudmesh.provides": provides}), (layer,))
        return {"base": self.base.image, "runtime": runtime}

    @cached_property
    def builder(self) -> Image:
        """The builder's image: the operator's, and the layout it builds functions on."""
        entries = layout_entries(self.function_layout, f"{LAYOUT_DIR}/")
        key = "\n".join(
            ("layout", _fingerprint(layer_module), *(image.digest for image in self.function_layout.values()))
        )
        layer = self._layers.get_or_make(key, lambda: entries)
        run = replace(self.operator.run, entrypoint=["/usr/bin/python3.11", "-m", "cloudmesh.functions.builder"])
        return Image(PLATFORM, run, (*self.operator.layers, layer))

    @cached_property
    def machine(self) -> Image:
        """The image of Pods that are machines: the base, logins, SLURM."""
        debs = debian.packages(debian.package_names(machines.PACKAGES), self._cache / "debs")
        own = sorted((path.name, path.read_text()) for path in machines.FOLDER.iterdir() if path.is_file())
        key = "\n".join(
            (
                "machine",
                _fingerprint(debian, machines, layer_module),
                hashlib.sha256(repr(own).encode()).hexdigest(),
                *sorted(package.sha256 for package in (*self._debs, *debs)),
            )
        )
        layer = self._layers.get_or_make(
            key, lambda: machines.machine_entries(debs.values(), debian.base_entries(self._debs.values()))
        )
        run = RunConfig(
            entrypoint=[f"/{machines.PROGRAMS}/start"],
            env=_BASE_ENV,
            user=f"{machines.UID}:{machines.UID}",
            working_dir=f"/home/{machines.USER}",
            labels={"org.opencontainers.image.version": self.version},
        )
        return Image(PLATFORM, run, (*self.base.image.layers, layer))

    @cached_property
    def registry(self) -> Image:
        """The embedded registry: one static program, CA certificates, and an unprivileged user."""
        binary = build_go(ROOT / "images" / "registry", self._cache / "go")
        kept = ("etc/ssl/certs/ca-certificates.crt", "etc/passwd", "etc/group", "etc/nsswitch.conf")
        key = "\n".join(("registry", _fingerprint(debian, layer_module), *sorted(p.sha256 for p in self._debs)))

        def system() -> Iterable[Entry]:
            tree = debian.base_entries(self._debs.values())
            return [*(tree[path] for path in kept), Directory("tmp", 0o1777), Directory("data")]

        data = binary.read_bytes()
        layers = (
            self._layers.get_or_make(key, system),
            self._layers.get_or_make(
                f"registry-program\n{hashlib.sha256(data).hexdigest()}",
                lambda: [File.of("usr/bin/registry", data, executable=True)],
            ),
        )
        run = RunConfig(
            entrypoint=["/usr/bin/registry"],
            env={"PATH": "/usr/bin", "OTEL_TRACES_EXPORTER": "none"},
            user=USER,
            labels={"org.opencontainers.image.version": self.version},
        )
        return Image(PLATFORM, run, layers)


def package_files(package: str, folder: str) -> list[File]:
    """The files of one of our packages, to lie under `folder` in an image."""
    root = ROOT / "operator"
    return [
        File.of(f"{folder}/{path.relative_to(root).as_posix()}", path.read_bytes())
        for path in sorted((root / package).rglob("*"))
        if path.is_file() and path.suffix in _SOURCES and "__pycache__" not in path.parts
    ]


def metadata_files(folder: str, version: str) -> list[File]:
    """What `importlib.metadata` reads about our own distribution: its name, version and entry points."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    info = f"{folder}/{project['name'].replace('-', '_')}-{version}.dist-info"
    lines: list[str] = []
    for group, items in sorted(project.get("entry-points", {}).items()):
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in sorted(items.items())), ""]
    metadata = f"Metadata-Version: 2.3\nName: {project['name']}\nVersion: {version}\n"
    return [
        File.of(f"{info}/METADATA", metadata.encode()),
        File.of(f"{info}/entry_points.txt", "\n".join(lines).encode()),
    ]


def build_go(module: Path, cache: Path) -> Path:
    """A static Go program, built once for each state of its sources.

    Raises:
        RecipeError: there is no Go, or the build failed.
    """
    sources = sorted(path for path in module.iterdir() if path.suffix in (".go", ".mod", ".sum"))
    content = b"\0".join(path.name.encode() + b"\0" + path.read_bytes() for path in sources)
    go = os.environ.get("GO") or shutil.which("go")
    if go is None:
        raise debian.RecipeError("Go 1.26 or newer is needed for the registry image: put it on PATH, or name it in GO")
    version = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True, cwd=module).stdout
    binary = cache / hashlib.sha256(content + version.encode()).hexdigest()[:32] / module.name
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        part = binary.with_suffix(f".{os.getpid()}")
        command = [go, "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", str(part), "."]
        environment = {**os.environ, "CGO_ENABLED": "0", "GOOS": "linux", "GOARCH": "amd64"}
        run = subprocess.run(command, cwd=module, env=environment, capture_output=True, text=True, check=False)
        if run.returncode:
            raise debian.RecipeError(f"go build of {module.name}: {run.stderr.strip()[-1000:]}")
        part.replace(binary)
    return binary


def _content_hash(files: Iterable[File]) -> str:
    hashed = hashlib.sha256()
    for file in sorted(files, key=lambda item: item.path):
        hashed.update(f"{file.path}\0{file.size}\0{file.executable}\0".encode())
        hashed.update(file.read())
    return hashed.hexdigest()


def _fingerprint(*modules: object) -> str:
    """Names the code that makes a layer, so that a change of it makes the layer anew."""
    hashed = hashlib.sha256()
    for module in modules:
        path = getattr(module, "__file__", None)
        if path:
            hashed.update(Path(path).read_bytes())
    return hashed.hexdigest()
