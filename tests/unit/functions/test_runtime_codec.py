"""Values from JSON and query strings, and back."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import json
import math
import typing
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cloudmesh_function import codec as codecs
from cloudmesh_function import types
from cloudmesh_function.binding import Binder
from cloudmesh_function.codec import Codec, ConvertError
from cloudmesh_function.live import LiveModule
from cloudmesh_function.model import ANY, Array, Choice, Doc, Operation, Parameter, Scalar
from cloudmesh_function.outline import outline
from cloudmesh_function.problem import Problem


def codec_of(source: str) -> tuple[LiveModule, Codec]:
    """The live module of a source, with the codec of its classes."""
    module = ModuleType("codec_test")
    import sys

    sys.modules["codec_test"] = module
    exec(compile(source, "function.py", "exec"), module.__dict__)
    live = LiveModule(module, outline(source), name="c", module_name="c")
    for name, found in vars(module).items():
        if isinstance(found, type) and found.__module__ == "codec_test":
            live.from_hint(found)
        assert name
    return live, Codec(live.types, live.classes)


PLAIN = Codec({}, {})


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (int, "12", 12),
        (int, "1.0", 1),
        (float, "1e3", 1000.0),
        (bool, "true", True),
        (bool, "0", False),
        (str, "null", "null"),
        (int | None, "null", None),
        (int | float, "1.5", 1.5),
        (int | str, "1", "1"),
        (datetime.datetime | str, "2026-01-02T03:04:05Z", datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)),
        (datetime.datetime | str, "soon", "soon"),
        (decimal.Decimal, "1.50", decimal.Decimal("1.50")),
        (complex, "1+2j", 1 + 2j),
        (fractions.Fraction, "1/3", fractions.Fraction(1, 3)),
        (bytes, "aGk=", b"hi"),
        (datetime.timedelta, "PT1.5S", datetime.timedelta(seconds=1.5)),
        (uuid.UUID, "00000000-0000-4000-8000-000000000000", uuid.UUID(int=0x40008000000000000000)),
        (typing.Literal["a", 1], "1", 1),
        (typing.Literal[True], "true", True),
        (Path, "/a", Path("/a")),
    ],
)
def test_query(hint: Any, text: str, value: Any) -> None:
    live, codec = codec_of("")
    found = codec.query(live.from_hint(hint))(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (int, "1.5"),
        (int, " 1"),
        (int, "1_000"),
        (int, ""),
        (float, "nan"),
        (float, "-inf"),
        (float, "1e999"),
        (bool, "yes"),
        (datetime.datetime, "0"),
        (datetime.timedelta, "5"),
        (decimal.Decimal, "NaN"),
        (decimal.Decimal, "1_0"),
        (complex, "nan"),
        (complex, "(1+2j)"),
        (fractions.Fraction, "1/0"),
        (bytes, "aGk"),
        (typing.Literal["a"], "b"),
        (type(None), ""),
    ],
)
def test_query_refuses(hint: Any, text: str) -> None:
    live, codec = codec_of("")
    with pytest.raises((ValueError, TypeError)):
        codec.query(live.from_hint(hint))(text)


CLASSES = """
import dataclasses, enum, datetime
from typing import NamedTuple, TypedDict, NotRequired

@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0

@dataclasses.dataclass
class When:
    at: datetime.datetime | str
    also: list[datetime.date | str] = dataclasses.field(default_factory=list)

@dataclasses.dataclass
class Node:
    value: complex
    next: "Node | None" = None

class Kind(enum.Enum):
    A = 1.5
    B = "b"

class Pair(NamedTuple):
    a: complex
    b: int = 3

class Options(TypedDict):
    z: complex
    n: NotRequired[int]

class Positive:
    pass

@dataclasses.dataclass
class Checked:
    x: int

    def __post_init__(self):
        if self.x < 0:
            raise ValueError("x must not be negative")
"""


def test_classes_that_msgspec_does_not_carry() -> None:
    live, codec = codec_of(CLASSES.replace("class Positive:\n    pass\n", ""))
    module = live.module
    made: Any = {name: codec.converter(live.from_hint(getattr(module, name))) for name in live.classes}
    assert made["When"]({"at": "soon", "also": ["2026-01-02", "x"]}) == module.When(
        "soon", [datetime.date(2026, 1, 2), "x"]
    )
    node = made["Node"]({"value": "1j", "next": {"value": 2}})
    assert node == module.Node(1j, module.Node(2 + 0j))
    assert made["Kind"](1.5) is module.Kind.A
    assert made["Kind"]("b") is module.Kind.B
    assert made["Pair"](["1j"]) == (1j, 3)
    assert made["Options"]({"z": 1, "other": 2}) == {"z": 1 + 0j}
    with pytest.raises(ConvertError) as caught:
        made["Node"]({"value": "1j", "next": {"value": "x"}})
    assert caught.value.path == "$.next.value"
    for name, value in (("Kind", 2), ("Kind", [1]), ("Pair", []), ("Pair", {}), ("Options", {}), ("When", [])):
        with pytest.raises(ConvertError):
            made[name](value)
    with pytest.raises(Exception, match="x must not be negative"):
        made["Checked"]({"x": -1})


def test_defaults_that_msgspec_leaves_to_the_class_are_there() -> None:
    live, codec = codec_of(CLASSES.replace("class Positive:\n    pass\n", ""))
    item = Array("list", live.from_hint(live.module.Point))
    (point,) = codec.converter(item)([{"x": 1}])
    assert vars(point) == {"x": 1.0, "y": 0.0}
    assert codecs.encode([point]) == b'[{"x":1.0,"y":0.0}]'
    assert codec.completer(ANY) is None


def test_arrays_of_numpy() -> None:
    numpy = pytest.importorskip("numpy")
    convert = PLAIN.converter(Scalar("ndarray"))
    assert convert([[1, 2], [3, 4]]).shape == (2, 2)
    for value in ([[1], [1, 2]], {"a": 1}, "x"):
        with pytest.raises(ConvertError):
            convert(value)
    assert codecs.encode({"a": numpy.array([[1.5]]), "b": numpy.int64(3), "c": numpy.float32(0.5)}) == (
        b'{"a":[[1.5]],"b":3,"c":0.5}'
    )
    with pytest.raises(ValueError, match=r"nan at \$\[0\]"):
        codecs.encode(numpy.array([math.nan]))


class Color(enum.Enum):
    HALF = 0.5


@dataclasses.dataclass
class Loose:
    a: Any


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ({"a": None}, '{"a":null}'),
        (1 + 2j, '"1+2j"'),
        (fractions.Fraction(1, 3), '"1/3"'),
        (Path("/a"), '"/a"'),
        (decimal.Decimal("1.50"), '"1.50"'),
        (Color.HALF, "0.5"),
        (Loose(Color.HALF), '{"a":0.5}'),
        (range(3), "[0,1,2]"),
        ({1: 2}, '{"1":2}'),
        (2**70, str(2**70)),
        (datetime.timedelta(seconds=90), '"PT90S"'),
        (iter([1]), "[1]"),
        (b"hi", '"aGk="'),
    ],
)
def test_results(value: Any, text: str) -> None:
    assert codecs.encode(value).decode() == text


@pytest.mark.parametrize(
    "value", [math.nan, [math.inf], {"a": {"b": [None, -math.inf]}}, Loose(math.nan), (1, {math.nan})]
)
def test_results_that_are_no_json(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON can't carry"):
        codecs.encode(value)
    with pytest.raises(TypeError, match="can't be written as JSON"):
        codecs.encode(object())


def test_every_wrong_parameter_is_named() -> None:
    def target(a: int, b: float, *c: int, d: str = "") -> None: ...

    operation = Operation(
        "target",
        (
            Parameter("a", Scalar("int")),
            Parameter("b", Scalar("float")),
            Parameter("c", Array("list", Scalar("int")), "*", required=False),
            Parameter("d", Scalar("str"), "keyword", required=False, default=""),
        ),
        ANY,
        Doc(),
    )
    binder = Binder(operation, target, PLAIN)
    assert binder.from_query(b"a=1&b=2&c=3&c=4&d=x%20y+z") == ([1, 2.0, 3, 4], {"d": "x y z"})
    assert binder.from_body(b'{"b": 2, "a": 1}') == ([1, 2.0], {})
    with pytest.raises(Problem) as caught:
        binder.from_body(b'{"a": "x", "c": [1, "y"], "e": 1}')
    assert [(item["parameter"], item.get("pointer")) for item in caught.value.errors] == [
        *(("a", "/a"), ("c", "/c/1"), ("e", None), ("b", None))
    ]
    assert json.loads(caught.value.body())["status"] == 422
    with pytest.raises(Problem, match="no valid UTF-8"):
        binder.from_query(b"a=%ff")
    with pytest.raises(Problem, match="more than 10000 parts"):
        binder.from_query(b"a=1&" * 10_001)


def test_unions_are_flat_and_in_one_order() -> None:
    integer, text, none = Scalar("int"), Scalar("str"), Scalar("None")
    assert types.union([text, integer]) == types.union([integer, types.union([text, integer])])
    assert types.optional(types.optional(integer)) == Choice((integer, none))
    assert types.union([ANY, integer]) == ANY
    assert types.union([integer]) == integer
