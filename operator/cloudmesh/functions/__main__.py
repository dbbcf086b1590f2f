"""`python -m cloudmesh.functions spec|serve|build FILE[:function]`: functions as services, without a cluster."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
import tempfile
from pathlib import Path

from cloudmesh.functions.signatures import Expose, Parsed, SourceError
from cloudmesh.functions.signatures.sandbox import Sandbox


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit status: 0, 1 for a source that can't be served, 2 for wrong arguments."""
    options = _parser().parse_args(arguments)
    file, _, function = str(options.file).partition(":")
    if function and (options.expose or options.class_name):
        return _complain("FILE:function goes without --expose and --class")
    try:
        source = sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        return _complain(f"{file}: {error}")
    stem = "function" if file == "-" else Path(file).stem
    module = options.module or stem.replace("-", "_")
    name = options.name or stem.replace("_", "-").lower()
    names = (
        (function,) if function else tuple(part.strip() for part in (options.expose or "*").split(",") if part.strip())
    )
    expose = Expose(names=names or ("*",), class_name=options.class_name)
    try:
        needed = options.requirement if options.command == "build" else None
        parsed = asyncio.run(_parse(source, name, module, expose, options.base_path, needed))
    except SourceError as error:
        place = f"{file}:{error.line}:{error.column}: " if error.line else f"{file}: "
        return _complain(place + error.message, 1)
    for text in parsed.warnings:
        print(f"warning: {text}", file=sys.stderr)  # noqa: T201
    if options.command == "spec":
        return _spec(parsed, options.format, options.output)
    definition = {
        "name": name,
        "module": module,
        "basePath": options.base_path,
        "expose": expose.to_json(),
        "source": "function.py",
    }
    if options.command == "build":
        return _build(options, source, name, module, expose, parsed)
    return _serve(source, definition, parsed, options.host, options.port)


async def _parse(
    source: str, name: str, module: str, expose: Expose, base_path: str, requirements: list[str] | None
) -> Parsed:
    sandbox = Sandbox()
    try:
        return await sandbox.parse(
            source, name=name, module=module, expose=expose, base_path=base_path, requirements=requirements
        )
    finally:
        await sandbox.close()


def _spec(parsed: Parsed, form: str, output: str | None) -> int:
    from cloudmesh_function import yaml

    if form == "yaml":
        text = yaml.dump(parsed.document)
    elif form == "canonical":
        text = parsed.canonical_openapi.decode()
    else:
        text = json.dumps(parsed.document, indent=2, ensure_ascii=False) + "\n"
    if output:
        Path(output).write_text(text)
    else:
        sys.stdout.write(text)
    return 0


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to 65535, not {text!r}")
    return int(text)


def _is_taken(host: str, port: int) -> bool:
    """Whether something listens there; the server itself would share the port with it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def _serve(source: str, definition: dict[str, object], parsed: Parsed, host: str, port: int) -> int:
    import dataclasses

    from cloudmesh_function import server, service, settings

    if _is_taken(host, port):
        return _complain(f"port {port} of {host} can't be had: something else listens there; take another with --port")
    server.configure_logging()
    try:
        found = settings.from_environment()
    except settings.SettingsError as error:
        return _complain(str(error))
    with tempfile.TemporaryDirectory(prefix="cloudmesh-function-") as folder:
        place = Path(folder)
        (place / "function.py").write_text(source)
        (place / "function.json").write_text(json.dumps(definition))
        (place / "openapi.json").write_bytes(parsed.canonical_openapi)
        found = dataclasses.replace(found, host=host, port=port, app_dir=folder, drain=0.0)
        app = service.make(service.Definition.read(place), found)
        if app.state.not_ready:
            return _complain(app.state.not_ready, 1)
        url = f"http://{host}:{port}{definition['basePath']}"
        print(f"serving {url}/ui, document {url}/openapi.json", file=sys.stderr)  # noqa: T201
        return server.run(app, found)


def _build(options: argparse.Namespace, source: str, name: str, module: str, expose: Expose, parsed: Parsed) -> int:
    from cloudmesh.engine.errors import CloudmeshError
    from cloudmesh.functions.builder.local import build_archive
    from cloudmesh.functions.builder.requests import ParseRequest

    request = ParseRequest(name, module, source, options.base_path, expose, tuple(options.requirement))
    layout = Path(options.layout) if options.layout else None
    try:
        built = build_archive(request, parsed, Path(options.output), requirements=options.requirement, layout=layout)
    except SourceError as error:
        return _complain(str(error), 1)
    except (CloudmeshError, OSError) as error:
        return _complain(f"the image can't be built: {error}", 1)
    print(f"{built.archive}: {built.name}@{built.digest}")  # noqa: T201
    return 0


def _complain(text: str, status: int = 2) -> int:
    print(f"cloudmesh.functions: {text}", file=sys.stderr)  # noqa: T201
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cloudmesh.functions", description="Typed functions as services.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command, text in (
        ("spec", "write the OpenAPI document; the source isn't run"),
        ("serve", "serve the function on this machine"),
        ("build", "write the function's image as an OCI archive"),
    ):
        found = commands.add_parser(command, help=text, description=text)
        found.add_argument("file", metavar="FILE[:function]", help="the source; - is standard input")
        found.add_argument(
            "--expose", metavar="NAMES", help="functions, separated by commas; * (all public ones) by default"
        )
        found.add_argument("--class", dest="class_name", metavar="CLASS", help="serve this class's methods")
        found.add_argument("--name", help="name of the service; the file's by default")
        found.add_argument("--module", help="module in the operationIds; the file's name by default")
        found.add_argument("--base-path", default="/cloudmesh", help="where the operations are served")
        if command == "spec":
            found.add_argument("--format", choices=("json", "yaml", "canonical"), default="json")
            found.add_argument("--output", "-o", metavar="FILE")
        elif command == "serve":
            found.add_argument("--host", default="127.0.0.1")
            found.add_argument("--port", type=_port, default=8080)
        else:
            found.add_argument(
                "--requirement", "-r", action="append", default=[], help="what it needs, as numpy>=2; may be repeated"
            )
            found.add_argument("--output", "-o", metavar="FILE", required=True, help="the archive")
            found.add_argument("--layout", metavar="FOLDER", help="base and runtime, as `make images` writes them")
    return parser


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # a thread of a call may still run: to take the interpreter down under it can abort the process
    os._exit(code)
