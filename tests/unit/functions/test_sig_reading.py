"""What reading a source gives beside its document."""

from __future__ import annotations

import pytest

from cloudmesh.functions.signatures import Expose, Parsed, missing_imports, read
from cloudmesh.functions.signatures.imports import project_of


def parse(source: str, **options: object) -> Parsed:
    return read(source, name="f", module="f", **options)  # type: ignore[arg-type]


SLIDE = '''
import re
import subprocess

from flask import jsonify


def get_processor_name() -> str:
    """The name of the processor

    :return: the name of the processor
    """
    return jsonify({"model": "x"})
'''


def test_the_slide() -> None:
    parsed = read(SLIDE, name="processor-name", module="cpu", requirements=["flask"])
    assert parsed.operations == [
        {"operationId": "cpu.get_processor_name", "method": "GET", "path": "/get_processor_name"},
        {"operationId": "cpu.get_processor_name.post", "method": "POST", "path": "/get_processor_name"},
    ]
    assert parsed.imports == ["flask"]
    found = parsed.document["paths"]["/get_processor_name"]["get"]
    assert found["summary"] == "The name of the processor"
    assert found["responses"]["200"]["description"] == "the name of the processor"
    assert parsed.document["servers"] == [{"url": "/cloudmesh"}]
    assert parsed.document["openapi"] == "3.1.0"
    assert parsed.canonical_openapi.endswith(b"}\n")
    assert parsed.warnings == []


def test_imports() -> None:
    source = """
import os, numpy.linalg, yaml as y
from sklearn.svm import SVC
from typing import TYPE_CHECKING
import msgspec
if TYPE_CHECKING:
    import pandas
try:
    import orjson
except ImportError:
    orjson = None
def f() -> int:
    import scipy
    from . import x if False else None
""".replace("    from . import x if False else None\n", "")
    parsed = parse(source)
    assert parsed.imports == ["numpy", "scipy", "sklearn", "yaml"]
    assert parsed.import_positions["scipy"] == (13, 5)
    assert missing_imports(parsed.imports, {"numpy", "scipy", "sklearn"}) == ["yaml"]
    assert [project_of(name) for name in ("sklearn", "yaml", "PIL", "my_pkg")] == [
        *("scikit-learn", "pyyaml", "pillow", "my-pkg")
    ]


def test_functions_under_a_condition_need_their_name() -> None:
    source = "import sys\ndef f(): ...\nif sys.platform:\n    def g(): ...\nelse:\n    def g(): ...\n"
    parsed = parse(source)
    assert list(parsed.document["paths"]) == ["/f"]
    assert parsed.warnings == ["g stands under a condition, so `*` leaves it out: name it to expose it"]
    assert list(parse(source, expose=Expose(("*", "g"))).document["paths"]) == ["/f", "/g"]


def test_what_is_never_exposed() -> None:
    source = """
from json import dumps
import os as system
def f(): ...
def _g(): ...
h = f
class K:
    def m(self): ...
if __name__ == "__main__":
    def main(): ...
"""
    assert list(parse(source).document["paths"]) == ["/f"]


def test_class_methods() -> None:
    source = """
class A:
    def a(self, x: int) -> int: ...
class K(A):
    @classmethod
    def c(cls, x: int) -> int: ...
    @staticmethod
    def s(x: int) -> int: ...
    def i(self, x: int) -> int: ...
    @property
    def p(self) -> int: ...
    def _q(self) -> int: ...
"""
    parsed = parse(source, expose=Expose(class_name="K"))
    assert set(parsed.document["paths"]) == {"/K/c", "/K/s", "/K/i", "/K/a"}
    for path in parsed.document["paths"].values():
        assert [item["name"] for item in path["get"]["parameters"]] == ["x"]
    assert parsed.document["paths"]["/K/a"]["get"]["operationId"] == "f.K.a"


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ("int", {"type": "integer"}),
        ("typing.Optional[int]", {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        ("int | None", {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        ("typing.Union[str, int, None, int]", {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]}),
        ("list", {"type": "array", "items": {}}),
        ("typing.List['int']", {"type": "array", "items": {"type": "integer"}}),
        (
            "dict[str, list[float]]",
            {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "number"}}},
        ),
        (
            "tuple[int, str]",
            {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2},
        ),
        ("typing.Literal['a', 'b']", {"enum": ["a", "b"], "type": "string"}),
        ("typing.Any", {}),
        ("dt.datetime", {"type": "string", "format": "date-time"}),
        ("uuid.UUID", {"type": "string", "format": "uuid"}),
        ("Alias", {"type": "array", "items": {"type": "integer"}}),
        ("typing.Annotated[int, 'x']", {"type": "integer"}),
        ("None", {"type": "null"}),
        ("collections.abc.Sequence[int]", {"type": "array", "items": {"type": "integer"}}),
    ],
)
def test_schemas(annotation: str, expected: dict[str, object]) -> None:
    source = (
        f"import typing, uuid, collections.abc\nimport datetime as dt\nAlias = list[int]\ndef f(x: {annotation}): ...\n"
    )
    operation = parse(source).document["paths"]["/f"]["post"]
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {
        "type": "object",
        "properties": {"x": expected},
        "required": ["x"],
        "additionalProperties": False,
    }


def test_get_only_where_a_query_can_say_it() -> None:
    source = """
from dataclasses import dataclass
@dataclass
class P:
    x: int
def scalars(a: int, b: list[str], *c: float, **d: bool): ...
def structure(p: P): ...
def nested(a: list[list[int]]): ...
def mapping(a: dict): ...
"""
    document = parse(source).document
    assert {path: sorted(found) for path, found in document["paths"].items()} == {
        "/scalars": ["get", "post"],
        "/structure": ["post"],
        "/nested": ["post"],
        "/mapping": ["post"],
    }
    assert document["paths"]["/structure"]["post"]["operationId"] == "f.structure"
    assert set(document["components"]["schemas"]) == {"P", "cloudmesh.Problem"}


def test_requirements_of_another_base_path_and_module() -> None:
    parsed = read("def f(): ...\n", name="n", module="my-module", base_path="/api/v1")
    assert parsed.document["servers"] == [{"url": "/api/v1"}]
    assert parsed.operations[0]["operationId"] == "my-module.f"
