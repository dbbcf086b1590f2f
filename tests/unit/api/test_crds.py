"""The generator: what pydantic emits becomes a structural schema, crds/ is up to date, the lint sees what is wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import yaml
from pydantic import Field, create_model

from cloudmesh.api import crds
from cloudmesh.api.fields import ObjectMeta
from cloudmesh.api.functionservice import FunctionService
from cloudmesh.api.lint import MAX_BYTES, lint_crd, walk
from cloudmesh.api.schema import Definition, Model, Rule

ROOT = Path(__file__).resolve().parents[3]
GENERATED = crds.make_crd(FunctionService)


def schema_of(crd: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def test_files_are_up_to_date() -> None:
    for folder in (ROOT / "crds", ROOT / "charts/cloudmesh/files/crds"):
        assert {p.name: p.read_text() for p in folder.glob("*.yaml")} == crds.make_files()
    assert crds.main(["--check", "--root", str(ROOT)]) == 0


def test_check_finds_drift(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert crds.main(["--root", str(tmp_path)]) == 0
    assert crds.main(["--check", "--root", str(tmp_path)]) == 0
    written = tmp_path / "crds/functionservices.cloudmesh.org.yaml"
    written.write_text(written.read_text() + "# edited\n")
    (tmp_path / "crds/olds.cloudmesh.org.yaml").write_text("{}")
    assert crds.main(["--check", "--root", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert "functionservices.cloudmesh.org.yaml differs from the models" in told
    assert "olds.cloudmesh.org.yaml belongs to no kind" in told


def test_files_are_small_and_plain() -> None:
    for text in crds.make_files().values():
        assert len(text.encode()) < MAX_BYTES
        assert "&id" not in text
        assert "\nstatus:" not in text
        assert "preserveUnknownFields" not in text


def test_generated_keeps_the_conventions() -> None:
    assert lint_crd(GENERATED) == []


def test_everything_a_user_sees() -> None:
    version = GENERATED["spec"]["versions"][0]
    columns = [c["name"].upper() for c in version["additionalPrinterColumns"] if not c.get("priority")]
    assert columns == ["READY", "REASON", "URL", "REVISION", "REPLICAS", "AGE"]
    assert version["subresources"] == {
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    }
    names = GENERATED["spec"]["names"]
    assert (names["shortNames"], names["categories"], names["singular"]) == (["fsvc"], ["cloudmesh"], "functionservice")
    fields = {path for path, _ in walk(schema_of(GENERATED)) if path.startswith("spec.") and path.count(".") == 2}
    assert {path.removeprefix("spec.") for path in fields} == {
        "autoscaling.maxReplicas", "autoscaling.targetCPUPercent",
        "source.module", "source.inline", "source.configMapRef",
        "expose.functions", "expose.class", "expose.basePath",
        "python.version", "python.requirements", "python.requirements[]", "python.indexRef",
        "image.repository", "image.platforms", "image.platforms[]", "image.pushSecretRef", "image.pullSecretRef",
        "image.pullRepository",
        "runtime.resources", "runtime.env", "runtime.env[]", "runtime.envFrom", "runtime.envFrom[]",
        "runtime.timeoutSeconds", "runtime.concurrency", "runtime.maxBodyBytes", "runtime.nodeSelector",
        "runtime.nodeSelector{}", "runtime.tolerations", "runtime.tolerations[]",
        "revision.pin",
    }  # fmt: skip


def test_every_rule_of_the_models_is_in_the_schema() -> None:
    def rules(model: type[Model], seen: set[type[Model]]) -> int:
        if model in seen:
            return 0
        seen.add(model)
        inner = [
            m
            for m in Model.__subclasses__()
            if any(m.__name__ in str(f.annotation) for f in model.model_fields.values())
        ]
        return len(model.RULES) + sum(rules(m, seen) for m in inner)

    emitted = {
        r["rule"]
        for kind in crds.KINDS
        for _, node in walk(schema_of(crds.make_crd(kind)))
        for r in node.get("x-kubernetes-validations", [])
    }
    assert rules(FunctionService, set()) > 15
    assert {r.cel for m in Model.__subclasses__() if m.__module__.startswith("cloudmesh") for r in m.RULES} <= emitted


class Inner(Model):
    """Inner."""

    value: Annotated[int, Field(ge=0, le=10)] = 3
    """A number."""
    words: Annotated[list[Annotated[str, Field(max_length=3)]], Field(max_length=2)] = Field(default_factory=list)
    """Words."""


class Trial(Model):
    """A kind for trials."""

    CRD: ClassVar = Definition(kind="Trial", plural="trials", short_names=("cmt",), columns=())

    metadata: ObjectMeta
    """Metadata."""
    spec: Inner
    """Spec."""
    status: Inner = Inner()
    """Status."""


def generate(annotation: Any, default: Any = ...) -> dict[str, Any]:
    """The structural schema of a spec with one field."""
    spec = create_model("Spec", __base__=Model, field=(annotation, default))
    kind = create_model("Kind", __base__=Trial, __doc__="Kind.", spec=(spec, ...))
    made: dict[str, Any] = schema_of(crds.make_crd(kind))["properties"]["spec"]
    return made


def test_exclusive_bounds() -> None:
    found = generate(Annotated[int, Field(gt=0, lt=10)])["properties"]["field"]
    assert found == {"type": "integer", "format": "int32", "minimum": 1, "maximum": 9}


def test_optional_is_absent_not_null() -> None:
    made = generate(Annotated[str, Field(max_length=3)] | None, None)
    assert made["properties"]["field"] == {"type": "string", "maxLength": 3}
    assert "required" not in made


def test_defaults_of_nested_models() -> None:
    assert generate(Inner, Inner())["properties"]["field"]["default"] == {}
    assert generate(Inner, Inner(value=4))["properties"]["field"]["default"] == {"value": 4}
    assert generate(Inner | None, None)["properties"]["field"].get("default") is None


class Ruled(Model):
    """Ruled."""

    RULES: ClassVar = (Rule("self.value > 0", "`value` must be more than 0", lambda r: r.value > 0),)

    value: Annotated[int, Field(ge=0, le=10)] = 3
    """A number."""
    other: Annotated[int, Field(ge=0, le=10)] = 4
    """Another."""
    none: Inner | None = None
    """Nothing."""


def test_defaults_hold_what_a_rule_reads() -> None:
    """The server tries a struct's rules on its default before it fills in those of the members."""
    assert generate(Ruled, Ruled())["properties"]["field"]["default"] == {"value": 3}
    many = generate(Annotated[list[Ruled], Field(max_length=2)], [Ruled(other=5)])["properties"]["field"]
    assert many["default"] == [{"value": 3, "other": 5}]


class Flag(Model):
    """Flag."""

    EMPTY_MEANS: ClassVar[bool] = True


class Flagged(Model):
    """Flagged."""

    flag: Flag | None = None
    """Says something by being there."""
    inner: Inner | None = None
    """Says nothing when empty."""


class Outer(Model):
    """Outer."""

    flagged: Flagged | None = None
    """With a flag."""


def test_empty_structs_that_mean_something_are_written() -> None:
    assert Outer(flagged=Flagged(flag=Flag())).to_dict() == {"flagged": {"flag": {}}}
    assert Outer(flagged=Flagged()).to_dict() == {}
    assert Outer.model_validate({"flagged": {"flag": {}}}).flagged == Flagged(flag=Flag())


def test_maps_and_integers() -> None:
    made = generate(dict[Annotated[str, Field(pattern="^a$")], Annotated[str, Field(max_length=3)]])["properties"][
        "field"
    ]
    assert made == {"type": "object", "additionalProperties": {"type": "string", "maxLength": 3}}
    assert generate(Annotated[int, Field(ge=0, le=5)])["properties"]["field"]["format"] == "int32"
    assert generate(Annotated[int, Field(ge=0, le=2**40)])["properties"]["field"]["format"] == "int64"


class Recursive(Model):
    """Recursive."""

    inner: Recursive | None = None
    """Itself."""


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (float, "no floats"),
        (int | str, "unions are optional structs"),
        (tuple[int, str], "no tuples"),
        (dict, "what its values are"),
        (Recursive, "can't be recursive"),
    ],
)
def test_what_a_structural_schema_cannot_say(annotation: Any, message: str) -> None:
    with pytest.raises(crds.UnsupportedSchemaError, match=message):
        generate(annotation)


def at(crd: dict[str, Any], *path: str) -> dict[str, Any]:
    node = schema_of(crd)
    for name in path:
        node = node["items"] if name == "[]" else node["properties"][name]
    return node


SPOILERS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no description": (lambda c: at(c, "spec", "replicas").pop("description"), "replicas: must have a description"),
    "no full stop": (lambda c: at(c, "spec").update(description="Spec"), "spec: must have a description"),
    "float": (lambda c: at(c, "spec", "replicas").update(type="number"), "spec.replicas: must not be of type number"),
    "nullable": (lambda c: at(c, "spec", "image").update(nullable=True), "spec.image: must not use `nullable`"),
    "boolean": (lambda c: at(c, "spec", "source", "module").update(type="boolean"), "must be an enum, not a boolean"),
    "unbounded string": (lambda c: at(c, "spec", "source", "inline").pop("maxLength"), "string must have `maxLength`"),
    "unbounded integer": (lambda c: at(c, "spec", "replicas").pop("maximum"), "must have `minimum` and `maximum`"),
    "unsafe integer": (lambda c: at(c, "spec", "replicas").update(maximum=2**60), "must stay within 2^53"),
    "unbounded list": (lambda c: at(c, "spec", "python", "requirements").pop("maxItems"), "list must have `maxItems`"),
    "no list type": (
        lambda c: at(c, "spec", "runtime", "tolerations").pop("x-kubernetes-list-type"),
        "must have `x-kubernetes-list-type`",
    ),
    "map key not required": (
        lambda c: at(c, "spec", "runtime", "env", "[]").pop("required"),
        "a list-map must have keys that are required",
    ),
    "unbounded map": (
        lambda c: at(c, "spec", "runtime", "nodeSelector").pop("maxProperties"),
        "a map must have `maxProperties`",
    ),
    "lower-case enum": (
        lambda c: at(c, "spec", "runtime", "tolerations", "[]", "operator").update(enum=["exists"]),
        "values of an enum must be CamelCase",
    ),
    "empty enum value": (
        lambda c: at(c, "spec", "python", "version").update(enum=[""]), "an enum must not hold the empty string"
    ),
    "empty default": (
        lambda c: at(c, "spec", "source", "module").update(default=""), "not defaulted to the empty string"
    ),
    "look-around": (
        lambda c: at(c, "spec", "source", "module").update(pattern="^(?!x).*$"), "must do without look-around"
    ),
    "open pattern": (lambda c: at(c, "spec", "source", "module").update(pattern="a"), "must match the whole string"),
    "rule without message": (
        lambda c: at(c, "spec", "source")["x-kubernetes-validations"][0].pop("message"), "must have a `message`"
    ),
    "anyOf": (lambda c: at(c, "spec", "image").update(anyOf=[]), "must not use `anyOf`"),
    "snake case": (
        lambda c: at(c, "spec")["properties"].update(my_field=at(c, "spec", "replicas")), "must be written in camelCase"
    ),
    "no properties": (lambda c: at(c, "spec", "revision").pop("properties"), "spec.revision: must have properties"),
    "lost defaults": (lambda c: at(c, "spec", "runtime").pop("default"), "the defaults of its members never apply"),
    "reference without name": (
        lambda c: at(c, "spec", "python", "indexRef").pop("required"), "a reference must have a required `name`"
    ),
    "reference across": (
        lambda c: at(c, "spec", "python", "indexRef")["properties"].update(namespace=at(c, "spec", "source", "module")),
        "a reference must stay in its namespace",
    ),
    "status in the file": (lambda c: c.update(status={}), "`status` must not stand in the file"),
    "cluster-wide": (lambda c: c["spec"].update(scope="Cluster"), "the kind must be namespaced"),
    "no short name": (lambda c: c["spec"]["names"].pop("shortNames"), "the category cloudmesh and a short name"),
    "unknown fields": (lambda c: c["spec"].update(preserveUnknownFields=False), "`preserveUnknownFields` must not"),
    "no status": (lambda c: c["spec"]["versions"][0]["subresources"].pop("status"), "status subresource must be on"),
    "columns": (
        lambda c: c["spec"]["versions"][0]["additionalPrinterColumns"].pop(), "printer columns must begin with Ready"
    ),
    "conditions": (
        lambda c: at(c, "status", "conditions").update({"x-kubernetes-list-map-keys": ["reason"]}),
        "`status.conditions` must be a list-map by `type`",
    ),
    "generation": (
        lambda c: at(c, "status")["properties"].pop("observedGeneration"), "`status.observedGeneration` must be there"
    ),
    "quantity": (
        lambda c: at(c, "spec", "runtime", "resources", "limits", "cpu").pop("x-kubernetes-validations"),
        "a quantity must have `maxLength` and a pattern",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILERS)
def test_lint_sees(name: str) -> None:
    spoiled = copy.deepcopy(GENERATED)
    spoil, message = SPOILERS[name]
    spoil(spoiled)
    assert any(message in problem for problem in lint_crd(spoiled)), lint_crd(spoiled)


def test_yaml_round_trip() -> None:
    assert yaml.safe_load(crds.to_yaml(GENERATED)) == GENERATED


def test_rule_fields() -> None:
    assert Rule("self.x", "`x`", bool).to_schema() == {"rule": "self.x", "message": "`x`"}
    assert Rule("self.x", "`x`", bool, ".x").to_schema()["fieldPath"] == ".x"
