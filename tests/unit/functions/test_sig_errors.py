"""Sources that can't be served: a sentence, with line and column."""

from __future__ import annotations

import sys
import time
from types import ModuleType

import pytest

from cloudmesh.functions.signatures import Expose, Parsed, SourceError, read
from cloudmesh_function.live import LiveModule
from cloudmesh_function.model import MAX_NODES, InterfaceError
from cloudmesh_function.outline import outline


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
    error = refused(source, expose=expose)
    assert text in error.message
    assert str(error).startswith(f"line {error.line}, column {error.column}: ")
    known = next((line for line, name in ((4, "_p"), (5, "K")) if name in expose.names), 1)
    assert error.line == (5 if expose.class_name == "K" else known)
    assert error.column == 1


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


@pytest.mark.parametrize(
    ("source", "line", "column", "text"),
    [
        ("def f(a, a): ...\n", 1, 10, "duplicate argument 'a'"),
        ("def f(): ...\nreturn 1\n", 2, 1, "'return' outside function"),
        ("def f():\n    break\n", 2, 5, "'break' outside loop"),
        ("continue\ndef f(): ...\n", 1, 1, "'continue' not properly in loop"),
        ("def f():\n    nonlocal q\n", 2, 5, "no binding for nonlocal 'q'"),
        ("def f():\n    x = 1\n    global x\n", 3, 5, "assigned to before global declaration"),
        ("def f():\n    await g()\n", 2, 5, "'await' outside async function"),
        ("x = 1\nfrom __future__ import annotations\ndef f(): ...\n", 2, 1, "at the beginning of the file"),
        ("def f():\n    from os import *\n", 2, 0, "import * only allowed at module level"),
        ("yield 1\ndef f(): ...\n", 1, 1, "'yield' outside function"),
    ],
)
def test_errors_that_only_the_compiler_sees(source: str, line: int, column: int, text: str) -> None:
    error = refused(source)
    assert text in error.message
    assert error.line == line
    assert error.column == column or not column


def test_what_compiles_with_a_warning_is_read() -> None:
    source = "from __future__ import annotations\ndef f(x: int) -> int:\n    return x is 1 or '\\d'\n"
    assert parse(source).operations


def _aliases(levels: int, use: str) -> str:
    lines = ["A0 = int", *(f"A{i} = tuple[A{i - 1}, A{i - 1}]" for i in range(1, levels + 1))]
    return "\n".join([*lines, use, ""])


TOO_LARGE = [
    (_aliases(25, "def f(x: A25) -> int: ..."), 27, 10),
    (_aliases(25, "def f(x: int) -> A25: ..."), 27, 18),
    (_aliases(25, "def f(x: 'A25') -> int: ..."), 27, 10),
    (_aliases(10, f"def f(x: tuple[{'A10, ' * 9000}]) -> int: ..."), 12, 10),
    (_aliases(10, f"def f({', '.join(f'x{i}: A10' for i in range(2000))}) -> int: ..."), 12, 0),
]


@pytest.mark.parametrize(("source", "line", "column"), TOO_LARGE, ids=["wide", "result", "quoted", "tuple", "sum"])
def test_types_that_grow_beyond_measure_are_refused_at_once_by_both_front_ends(
    source: str, line: int, column: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = time.process_time()
    error = refused(source)
    assert f"more than {MAX_NODES} parts" in error.message
    assert "make the repeated ones a dataclass" in error.message
    assert error.line == line
    assert error.column == column or not column
    module = ModuleType("large")
    monkeypatch.setitem(sys.modules, "large", module)
    exec(compile(source, "large.py", "exec", dont_inherit=True), vars(module))
    live = LiveModule(module, outline(source), name="f", module_name="large")
    with pytest.raises(InterfaceError, match=f"more than {MAX_NODES} parts"):
        live.interface(Expose())
    assert time.process_time() - begun < 3


def test_large_types_below_the_limit_are_read() -> None:
    source = _aliases(11, "def f(x: A11) -> A11: ...")
    assert parse(source).document["paths"]["/f"]["post"]
    union = "import typing\n" + _aliases(10, f"def f(x: typing.Union[{'A10, ' * 5000}None]) -> int: ...")
    assert parse(union).operations


def test_an_alias_that_holds_itself() -> None:
    assert "nested too deeply" in refused("A = 'tuple[A, A]'\ndef f(x: A): ...\n").message


@pytest.mark.parametrize(
    "source",
    [
        "".join(f"X{i} = 1\n" for i in range(8000)) + "def f(): ...\n",
        "import enum\nclass E(enum.Enum):\n" + "".join(f"    A{i} = {i}\n" for i in range(6000)) + "def f(e: E): ...\n",
        HEAD
        + "@dataclasses.dataclass\nclass D:\n"
        + "".join(f"    x{i}: int = 0\n" for i in range(6000))
        + "def f(d: D): ...\n",
    ],
    ids=["constants", "members", "fields"],
)
def test_long_sources_are_read_in_time(source: str) -> None:
    begun = time.process_time()
    assert parse(source).operations
    assert time.process_time() - begun < 2.5
