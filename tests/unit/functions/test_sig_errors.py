"""Sources that can't be served: a sentence, with line and column."""

from __future__ import annotations

import pytest

from cloudmesh.functions.signatures import Expose, Parsed, SourceError, read


def parse(source: str, **options: object) -> Parsed:
    return read(source, name="f", module="f", **options)  # type: ignore[arg-type]


def refused(source: str, **options: object) -> SourceError:
    with pytest.raises(SourceError) as caught:
        parse(source, **options)
    return caught.value


HEAD = "from typing import *\nimport dataclasses, enum\n"


@pytest.mark.parametrize(
    ("source", "line", "column", "text"),
    [
        ("def f(:\n", 1, 7, "invalid syntax"),
        ("def f(x):\nreturn x\n", 2, 1, "expected an indented block"),
        ("def f(x: Foo) -> int: ...\n", 1, 10, "parameter 'x' of f: the name 'Foo' is not defined"),
        ("def f(a: int,\n      b: 'list[Foo]') -> int: ...\n", 2, 10, "parameter 'b' of f: the name 'Foo'"),
        ("def f() -> Foo: ...\n", 1, 12, "the result of f: the name 'Foo' is not defined"),
        (
            "import collections\ndef f(x: collections.Counter): ...\n",
            2,
            10,
            "collections.Counter can't be carried as JSON",
        ),
        (
            "from typing import Callable\ndef f(x: Callable[[int], int]): ...\n",
            2,
            10,
            "typing.Callable can't be carried",
        ),
        ("def f(x: 3): ...\n", 1, 10, "'3' is no type"),
        ("def f(x: list[3]): ...\n", 1, 15, "'3' is no type"),
        ("def f(x: g()): ...\n", 1, 10, "'g()' is no type"),
        ("def f(x: 'int['): ...\n", 1, 10, "'int[' is no type"),
        ("def f(x: int[str]): ...\n", 1, 10, "int takes no type arguments"),
        ("def f(x: dict[str]): ...\n", 1, 10, "dict takes two type arguments"),
        ("def f(x: dict[list[int], str]): ...\n", 1, 10, "the keys of a dict must be"),
        ("def f(x: list[int, str]): ...\n", 1, 10, "list takes one type argument"),
        ("class C: ...\ndef f(x: C): ...\n", 2, 10, "the class C can't be carried as JSON: make it a dataclass"),
        ("def g(): ...\ndef f(x: g): ...\n", 2, 10, "g is a function, not a type"),
        ("V = int\nV = str\ndef f(x: V): ...\n", 3, 10, "V is assigned more than once"),
        (
            "from collections import namedtuple\nP = namedtuple('P', 'x')\ndef f(x: P): ...\n",
            3,
            10,
            "write it as a class",
        ),
        ("from typing import Literal\ndef f(x: Literal[1.5]): ...\n", 2, 10, "Literal values must be"),
        ("from typing import Optional\ndef f(x: Optional): ...\n", 2, 10, "typing.Optional needs a type in brackets"),
        (
            HEAD + "@dataclasses.dataclass\nclass D:\n    x: Foo\ndef f(d: D): ...\n",
            5,
            8,
            "field 'x' of D: the name 'Foo'",
        ),
        (
            HEAD + "@dataclasses.dataclass\nclass D:\n    x: dataclasses.InitVar[int]\ndef f(d: D): ...\n",
            5,
            5,
            "InitVar",
        ),
        (HEAD + "class E(enum.Enum):\n    A = object()\ndef f(e: E): ...\n", 4, 9, "E.A must be a literal"),
        (HEAD + "class E(enum.Enum):\n    pass\ndef f(e: E): ...\n", 3, 1, "the Enum E has no members"),
        ("def f(): ...\ndef f(x: int): ...\n", 2, 1, "the function 'f' is defined twice, first in line 1"),
        ("from . import x\ndef f(): ...\n", 1, 1, "a relative import can't work"),
        (
            "import typing\nif typing.TYPE_CHECKING:\n    from datetime import date\ndef f(x: 'date'): ...\n",
            *(4, 10),
            "date is imported under TYPE_CHECKING only",
        ),
        ("", 1, 1, "defines no public function"),
        ("x = 1\n", 1, 1, "defines no public function"),
        ("def _f(): ...\n", 1, 1, "defines no public function"),
        ("from os import getcwd\n", 1, 1, "defines no public function"),
        ("f = lambda x: x\n", 1, 1, "defines no public function"),
        ("def ui(): ...\n", 1, 1, "'ui' is taken"),
    ],
)
def test_place_and_text(source: str, line: int, column: int, text: str) -> None:
    error = refused(source)
    assert text in error.message
    assert (error.line, error.column) == (line, column)
    assert str(error).startswith(f"line {line}, column {column}: ")


@pytest.mark.parametrize(
    ("expose", "text"),
    [
        (Expose(("g",)), "the function 'g' is not defined in the source; known functions: f, h"),
        (Expose(("_p",)), "names with a leading _ are private"),
        (Expose(("K",)), "'K' is a class: expose it by class name"),
        (Expose(("dumps",)), "'dumps' is not defined in the source"),
        (Expose(class_name="L"), "the class 'L' is not defined in the source; known classes: K"),
        (Expose(class_name="f"), "the class 'f' is not defined"),
        (Expose(class_name="K"), "the class 'K' has no public method"),
    ],
)
def test_names_that_cannot_be_exposed(expose: Expose, text: str) -> None:
    source = "from json import dumps\ndef f(): ...\ndef h(): ...\ndef _p(): ...\n"
    source += "class K:\n    x = 1\n    def _m(self): ...\n"
    assert text in refused(source, expose=expose).message


def test_instance_methods_need_a_constructor_without_arguments() -> None:
    source = "class K:\n    def __init__(self, x):\n        self.x = x\n    def get(self) -> int: ...\n"
    error = refused(source, expose=Expose(class_name="K"))
    assert "K() needs arguments" in error.message
    assert error.line == 2
    source = source.replace("def get(self)", "@classmethod\n    def get(cls)")
    assert list(parse(source, expose=Expose(class_name="K")).document["paths"]) == ["/K/get"]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("x = " + "-" * 200_000 + "1\ndef f(): ...\n", ""),
        ("x = a" + ".b" * 20_000 + "\ndef f(): ...\n", ""),
        ("x = " + "(" * 5_000 + ")" * 5_000 + "\ndef f(): ...\n", ""),
        ("def f(x: " + "list[" * 500 + "int" + "]" * 500 + "): ...\n", ""),
        ("def f(): ...\n\0", "null bytes"),
        ("x" * 131_073, "at most 131072"),
        ("def f(): ...\n# \ud800\n", "lone surrogate"),
        ("x = " + "[" * 300 + "]" * 300 + "\ndef f(): ...\n", ""),
    ],
    ids=["minuses", "dots", "parentheses", "brackets", "nul", "long", "surrogate", "lists"],
)
def test_bombs_are_errors(source: str, text: str) -> None:
    assert text in refused(source).message


def test_third_party_imports_without_requirements() -> None:
    source = "import json\nimport cv2\ndef f() -> int: ...\n"
    error = refused(source, requirements=[])
    assert (error.line, error.column) == (2, 1)
    assert "nothing provides the import 'cv2': add 'opencv-python'" in error.message
    assert parse(source, requirements=["opencv-python"]).imports == ["cv2"]
    assert parse(source, requirements=["opencv-python"]).import_positions == {"cv2": (2, 1)}
    assert parse(source).imports == ["cv2"]
