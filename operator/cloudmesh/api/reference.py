"""Makes the reference pages of docs/reference out of the CustomResourceDefinitions.

`python -m cloudmesh.api.reference` writes them, `--check` compares them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cloudmesh.api.crds import KINDS, make_crd
from cloudmesh.api.machines import MONEY_PATTERN, PERCENT_PATTERN
from cloudmesh.api.schema import pattern_of

FOLDER = Path("docs/reference")
_GENERATED = "<!-- Generated from operator/cloudmesh/api by `python -m cloudmesh.api.reference`; don't edit. -->"
_SPEC_HEAD = ("| field | type | default | what it is |", "|---|---|---|---|")
_STATUS_HEAD = ("| field | type | what it is |", "|---|---|---|")  # nobody fills in a status
_AMOUNTS = {MONEY_PATTERN: "decimal", PERCENT_PATTERN: "number or percent"}
_LARGEST = {2**31 - 1, 2**53 - 1}  # bounds that only say how a number is stored


def make_page(crd: dict[str, Any]) -> str:
    """The page of one kind, as Markdown.

    Args:
        crd: the kind's CustomResourceDefinition.
    """
    spec, names = crd["spec"], crd["spec"]["names"]
    version = spec["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    api = f"{spec['group']}/{version['name']}"
    lines = [
        _GENERATED,
        "",
        f"# {names['kind']}",
        "",
        schema["description"],
        "",
        f"`apiVersion: {api}`, `kind: {names['kind']}`; for `kubectl`: `{names['plural']}.{spec['group']}`, short"
        f" {_codes(names['shortNames'])}, with others by the category {_codes(names['categories'])}.",
        "",
        "`a[].b` is a member of each item of the list `a`. A field in **bold** must be there when its parent is."
        " `kubectl` refuses fields that don't stand here, and `kubectl explain` has the same texts.",
    ]
    for part, title, head in (("spec", "Spec", _SPEC_HEAD), ("status", "Status", _STATUS_HEAD)):
        lines += ["", f"## {title}", "", schema["properties"][part]["description"], "", *head]
        lines += _rows(schema["properties"][part], "", defaults=part == "spec")
    lines += ["", "## Rules", "", "What the API server refuses, besides values of the wrong type or size:", ""]
    lines += [f"- {message}" for message in dict.fromkeys(_messages(schema))]
    lines += ["", "## Columns of `kubectl get`", "", "| column | what it shows |", "|---|---|"]
    lines += [f"| {column['name']} | {column['description']} |" for column in version["additionalPrinterColumns"]]
    return "\n".join(lines) + "\n"


def _codes(texts: Sequence[str]) -> str:
    return ", ".join(f"`{text}`" for text in texts)


def _rows(schema: dict[str, Any], path: str, *, defaults: bool) -> Iterator[str]:
    required = schema.get("required", ())
    for name, member in schema.get("properties", {}).items():
        field = f"`{path}{name}`"
        default = f"`{_plain(member['default'])}`" if member.get("default") not in (None, {}) else ""
        text = member.get("description", "").replace("|", r"\|")
        shown = f"**{field}**" if name in required else field
        yield f"| {shown} | {_type(member)} |{f' {default} |' if defaults else ''} {text} |"
        inner = member.get("items", member)
        if not _is_reference(inner):
            yield from _rows(inner, f"{path}{name}{'[]' if 'items' in member else ''}.", defaults=defaults)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _is_reference(schema: dict[str, Any]) -> bool:
    """Whether it is `{name: …}` and nothing else, which needs no row of its own."""
    return list(schema.get("properties", {})) == ["name"]


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return _AMOUNTS.get(pattern_of(schema), "quantity")
    kind = schema.get("type", "")
    if kind == "array":
        return f"list of {_item(schema['items'])}{_most(schema, 'maxItems', 'items')}"
    if kind == "object":
        if _is_reference(schema):
            return "`{name}`"
        values = schema.get("additionalProperties")
        return f"map of {_item(values)}{_most(schema, 'maxProperties', 'keys')}" if values else "object"
    if kind == "integer":
        least, most = schema.get("minimum"), schema.get("maximum")
        if most in _LARGEST:
            return "integer" if least in (None, 0) else f"integer, at least {least}"
        return f"integer, {least} to {most}"
    if kind == "string":
        return (
            f"time, {schema['format']}" if "format" in schema else f"string{_most(schema, 'maxLength', 'characters')}"
        )
    return str(kind)


def _item(schema: dict[str, Any]) -> str:
    """The type of an item, in few words."""
    if "enum" in schema:
        return _type(schema)
    return {"string": "strings", "object": "objects"}.get(schema["type"], str(schema["type"]))


def _most(schema: dict[str, Any], name: str, what: str) -> str:
    return f", at most {schema[name]} {what}" if name in schema else ""


def _messages(schema: dict[str, Any]) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield rule["message"]
    for member in schema.get("properties", {}).values():
        yield from _messages(member)
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from _messages(schema[name])


def make_pages() -> dict[str, str]:
    """Name and text of each page."""
    crds = [make_crd(model) for model in KINDS]
    return {f"{crd['spec']['names']['singular']}.md": make_page(crd) for crd in crds}


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes or compares the pages; 1 if they differ."""
    parser = argparse.ArgumentParser(prog="python -m cloudmesh.api.reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the checkout (default: the current folder)")
    options = parser.parse_args(arguments)
    stale = 0
    for name, text in make_pages().items():
        page = options.root / FOLDER / name
        if not options.check:
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(text)
        elif not page.is_file() or page.read_text() != text:
            sys.stderr.write(f"{page} differs from the models: run `python -m cloudmesh.api.reference`\n")
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
