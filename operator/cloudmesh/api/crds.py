"""Makes the CustomResourceDefinitions in crds/ and in the chart out of the models.

`python -m cloudmesh.api.crds` writes them, `--check` compares and lints them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from cloudmesh.api.budget import Budget
from cloudmesh.api.cloudaccount import CloudAccount
from cloudmesh.api.clusterjob import ClusterJob
from cloudmesh.api.datastore import DataStore
from cloudmesh.api.functionservice import FunctionService
from cloudmesh.api.lint import lint_crd
from cloudmesh.api.names import CATEGORY, GROUP, VERSION
from cloudmesh.api.placementpolicy import PlacementPolicy
from cloudmesh.api.pricesheet import PriceSheet
from cloudmesh.api.schema import Definition, Model
from cloudmesh.api.virtualcluster import VirtualCluster
from cloudmesh.api.virtualdirectory import VirtualDirectory
from cloudmesh.api.virtualmachine import VirtualMachine

KINDS: Final[tuple[type[Model], ...]] = (
    FunctionService,
    VirtualCluster,
    VirtualMachine,
    CloudAccount,
    PlacementPolicy,
    PriceSheet,
    Budget,
    ClusterJob,
    VirtualDirectory,
    DataStore,
)

HEADER = "# Generated from operator/cloudmesh/api by `python -m cloudmesh.api.crds`; don't edit.\n"
_INT32_MAX = 2**31 - 1
_DROPPED = frozenset(
    {
        "title",
        "examples",
        "const",
        "additionalProperties",
        "patternProperties",
        "propertyNames",
        "anyOf",
        "$ref",
        "$defs",
    }
)
_FIRST = ("description", "type", "format", "enum", "default", "required", "properties", "items", "additionalProperties")
_API_VERSION = "Version of the schema of this object, here `cloudmesh.org/v1alpha1`."
_KIND = "Kind of this object; can't be changed."


class _PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


class UnsupportedSchemaError(TypeError):
    """A model holds something that a structural schema can't say."""


def make_crd(model: type[Model]) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind.

    Args:
        model: The kind's model, with a `CRD` definition.

    Raises:
        UnsupportedSchemaError: A field has no structural schema: a float, a union, a tuple, recursion.
    """
    definition: Definition = model.CRD  # type: ignore[attr-defined]
    subresources: dict[str, Any] = {"status": {}}
    if definition.scale is not None:
        subresources["scale"] = {
            "specReplicasPath": definition.scale.spec_replicas_path,
            "statusReplicasPath": definition.scale.status_replicas_path,
            "labelSelectorPath": definition.scale.label_selector_path,
        }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{definition.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": definition.kind,
                "listKind": f"{definition.kind}List",
                "plural": definition.plural,
                "singular": definition.kind.lower(),
                "shortNames": list(definition.short_names),
                "categories": [CATEGORY],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [
                        {
                            "name": column.name,
                            "type": column.type,
                            "description": column.description,
                            "jsonPath": column.json_path,
                        }
                        | ({"priority": column.priority} if column.priority else {})
                        for column in definition.columns
                    ],
                    "subresources": subresources,
                    "schema": {"openAPIV3Schema": _root(model)},
                }
            ],
        },
    }


def to_yaml(crd: dict[str, Any]) -> str:
    """The file's text for a definition."""
    return HEADER + yaml.dump(crd, Dumper=_PlainDumper, sort_keys=False, width=120, allow_unicode=True)


def make_files() -> dict[str, str]:
    """Name and text of each file of crds/."""
    crds = [make_crd(model) for model in KINDS]
    return {f"{crd['metadata']['name']}.yaml": to_yaml(crd) for crd in crds}


def _root(model: type[Model]) -> dict[str, Any]:
    document = model.model_json_schema(by_alias=True, mode="validation")
    document["properties"] |= {
        "apiVersion": {"description": _API_VERSION, "type": "string"},
        "kind": {"description": _KIND, "type": "string"},
        "metadata": {"type": "object", "properties": {}},
    }
    root = _structural(document, document.get("$defs", {}), ())
    properties = root["properties"]
    del properties["metadata"]["properties"]
    properties["status"].pop("default", None)
    root["required"] = ["spec"]
    return root


def _structural(schema: dict[str, Any], definitions: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    schema = _resolve(schema, definitions, path)
    out = {key: value for key, value in schema.items() if key not in _DROPPED}
    if "const" in schema:
        out["enum"] = [schema["const"]]
    if "description" in out:
        out["description"] = " ".join(out["description"].split())
    if schema.get("type") == "object":
        out |= _members(schema, definitions, path)
    elif schema.get("type") == "array":
        if "prefixItems" in schema:
            raise UnsupportedSchemaError(f"{'.'.join(path)}: a structural schema has no tuples")
        out["items"] = _structural(schema["items"], definitions, (*path, "[]"))
    elif schema.get("type") == "integer":
        out |= _closed_bounds(out)
        small = abs(out.get("minimum", 0)) <= _INT32_MAX and out.get("maximum", 2**53) <= _INT32_MAX
        out["format"] = "int32" if small else "int64"
    elif schema.get("type") == "number":
        raise UnsupportedSchemaError(f"{'.'.join(path)}: the API has no floats")
    default = out.pop("default", None)
    if default is not None and default != []:
        out["default"] = _shorten(default, out)
    return {key: out[key] for key in sorted(out, key=lambda key: _FIRST.index(key) if key in _FIRST else len(_FIRST))}


def _closed_bounds(out: dict[str, Any]) -> dict[str, int]:
    """Numeric exclusive bounds are a boolean in OpenAPI 3.0: the next integer says the same."""
    bounds = {}
    if "exclusiveMinimum" in out:
        bounds["minimum"] = out.pop("exclusiveMinimum") + 1
    if "exclusiveMaximum" in out:
        bounds["maximum"] = out.pop("exclusiveMaximum") - 1
    return bounds


def _members(schema: dict[str, Any], definitions: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    if "properties" in schema:
        return {
            "properties": {
                name: _structural(member, definitions, (*path, name)) for name, member in schema["properties"].items()
            }
        }
    values = schema.get("additionalProperties") or next(iter(schema.get("patternProperties", {}).values()), None)
    if not isinstance(values, dict):
        raise UnsupportedSchemaError(f"{'.'.join(path)}: a map must say what its values are")
    return {"additionalProperties": _structural(values, definitions, (*path, "*"))}


def _resolve(schema: dict[str, Any], definitions: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """The schema with its reference or its optional member put in; what stands beside them wins."""
    if len(path) > 32:
        raise UnsupportedSchemaError(f"{'.'.join(path)}: a structural schema can't be recursive")
    if "$ref" in schema:
        target = definitions[schema["$ref"].removeprefix("#/$defs/")]
        return _resolve({**target, **{k: v for k, v in schema.items() if k != "$ref"}}, definitions, path)
    if "anyOf" in schema:
        members = [member for member in schema["anyOf"] if member != {"type": "null"}]
        if len(members) != 1:
            raise UnsupportedSchemaError(f"{'.'.join(path)}: unions are optional structs with a rule, not anyOf")
        return _resolve({**members[0], **{k: v for k, v in schema.items() if k != "anyOf"}}, definitions, path)
    return schema


def _shorten(default: Any, schema: dict[str, Any]) -> Any:
    """A default without what its members' own defaults say already, and without what is absent.

    The server tries the rules of a struct on its default before it fills in those of the members, so that members
    that a rule reads stay.
    """
    if isinstance(default, list):
        return [_shorten(item, schema.get("items", {})) for item in default]
    if not isinstance(default, dict):
        return default
    properties = schema.get("properties", {})
    rules = " ".join(rule["rule"] for rule in schema.get("x-kubernetes-validations", ()))
    kept: dict[str, Any] = {}
    for name, value in default.items():
        member = properties.get(name, {})
        short = _shorten(value, member)
        if short in (None, [], {}) or (short == member.get("default") and f"self.{name}" not in rules):
            continue
        kept[name] = short
    return kept


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes or compares the files; 1 if they differ or break a convention."""
    parser = argparse.ArgumentParser(prog="python -m cloudmesh.api.crds", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare and lint, write nothing")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the checkout (default: the current folder)")
    options = parser.parse_args(arguments)
    folders = [options.root / "crds", options.root / "charts" / "cloudmesh" / "files" / "crds"]
    problems: list[str] = []
    files = make_files()
    for name, text in files.items():
        problems += [f"{name}: {problem}" for problem in lint_crd(yaml.safe_load(text))]
    for folder in folders:
        problems += _sync(folder, files, write=not options.check)
    for problem in problems:
        sys.stderr.write(problem + "\n")
    return 1 if problems else 0


def _sync(folder: Path, files: dict[str, str], *, write: bool) -> list[str]:
    if write:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
    found = {path.name: path.read_text() for path in folder.glob("*.yaml")}
    again = "run `python -m cloudmesh.api.crds`"
    stale = [f"{folder / name} differs from the models: {again}" for name in files if found.get(name) != files[name]]
    return stale + [f"{folder / name} belongs to no kind: remove it" for name in sorted(found.keys() - files.keys())]


if __name__ == "__main__":
    sys.exit(main())
