"""Documents of generated signatures; text of any kind."""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import Any

import jsonschema
import yaml as pyyaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator

from cloudmesh.functions.signatures import SourceError, read
from cloudmesh_function import codec as codecs
from cloudmesh_function import docstring, openapi, schema, yaml
from cloudmesh_function.codec import Codec
from cloudmesh_function.live import LiveModule
from cloudmesh_function.model import Expose
from cloudmesh_function.outline import outline

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

PRELUDE = """
import datetime, decimal, enum, typing, uuid
from dataclasses import dataclass

class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"

@dataclass
class Point:
    x: float
    y: float = 0.0

class Movie(typing.TypedDict):
    title: str
    year: typing.NotRequired[int]

class Pair(typing.NamedTuple):
    a: int
    b: str = "b"

"""

scalars = st.sampled_from(
    [
        *("int", "float", "bool", "str", "bytes", "datetime.date", "datetime.datetime", "datetime.timedelta"),
        *("uuid.UUID", "decimal.Decimal", "typing.Any", "None", "Color", "Point", "Movie", "Pair", "'Point'"),
        *("typing.Literal['a', 'b']", "typing.Literal[1, None]", "complex", "list", "dict", "object"),
    ]
)
annotations = st.recursive(
    scalars,
    lambda inner: st.one_of(
        inner.map(lambda x: f"list[{x}]"),
        inner.map(lambda x: f"typing.Optional[{x}]"),
        inner.map(lambda x: f"dict[str, {x}]"),
        inner.map(lambda x: f"tuple[{x}, ...]"),
        inner.map(lambda x: f"typing.Sequence[{x}]"),
        st.tuples(inner, inner).map(lambda x: f"typing.Union[{x[0]}, {x[1]}]"),
        st.tuples(inner, inner).map(lambda x: f"tuple[{x[0]}, {x[1]}]"),
    ),
    max_leaves=4,
)
defaults = st.sampled_from(
    ["", " = None", " = 1", " = -1.5", " = 'x'", " = [1, 'a']", " = {'a': 1}", " = int()", " = (1, 2)"]
)


@st.composite
def functions(draw: st.DrawFn) -> str:
    """The source of a function with parameters of all kinds."""
    parts: list[str] = []
    names = iter("abcdefgh")
    optional = False
    for _ in range(draw(st.integers(0, 3))):
        default = draw(defaults)
        optional = optional or bool(default)
        if optional and not default:
            default = " = None"
        parts.append(f"{next(names)}: {draw(annotations)}{default}")
    if parts and draw(st.booleans()):
        parts.insert(draw(st.integers(1, len(parts))), "/")
    if draw(st.booleans()):
        parts.append(f"*args: {draw(annotations)}")
        parts.append(f"{next(names)}: {draw(annotations)}{draw(defaults)}")
    if draw(st.booleans()):
        parts.append(f"**kw: {draw(annotations)}")
    future = "from __future__ import annotations\n" if draw(st.booleans()) else ""
    return f"{future}{PRELUDE}def f({', '.join(parts)}) -> {draw(annotations)}:\n    '''Text.'''\n"


def live_of(source: str) -> LiveModule:
    """The module of a source, run for real."""
    module = ModuleType("generated")
    sys.modules["generated"] = module
    exec(compile(source, "function.py", "exec", dont_inherit=True), module.__dict__)
    return LiveModule(module, outline(source), name="g", module_name="g")


def _mistaken(error: Exception) -> bool:
    """The validator takes a schema without `type` for a scalar's, and a list as its default for wrong."""
    return str(getattr(error, "message", "")).endswith("is not of type 'string', 'number', 'boolean', 'null'")


@QUICK
@given(functions())
def test_static_equals_live_and_is_valid(source: str) -> None:
    parsed = read(source, name="g", module="g", expose=Expose(("f",)))
    document = openapi.to_openapi(live_of(source).interface(Expose(("f",))))
    assert openapi.canonical(document) == parsed.canonical_openapi
    assert [
        error.message for error in OpenAPIV31SpecValidator(parsed.document).iter_errors() if not _mistaken(error)
    ] == []
    assert pyyaml.safe_load(yaml.dump(parsed.document)) == json.loads(parsed.canonical_openapi)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
samples = json_values | st.sampled_from(
    [
        *("2026-01-02", "2026-01-02T03:04:05Z", "PT5S", "-P1D", "aGk=", "1.5", "1+2j", "red", "a", "1", 1),
        *({"x": 1}, {"x": 1, "y": 2}, {"title": "t"}, [1], [1, "b"], ["a", "b"], {"a": 1}, [], {}, [[1, 2]], [None]),
        "00000000-0000-4000-8000-000000000000",
    ]
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(annotations, samples)
def test_what_is_accepted_fits_the_schema_and_comes_back(annotation: str, value: Any) -> None:
    source = f"{PRELUDE}def f(x: {annotation}) -> {annotation}: ...\n"
    live = live_of(source)
    interface = live.interface(Expose(("f",)))
    item = interface.operations[0].parameters[0].type
    codec = Codec(live.types, live.classes)
    document = openapi.to_openapi(interface)
    fits = jsonschema.Draft202012Validator(
        {**schema.schema(item), "components": document["components"]},
        format_checker=jsonschema.FormatChecker(("date", "uuid")),
    )
    try:
        found = codec.converter(item)(value)
    except (ValueError, TypeError, ArithmeticError):
        return
    assert fits.is_valid(value), (annotation, value)
    again = json.loads(codecs.encode(found))
    assert fits.is_valid(again), (annotation, value, again)
    assert codecs.encode(codec.converter(item)(again)) == codecs.encode(found)


@QUICK
@given(json_values)
def test_yaml_is_the_same_value(value: Any) -> None:
    assert pyyaml.safe_load(yaml.dump(value)) == value


@QUICK
@given(
    st.text(max_size=400)
    | st.lists(st.sampled_from([":param x:", "Args:", "    a: b", "---", "Returns", "\n", ":", "x"])).map("\n".join)
)
def test_any_docstring_can_be_read(text: str) -> None:
    found = docstring.read(text)
    assert isinstance(found.summary, str)
    assert all(isinstance(item, str) for item in found.parameters.values())


_pieces = st.sampled_from(
    [
        "def f(",
        "x",
        ": int",
        " = ",
        "):",
        "\n",
        "    ",
        "return",
        "class K",
        "(",
        ")",
        "[",
        "]",
        ",",
        "*",
        "/",
        "'",
        '"""',
        "import os",
        "if x:",
        "@",
        "...",
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200) | st.lists(_pieces, max_size=30).map("".join))
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    try:
        parsed = read(text, name="g", module="g")
    except SourceError as caught:
        error: SourceError | None = caught
    else:
        error = None
        assert parsed.operations
    if error is not None:
        assert error.message
        assert error.line <= text.count("\n") + text.count("\r") + 2
        assert (error.line == 0) == (error.column == 0)
