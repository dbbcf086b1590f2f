"""FastAPI as oracle: the same functions, the same requests, the same answers, but for a list of deviations."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import inspect
import typing
import warnings
from collections.abc import Callable
from typing import Any

import fastapi
import httpx
import msgspec
import pytest
from tests.contract.functions.corpus_index import CASES, Case

from cloudmesh_function import service
from cloudmesh_function.model import EITHER, KEYWORD, Operation, Scalar
from cloudmesh_function.settings import Settings

# What FastAPI does otherwise, and why ours stays. A rule of `_skipped` or an entry of `_BY_NAME` names each.
DEVIATIONS: dict[str, str] = {
    "integers": "FastAPI takes 1.0 and True for an int; ours is strict in bodies, as its schema is",
    "booleans": "FastAPI takes numbers for a bool; ours only true and false",
    "text": "FastAPI turns '1' into 1 and 'true' into True; the schema says number and boolean, so ours is 422",
    "dates": "FastAPI reads numbers as seconds since 1970 and 2020-01-01 as midnight; the schema says date-time",
    "bytes": "FastAPI reads bytes as UTF-8 text; ours as base64, which carries all bytes",
    "decimals": "both write a Decimal as text, but FastAPI keeps another spelling of it",
    "durations": "FastAPI spells durations with larger units",
    "special text": "pydantic prefers the text for UUID | str; ours the more special type",
    "named tuples": "FastAPI takes them from forms",
    "iterables": "FastAPI doesn't check an Iterable's items and takes text and objects for it",
    "docstrings": "FastAPI doesn't read types from docstrings",
    "numbers": "FastAPI takes numbers for fractions, paths and addresses and spells complex numbers in its own way",
}
_BY_NAME = {
    "iterable": "iterables",
    "documented_type": "docstrings",
    "google_types": "docstrings",
    "fraction": "numbers",
    "path": "numbers",
    "address": "numbers",
    "complex_number": "numbers",
}

_SAMPLES: list[Any] = [
    *(0, 1, -7, 2**70, 0.5, -1e-7, 1e300, True, False, None),
    *("", "a", "1", "0.5", "true", "red", "fast", "round", "null", "ü€😀", "a b&c=d+e%20"),
    *("2020-02-29", "2020-02-30", "2020-02-29T12:00:00Z", "12:30:00", "P1DT2H", "00000000-0000-4000-8000-000000000000"),
    *([], [1, 2], ["a"], [1.5], [[1.0], []], [None], [1, "a"], [["a", 1]]),
    *(
        {},
        {"a": 1},
        {"a": "b"},
        {"x": 1.5, "y": 2},
        {"x": 1.5},
        {"title": "t", "year": 1999},
        {"value": 1, "children": []},
    ),
    *(
        {"name": "n", "tags": ["a"]},
        {"name": "n", "color": "green"},
        {"start": {"x": 0}, "end": {"x": 1}},
        {"a": 1, "b": "b"},
    ),
]


def _fits_oracle(operation: Operation, function: Callable[..., Any]) -> bool:
    """Whether FastAPI can serve the function at all: no positional-only, *args or **kwargs."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return False
    if operation.returns in (Scalar("bytes"), Scalar("bytearray")):
        return False  # ours answers application/octet-stream; test_wire.py looks at it
    return all(item.kind in (EITHER, KEYWORD) for item in operation.parameters)


def _skipped(operation: Operation, value: Any, types: dict[str, Any]) -> str | None:
    """The deviation that explains why this value isn't compared."""
    kinds: set[type] = set()

    def walk(found: Any) -> None:
        kinds.add(type(found))
        for inner in found.values() if isinstance(found, dict) else found if isinstance(found, list) else ():
            walk(inner)

    walk(value)
    if operation.name in _BY_NAME:
        return _BY_NAME[operation.name]
    return next(filter(None, (_deviation(repr(item.type), kinds, types) for item in operation.parameters)), None)


def _deviation(text: str, kinds: set[type], types: dict[str, Any]) -> str | None:
    for name, item in types.items():
        text += repr(item) if f"Ref(name='{name}')" in text else ""

    def has(*names: str) -> bool:
        return any(f"Scalar(name='{name}')" in text for name in names)

    dates, numbers = has("datetime", "date", "time"), has("int", "float")
    rules = [
        ("bytes", has("bytes", "bytearray")),
        ("decimals", has("decimal")),
        ("durations", has("timedelta")),
        ("named tuples", "namedtuple" in text),
        ("special text", "Choice" in text and has("str") and has("uuid", "datetime")),
        ("dates", dates and bool({int, float, str} & kinds)),
        (
            "text",
            str in kinds
            and (has("int", "float", "bool") or "Enumeration" in text)
            and ("Choice" in text or not has("str")),
        ),
        ("integers", has("int") and bool({float, bool} & kinds)),
        ("integers", (numbers or "Enumeration" in text or "Values" in text) and bool in kinds),
        ("booleans", (has("bool") or "Values" in text) and int in kinds),
        ("booleans", has("bool") and float in kinds),
    ]
    return next((name for name, applies in rules if applies), None)


def _oracle(served: list[tuple[Operation, Callable[..., Any]]]) -> fastapi.FastAPI:
    found = fastapi.FastAPI()
    for operation, function in served:
        hints = typing.get_type_hints(function, include_extras=True)
        parameters = []
        for name, item in inspect.signature(function).parameters.items():
            default = ... if item.default is inspect.Parameter.empty else item.default
            hint = hints.get(name, Any)
            if default is None:
                hint = typing.Optional[hint]  # noqa: UP045
            body = fastapi.Body(default, embed=True)
            parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=body, annotation=hint))

        def made(function: Callable[..., Any], parameters: list[inspect.Parameter]) -> Callable[..., Any]:
            async def endpoint(**values: Any) -> Any:
                result = function(**values)
                result = await result if inspect.isawaitable(result) else result
                return fastapi.Response(service_encode(result), media_type="application/json")

            endpoint.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
            return endpoint

        found.post(f"/cloudmesh/{operation.name}")(made(function, parameters))
    return found


def service_encode(value: Any) -> bytes:
    """The result by pydantic, as FastAPI would write it."""
    import pydantic

    def plain(found: Any) -> Any:
        if isinstance(found, enum.Enum):
            return found.value
        if dataclasses.is_dataclass(found) and not isinstance(found, type):
            return {item.name: plain(getattr(found, item.name)) for item in dataclasses.fields(found)}
        return found

    return pydantic.TypeAdapter(Any).dump_json(plain(value))


@pytest.mark.parametrize("case", [case for case in CASES if case.name != "calculator"], ids=lambda case: case.name)
async def test_post_agrees_with_fastapi(case: Case, tmp_path: Any) -> None:
    definition = service.Definition.read(case.write(tmp_path))
    app = service.make(dataclasses.replace(definition, module=f"oracle_{case.name}", document=None), Settings())
    assert app.state.not_ready is None
    operations = [(item.operation, item.target) for item in app.served if _fits_oracle(item.operation, item.target)]
    chosen: list[tuple[Operation, Callable[..., Any]]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for operation, function in operations:
            try:
                _oracle([(operation, function)])
            except Exception:  # noqa: BLE001 - FastAPI refuses the type
                continue
            chosen.append((operation, function))
        oracle = _oracle(chosen)
    types = app.served[0].binder.types if app.served else {}
    ours = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://ours")
    theirs = httpx.AsyncClient(
        transport=httpx.ASGITransport(app=oracle, raise_app_exceptions=False), base_url="http://theirs"
    )
    compared = 0
    different: list[str] = []
    async with ours, theirs:
        for operation, _ in chosen:
            names = [item.name for item in operation.parameters]
            bodies: list[dict[str, Any]] = [{}] + [dict.fromkeys(names, value) for value in _SAMPLES if names]
            for body in bodies:
                why = _skipped(operation, next(iter(body.values())), types) if body else None
                if why is not None:
                    assert why in DEVIATIONS
                    continue
                path = f"/cloudmesh/{operation.name}"
                mine, other = await asyncio.gather(ours.post(path, json=body), theirs.post(path, json=body))
                compared += 1
                if mine.status_code != other.status_code:
                    different.append(
                        f"{path} {body}: {mine.status_code} {mine.text[:100]} / {other.status_code} {other.text[:100]}"
                    )
                elif mine.status_code == 200 and msgspec.json.decode(mine.content) != msgspec.json.decode(
                    other.content
                ):
                    different.append(f"{path} {body}: {mine.text[:100]} / {other.text[:100]}")
    assert not different, "\n".join(different[:40])
    assert compared >= len(chosen)
