"""Loads a function and makes its application."""

from __future__ import annotations

import inspect
import json
import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudmesh_function import openapi
from cloudmesh_function.app import App, Served, State
from cloudmesh_function.binding import Binder
from cloudmesh_function.codec import Codec
from cloudmesh_function.live import LiveModule
from cloudmesh_function.loader import load
from cloudmesh_function.metrics import Metrics
from cloudmesh_function.model import Expose, InterfaceError
from cloudmesh_function.outline import outline
from cloudmesh_function.settings import Settings

log = logging.getLogger("cloudmesh.function")


@dataclass(frozen=True, slots=True)
class Definition:
    """What `function.json` says, and where the files lie.

    Attributes:
        name: the service's name.
        module: name of the module.
        expose: what is served.
        base_path: where.
        source: path of the source file.
        document: the static OpenAPI document's bytes; None where there is none to compare with.
    """

    name: str
    module: str
    expose: Expose
    base_path: str
    source: Path
    document: bytes | None

    @classmethod
    def read(cls, folder: Path) -> Definition:
        """Reads function.json, and openapi.json beside it.

        Raises:
            OSError: a file is missing.
            ValueError: function.json isn't what it should be.
        """
        found = json.loads((folder / "function.json").read_bytes())
        if not isinstance(found, dict) or not isinstance(found.get("name"), str):
            raise ValueError("function.json must be an object with a name")  # noqa: TRY004
        document = folder / "openapi.json"
        return cls(
            name=found["name"],
            module=found.get("module") or found["name"].replace("-", "_"),
            expose=Expose.from_json(found.get("expose")),
            base_path=found.get("basePath") or "/cloudmesh",
            source=folder / (found.get("source") or "function.py"),
            document=document.read_bytes() if document.exists() else None,
        )


def make(definition: Definition, settings: Settings) -> App:
    """The application of a function. When the function can't be loaded it still serves probes, which say why."""
    begun = time.perf_counter()
    served: list[Served] = []
    document = definition.document or b"{}\n"
    fault: str | None = None
    flask_app: Any = None
    try:
        text = definition.source.read_text()
        module = load(str(definition.source), definition.module)
        live = LiveModule(module, outline(text), name=definition.name, module_name=definition.module)
        interface = live.interface(definition.expose)
        live_document = openapi.to_openapi(interface, definition.base_path)
        if definition.document is None:
            document = openapi.canonical(live_document)
        elif definition.document != openapi.canonical(live_document):
            fault = "the function differs from its document: " + difference(
                json.loads(definition.document), live_document
            )
        if fault is None:
            codec = Codec(live.types, live.classes)
            for operation in interface.operations:
                target = live.function(operation.name)
                is_async = inspect.iscoroutinefunction(target) or inspect.isasyncgenfunction(target)
                served.append(Served(operation, target, Binder(operation, target, codec), is_async))
            flask_app = _flask(text, definition.module)
    except InterfaceError as error:
        fault = f"line {error.line}, column {error.column}: {error.message}" if error.line else error.message
    except Exception as error:
        log.exception("the module can't be imported")
        fault = f"importing the function failed: {type(error).__name__}: {error}"
    except SystemExit as error:
        fault = f"importing the function called sys.exit({error.code!r})"
    if fault:
        log.error("not ready: %s", fault)
    metrics = Metrics([item.operation.name for item in served])
    metrics.import_seconds = time.perf_counter() - begun
    metrics.ready = fault is None
    state = State(metrics)
    state.not_ready = fault
    return App(
        served,
        document=document,
        base_path=definition.base_path,
        settings=settings,
        state=state,
        flask_app=flask_app,
    )


def _flask(source: str, module: str) -> Any:
    if "flask" not in sys.modules or "flask" not in source:
        return None
    return sys.modules["flask"].Flask(module)


def difference(static: Any, live: Any, path: str = "") -> str:
    """The first difference of two documents, as a sentence."""
    if isinstance(static, dict) and isinstance(live, dict):
        for key in sorted(static.keys() | live.keys()):
            place = f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}"
            if key not in live:
                return f"{place} is missing in the running function"
            if key not in static:
                return f"{place} is new in the running function"
            if static[key] != live[key]:
                return difference(static[key], live[key], place)
    if isinstance(static, list) and isinstance(live, list) and len(static) == len(live):
        for index, (left, right) in enumerate(zip(static, live, strict=True)):
            if left != right:
                return difference(left, right, f"{path}/{index}")
    return f"{path or '/'} is {_brief(static)} in the document and {_brief(live)} in the running function"


def _brief(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 80 else text[:77] + "..."
