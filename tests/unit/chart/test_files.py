"""The chart's files without Helm: values and their schema, versions, examples."""

from __future__ import annotations

import ast
import copy
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cloudmesh.api.functionservice import FunctionService
from cloudmesh.api.names import PLURALS

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts/cloudmesh"
EXAMPLES = ROOT / "manifests/examples"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
CI = sorted((CHART / "ci").glob("*.yaml"))


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].removeprefix("#/definitions/")]
    return schema


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Values over values, as Helm merges them."""
    merged = copy.deepcopy(base)
    for key, value in over.items():
        known = merged.get(key)
        merged[key] = merge(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def differences(schema: dict[str, Any], values: dict[str, Any], path: str = "") -> Iterator[str]:
    properties = schema.get("properties", {})
    for name in properties.keys() ^ values.keys():
        yield f"{path}.{name}"
    for name in properties.keys() & values.keys():
        inner = resolve(properties[name])
        if isinstance(values[name], dict) and values[name] and "properties" in inner:
            yield from differences(inner, values[name], f"{path}.{name}")


def test_schema_knows_exactly_the_values() -> None:
    unset = {".global", ".operator.affinity", ".builder.affinity", ".registry.embedded.affinity"}
    assert set(differences(SCHEMA, VALUES)) <= unset


def test_schema_is_strict_everywhere() -> None:
    def objects(schema: Any) -> Iterator[dict[str, Any]]:
        if isinstance(schema, dict):
            if "properties" in schema and schema.get("type") == "object":
                yield schema
            for inner in schema.values():
                yield from objects(inner)

    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert all(schema.get("additionalProperties") is False for schema in objects(SCHEMA))


def test_at_least_ten_values_files() -> None:
    assert len(CI) >= 10


@pytest.mark.parametrize("file", CI, ids=lambda f: f.stem)
def test_values_files_are_valid(file: Path) -> None:
    jsonschema.validate(merge(VALUES, yaml.safe_load(file.read_text())), SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("operator.replica", 2),
        ("operator.replicas", 0),
        ("operator.replicas", "2"),
        ("operator.logLevel", "loud"),
        ("operator.resources.request", {}),
        ("operator.resources.requests", {"cpu": "much"}),
        ("image.pullPolicy", "Sometimes"),
        ("image.operator.tag", "a/b"),
        ("image.operator.digest", "sha256:1"),
        ("imagePullSecrets", ["name"]),
        ("watchNamespaces", "default"),
        ("watchNamespaces", ["A"]),
        ("watchNamespaces", ["a", "a"]),
        ("crds.keep", "yes"),
        ("builder.index.url", "https://user:password@index.example.org/simple"),
        ("builder.index.url", "index.example.org"),
        ("builder.caBundle.inline", "not PEM"),
        ("builder.proxy.httpProxy", "proxy:3128"),
        ("registry.embedded.nodeProxy.port", 80),
        ("registry.embedded.persistence.size", "ten"),
        ("registry.external.push", "https://registry.example.org/x"),
        ("registry.external.push", "registry.example.org/X"),
        ("networkPolicy.builderEgressCIDRs", ["everywhere"]),
        ("metrics.serviceMonitor.interval", 30),
        ("accounts.workloadIdentity.namespaces", "lab"),
        ("accounts.workloadIdentity.namespaces", ["lab physics"]),
        ("accounts.workloadIdentity.namespaces", ["*"]),
        ("accounts.workloadIdentity.audience", ""),
        ("unknown", {}),
    ],
)
def test_wrong_values_are_refused(path: str, value: Any) -> None:
    wrong: dict[str, Any] = {path.rpartition(".")[2]: value}
    for name in reversed(path.split(".")[:-1]):
        wrong = {name: wrong}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(merge(VALUES, wrong), SCHEMA)


def test_versions_agree() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart["version"] == chart["appVersion"] == project["version"]


def test_example_in_chart_annotations() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    for example in yaml.safe_load(chart["annotations"]["artifacthub.io/crdsExamples"]):
        FunctionService.model_validate(example, extra="forbid")


def examples() -> dict[str, dict[str, Any]]:
    found = {}
    for file in sorted((EXAMPLES / "functions").glob("*.yaml")):
        for obj in yaml.safe_load_all(file.read_text()):
            found[f"{file.stem}-{obj['kind']}"] = obj
    return found


@pytest.mark.parametrize("name", [n for n in examples() if n.endswith("-FunctionService")])
def test_examples_are_valid(name: str) -> None:
    read = FunctionService.model_validate(examples()[name], extra="forbid")
    source = read.spec.source.inline
    if source is None:
        assert read.spec.source.config_map_ref is not None
        source = examples()[name.replace("FunctionService", "ConfigMap")]["data"][read.spec.source.config_map_ref.key]
    tree = ast.parse(source)
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    if read.spec.expose.class_ is not None:
        assert read.spec.expose.class_.name in defined
    elif read.spec.expose.functions is not None:
        assert set(read.spec.expose.functions.names) <= defined | {"*"}
    imported = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    assert read.module not in imported, "the module would import itself"


def test_kustomizations_list_what_is_there() -> None:
    # they need an account
    by_hand = {"account-aws", "account-memory", "account-pods", "account-ssh", "machine", "mixed", "mounts"}
    for folder, extra in (
        ("functions", set()),
        ("argocd", {"argocd-cm-health.yaml"}),
        ("clusters", {f"{name}.yaml" for name in by_hand}),
        (
            "directories",
            {"cost.yaml", "rules.yaml", *(f.name for f in (EXAMPLES / "directories").glob("store-*.yaml"))},
        ),
    ):
        listed = yaml.safe_load((EXAMPLES / folder / "kustomization.yaml").read_text())["resources"]
        files = {f.name for f in (EXAMPLES / folder).glob("*.yaml")} - {"kustomization.yaml"} - extra
        assert sorted(listed) == sorted(files)


def test_argo_cd_example_has_the_charts_health_check() -> None:
    patch = yaml.safe_load((EXAMPLES / "argocd/argocd-cm-health.yaml").read_text())
    lua = (CHART / "files/argocd/health.lua").read_text()
    assert patch["data"] == {f"resource.customizations.health.cloudmesh.org_{kind}": lua for kind in PLURALS}


def test_argo_cd_applications_diff_on_the_server() -> None:
    for name in ("operator", "functions"):
        application = yaml.safe_load((EXAMPLES / f"argocd/{name}.yaml").read_text())
        assert "ServerSideApply=true" in application["spec"]["syncPolicy"]["syncOptions"]
        assert (ROOT / application["spec"]["source"]["path"]).is_dir()
