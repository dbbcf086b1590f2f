"""A kind of cloud is named in many places; all of them must name the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from benchmarks.conformance import ALL

from cloudmesh.api.cloudaccount import CLOUDS, KINDS, Aws, CloudAccount, CloudAccountSpec
from cloudmesh.api.crds import make_crd
from cloudmesh.api.lint import lint_crd, walk
from cloudmesh.compute.providers.registry import BUILT_IN, PLUGIN

PAGES = Path(__file__).resolve().parents[3] / "docs/reference"


def schema() -> dict[str, Any]:
    made: dict[str, Any] = make_crd(CloudAccount)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return made


def test_the_api_and_the_table_of_providers_know_the_same_kinds() -> None:
    assert set(KINDS) == {*BUILT_IN, PLUGIN}


def test_the_spec_has_a_member_for_each_kind() -> None:
    members = {name: str(field.annotation) for name, field in CloudAccountSpec.model_fields.items()}
    assert {name for name in members if name in KINDS} == set(KINDS)
    for kind, model in CLOUDS.items():
        assert model.__name__ in members[kind]
        assert f"`{kind}`" in (CloudAccountSpec.__doc__ or ""), "people read it in `kubectl explain`"


def test_each_kind_has_a_page() -> None:
    assert {path.stem.removeprefix("account-") for path in PAGES.glob("account-*.md")} == set(BUILT_IN)


def test_the_suite_runs_on_each_kind() -> None:
    assert set(BUILT_IN) <= set(ALL)
    page = (PAGES / "conformance.md").read_text()
    rows = re.findall(r"^\| ([a-z-]+) \| [^|]+ \| \d+ \| \d+ \| \d+ \|$", page, re.MULTILINE)
    (head,) = re.findall(r"^\| case \| what must hold \| (.+) \|$", page, re.MULTILINE)
    assert rows == head.split(" | ")
    assert set(rows) == set(ALL)


def test_fields_that_say_where_to_connect_exist() -> None:
    paths = {path.replace("{}", "") for path, _ in walk(schema())}
    for kind, model in CLOUDS.items():
        for path in model.ENDPOINTS:
            there = "settings" if path.startswith("settings.") else path
            assert f"spec.{kind}.{there}" in paths


@pytest.mark.parametrize(("kind", "field"), [("aws", "endpoint"), ("ssh", "hosts[].address")])
def test_a_field_that_says_where_to_connect_must_be_declared(
    kind: str, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lint_crd(make_crd(CloudAccount)) == []
    monkeypatch.setattr(CLOUDS[kind], "ENDPOINTS", {})
    (told,) = lint_crd(make_crd(CloudAccount))
    assert told.startswith(f"spec.{kind}.{field}: ") and "`ENDPOINTS`" in told


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("authUrl", "^[!-~]+$"), ("keystone", "^https?://.*$"), ("peer", "^[0-9a-f:.]+$"), ("apiServer", "^[a-z.]+$")],
)
def test_such_fields_are_known_by_their_name_or_pattern(name: str, pattern: str) -> None:
    crd = make_crd(CloudAccount)
    aws = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["aws"]
    aws["properties"][name] = {"type": "string", "maxLength": 99, "pattern": pattern, "description": "New."}
    assert [told for told in lint_crd(crd) if f"spec.aws.{name}: " in told and "`ENDPOINTS`" in told]
    assert name not in Aws.ENDPOINTS


def test_credentials_are_asked_for_where_the_kind_needs_them() -> None:
    told = next(rule.message for rule in CloudAccountSpec.RULES if "`spec.credentials` must be set" in rule.message)
    for kind, model in CLOUDS.items():
        assert (f"`{kind}`" in told) == (model.CREDENTIALS != "None")


def test_the_linter_tells_the_cure_of_an_empty_struct() -> None:
    crd = make_crd(CloudAccount)
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["aws"]["properties"]["flag"] = {"type": "object", "description": "New."}
    assert any("EMPTY_STRUCTS" in told for told in lint_crd(crd))
