"""Random specs, made from the schema itself: pydantic and the API server accept, refuse and fill in the same."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.kube.test_api import TYPE, create, numbers_as_text
from tests.kube.test_api import api as api
from tests.kube.test_api import crd as crd
from tests.unit.api.corpus import make_object

from cloudmesh.api.functionservice import FunctionService
from cloudmesh.api.schema import drop_empty, pattern_of

pytestmark = [pytest.mark.kube]
CRD = Path(__file__).resolve().parents[2] / "crds/functionservices.cloudmesh.org.yaml"
SPEC = yaml.safe_load(CRD.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
JUNK = st.one_of(
    st.text(max_size=4),
    st.integers(-5, 5),
    st.booleans(),
    st.none(),
    st.sampled_from([[], {}, 1.5, "", "a\n", "*", "CLOUDMESH_X", "git+https://x", [None], {"x": 1}]),
)
UNIONS = ({"inline", "configMapRef"}, {"functions", "class"}, {"value", "valueFrom"}, {"configMapRef", "secretRef"},
          {"configMapKeyRef", "secretKeyRef"}, {"policyRef", "rules"}, {"ssh", "slurm", "script"},
          {"aws", "kubernetes", "memory", "ssh"}, {"type", "vcpu"})  # fmt: skip
NEEDS = {
    "pushSecretRef": "repository",
    "pullSecretRef": "repository",
    "pullRepository": "repository",
    "operator": "key",
    "aws": "credentials",
    "ssh": "credentials",
}


_made: dict[int, tuple[dict[str, Any], st.SearchStrategy[Any]]] = {}
"""By the id of a schema, which is kept with it: making them anew for each draw is most of what a draw takes."""


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Mostly what the schema allows, sometimes one step outside, seldom anything."""
    if id(schema) not in _made:
        _made[id(schema)] = schema, _values(schema)
    return _made[id(schema)][1]


def _values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    good: st.SearchStrategy[Any]
    if "enum" in schema:
        good = st.sampled_from(schema["enum"])
    elif schema.get("x-kubernetes-int-or-string"):
        texts = st.sampled_from(["0", "1", "2", "1500m", "1Gi", "1G", "1e3", "1E", "0.5"])
        good = st.one_of(texts, st.from_regex(pattern_of(schema), fullmatch=True), st.integers(0, 5))
    elif schema["type"] == "object" and "properties" in schema:
        good = structs(schema)
    elif schema["type"] == "object":
        keys = seldom(st.text(min_size=1, max_size=2), st.from_regex("[a-z]{1,3}(/[A-Z]{1,2})?", fullmatch=True))
        good = st.dictionaries(keys, values(schema["additionalProperties"]), max_size=2)
    elif schema["type"] == "array":
        good = st.lists(values(schema["items"]), min_size=schema.get("minItems", 0), max_size=3)
    elif schema["type"] == "integer":
        least, most = schema["minimum"], schema["maximum"]
        good = seldom(st.sampled_from([least - 1, most + 1]), st.sampled_from([least + 1, most]))
    elif "ControllerRevision" in schema.get("description", ""):
        good = seldom(st.just("b-00001"), st.just("a-00001"))
    elif "pattern" in schema:
        good = st.from_regex(schema["pattern"], fullmatch=True)
    else:
        good = st.text(min_size=(least := schema.get("minLength", 0)), max_size=max(5, least))
    return st.integers(0, 150).flatmap(lambda number: JUNK if number == 0 else good)


def seldom(wrong: st.SearchStrategy[Any], right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 30).flatmap(lambda number: wrong if number == 0 else right)


@st.composite
def structs(draw: st.DrawFn, schema: dict[str, Any]) -> dict[str, Any]:
    """A struct whose unions have one member, most of the time."""
    names = [name for name in schema["properties"] if name in schema.get("required", []) or draw(st.booleans())]
    for union in UNIONS:
        if union <= schema["properties"].keys() and draw(st.integers(0, 9)):
            one = draw(st.sampled_from(sorted(union)))
            names = [name for name in names if name not in union] + [one]
    for name, needed in NEEDS.items():
        if name in names and needed in schema["properties"] and draw(st.integers(0, 9)):
            names = [*(n for n in names if n != needed), needed]
    return {name: draw(values(schema["properties"][name])) for name in names}


def test_one_mind(api: httpx.Client) -> None:
    seen: Counter[bool] = Counter()

    @settings(max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(values(SPEC))
    def agree(spec: Any) -> None:
        answer = create(api, make_object("a", spec, **TYPE))
        ours: FunctionService | ValidationError
        try:
            ours = FunctionService.model_validate(make_object("a", spec), extra="forbid")
        except ValidationError as error:
            ours = error
        assert answer.status_code in (201, 400, 422), answer.text
        seen[answer.status_code == 201] += 1
        assert (answer.status_code == 201) is isinstance(ours, FunctionService), (
            f"{answer.text}\n{json.dumps(spec)}\n{ours}"
        )
        if isinstance(ours, FunctionService):
            assert drop_empty(numbers_as_text(answer.json()["spec"])) == ours.to_dict()["spec"]

    agree()
    assert min(seen[True], seen[False]) >= 3, seen  # both answers were drawn
