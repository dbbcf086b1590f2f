"""The OpenAPI 3.1 document of the gateway's REST."""

from __future__ import annotations

from typing import Any

_PART = "[^/\\u0000]+"
_PATH_TEXT = {"type": "string", "minLength": 1, "maxLength": 4096, "pattern": f"^/?{_PART}(/{_PART})*/?$"}
_PATH = {
    "name": "path", "in": "path", "required": True, "schema": _PATH_TEXT,
    "description": "Path of the file or directory, without a slash at its beginning; slashes may stand as they are. In"
    " UTF-8 it has 4096 bytes at most and each part 1024; no part is `.` or `..`, and `.cloudmesh` isn't the first.",
}  # fmt: skip
_DAY = "((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31|02-29)"
_CLOCK = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,6})?"
_WHEN = {
    "type": "string",
    "pattern": f"^(0|[1-9][0-9]{{0,16}}|(197[1-9]|19[89][0-9]|2[0-9]{{3}})-{_DAY}T{_CLOCK}(Z|[+-](0[0-9]|1[0-4]):00))$",
}
_KEY = "[A-Za-z0-9][-A-Za-z0-9_./]{0,62}"
_PAIR = f"{_KEY}=([-A-Za-z0-9_.~]|%[2-6][0-9A-F]|%7[0-9A-E]|%C3%[AB][0-9A-F]){{0,256}}"
_PAIRS = {"type": "string", "pattern": f"^({_PAIR}(&{_PAIR}){{0,31}})?$"}
_ID = {"type": "string", "pattern": "^[0-9a-f]{16}$"}
_BELOW = {"type": "string", "maxLength": 4096, "pattern": f"^(/?{_PART}(/{_PART})*/?)?$"}
_AFTER = {
    "name": "after", "in": "query", "schema": {"type": "string"},
    "description": "What the page before gave as `after`.",
}  # fmt: skip
_LIMIT = {
    "name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 1000},
    "description": "Entries of a page.",
}  # fmt: skip
_RECURSIVE = {
    "name": "recursive", "in": "query", "schema": {"type": "string", "enum": ["true", "false"], "default": "false"},
    "description": "All below the directory too.",
}  # fmt: skip
_IF_MATCH = {
    "name": "If-Match", "in": "header", "schema": {"type": "string"},
    "description": "Entity tag that the file must have; `*` for any file that is there.",
}  # fmt: skip
_IF_NONE_MATCH = {
    "name": "If-None-Match", "in": "header", "schema": {"type": "string"},
    "description": "Entity tags that the file must not have; `*`: there must be none.",
}  # fmt: skip
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_TIME = {"type": "string", "format": "date-time"}
_SIZE = {"type": "integer", "minimum": 0}
_TEXT = {"type": "string"}


_VERSION = {"type": "integer", "minimum": 1, "maximum": (1 << 63) - 1}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


def _list_of(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


_MONEY = _object(["amount", "currency"], amount=_TEXT, currency=_TEXT)

SCHEMAS: dict[str, Any] = {
    "Entry": _object(
        ["path", "name", "kind", "id", "modified"],
        path=_TEXT, name=_TEXT, kind={"enum": ["File", "Directory"]}, id=_TEXT, modified=_TIME, size=_SIZE,
        version={"type": "integer", "minimum": 1}, etag=_TEXT, sha256=_TEXT, contentType=_TEXT,
        tags={"type": "object", "additionalProperties": _TEXT}, deleted=_TIME, replaced=_TIME,
        link=_object(["store", "key"], store=_TEXT, key=_TEXT, error=_TEXT),
    ),
    "Link": _object(
        ["store", "key"], store={"type": "string", "minLength": 1},
        key={"type": "string", "minLength": 1, "maxLength": 4096},
    ),
    "Version": {"type": "object", "required": ["version"], "properties": {"version": _VERSION}},
    "Versions": _object(["path", "current", "versions"], path=_TEXT, current=_ref("Entry"),
        versions=_list_of(_ref("Entry"))),
    "Entries": _object(["entries"], entries=_list_of(_ref("Entry")), after=_TEXT, truncated={"type": "boolean"}),
    "Tags": {
        "type": "object", "maxProperties": 32, "propertyNames": {"pattern": f"^{_KEY}$"},
        "additionalProperties": {"type": "string", "maxLength": 256, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"},
    },
    "FromTo": _object(["from", "to"], **{"from": _PATH_TEXT, "to": _PATH_TEXT, "overwrite": {"type": "boolean"}}),
    "Restore": _object(["id"], id=_ID, to=_PATH_TEXT),
    "Where": _object(
        ["path", "copies"],
        path=_TEXT,
        copies=_list_of(
            _object(
                ["store", "key", "state", "up", "size"],
                store=_TEXT, key=_TEXT, state=_TEXT, up={"type": "boolean"}, size=_SIZE, verified=_TIME, error=_TEXT,
                monthly=_MONEY,
            )
        ),
    ),
    "Why": _object(
        ["path", "rule", "stores"],
        path=_TEXT,
        rule=_object(["name", "copies", "minCopies"], name=_TEXT, copies=_SIZE, minCopies=_SIZE),
        stores=_list_of(
            _object(
                ["store", "chosen", "why"],
                store=_TEXT, chosen={"type": "boolean"}, why=_TEXT, score={"type": "integer"},
                monthly=_MONEY,
            )
        ),
    ),
    "Rules": _object(
        ["path", "rules"],
        path=_TEXT,
        rules=_list_of(
            _object(
                ["name", "copies", "minCopies", "current", "possible"],
                name=_TEXT, copies=_SIZE, minCopies=_SIZE, current={"type": "boolean"}, possible={"type": "boolean"},
                stores=_list_of(_TEXT), to=_TEXT, tags={"type": "object", "additionalProperties": _TEXT},
                monthly=_MONEY,
            )
        ),
    ),
    "Usage": _object(
        ["files", "directories", "bytes", "pending", "stores"],
        files=_SIZE, directories=_SIZE, bytes=_SIZE, pending=_SIZE,
        stores=_list_of(
            _object(
                ["name", "state", "files", "bytes"],
                name=_TEXT, state=_TEXT, files=_SIZE, bytes=_SIZE, message=_TEXT,
            )
        ),
    ),
    "Cost": _object(
        ["currency", "confidence", "stores"],
        currency=_TEXT, confidence={"enum": ["declared", "static", "unknown"]}, monthly=_TEXT, egress=_TEXT,
        limit=_TEXT,
        stores=_list_of(
            _object(
                ["store", "files", "bytes", "egressBytes"],
                store=_TEXT, files=_SIZE, bytes=_SIZE, monthly=_TEXT, egressBytes=_SIZE, egress=_TEXT,
                price={"type": "object", "additionalProperties": _TEXT},
            )
        ),
    ),
    "Plan": {
        "type": "object", "required": ["rules", "stores"], "additionalProperties": False,
        "properties": {
            "rules": {"type": "array", "minItems": 1, "maxItems": 32, "items": {"type": "object"}},
            "stores": {"type": "array", "maxItems": 32, "items": _TEXT},
        },
    },
    "Quote": _object(
        ["files", "copies", "bytes", "size", "removed", "currency"],
        files=_SIZE, copies=_SIZE, bytes=_SIZE, size=_TEXT, removed=_SIZE, currency=_TEXT, requests=_TEXT,
        egress=_TEXT, monthlyBefore=_TEXT, monthlyAfter=_TEXT, unpriced=_list_of(_TEXT), unseen=_list_of(_TEXT),
        durationSeconds=_SIZE,
    ),
    "Nothing": {"type": "object"},
    "Snapshot": _object(["record", "at"], record=_SIZE, at=_TIME),
    "Rebuild": _object(["directory"], directory=_TEXT),
    "Rebuilding": _object(["directory", "state"], directory=_TEXT, state={"enum": ["Rebuilding"]}),
    "Store": _object(["store"], store=_TEXT),
    "Believed": _object(["store", "seen"], store=_TEXT, seen=_TEXT),
    "Problem": _object(
        ["type", "title", "status", "reason", "detail"],
        type=_TEXT, title=_TEXT, status={"type": "integer"}, reason=_TEXT, detail=_TEXT,
    ),
}  # fmt: skip


def _json(schema: str, description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ref(schema)}}}


def _body(schema: str) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": _ref(schema)}}}


def _operation(
    name: str, summary: str, answers: dict[str, Any], *parameters: dict[str, Any], body: dict[str, Any] | None = None
) -> dict[str, Any]:
    told: dict[str, Any] = {"operationId": name, "summary": summary, "responses": dict(answers)}
    problem = {"content": {"application/problem+json": {"schema": _ref("Problem")}}}
    told["responses"]["default"] = {"description": "It can't be done; `detail` says why."} | problem
    if parameters:
        told["parameters"] = list(parameters)
    if body is not None:
        told["requestBody"] = body
    return told


def document(name: str) -> dict[str, Any]:
    """The document.

    Args:
        name: Name of the directory.
    """
    entry, entries = _json("Entry", "The entry."), _json("Entries", "A page of entries.")
    empty = {"description": "Done."}
    content = {"description": "The content.", "content": _BYTES}
    older = {"name": "version", "in": "query", "schema": _VERSION, "description": "An older version that is kept."}
    redirect = {
        "name": "redirect", "in": "query", "schema": {"type": "string", "enum": ["allow"]},
        "description": "The answer may be 307 to a link of the store itself, so that no byte passes here.",
    }  # fmt: skip
    writes = [
        {"in": "header", "name": n, "schema": s, "description": d}
        for n, s, d in (
            ("Cloudmesh-Modified", _WHEN, "When the content was changed: RFC 3339, or microseconds since 1970."),
            ("Cloudmesh-Tags", _PAIRS, "Tags of a new file, as `a=1&b=2`."),
            (
                "Content-Digest",
                _TEXT | {"pattern": "^(sha-256=:[A-Za-z0-9+/]{43}=:)?$"},
                "Digest that the content must have: `sha-256=:BASE64:`.",
            ),
        )
    ]
    size = _SIZE | {"maximum": (1 << 63) - 1}
    query = [
        {"name": n, "in": "query", "schema": s, "description": d}
        for n, s, d in (
            ("name", _TEXT | {"maxLength": 255}, "Pattern of the name, with `*` and `?`."),
            ("under", _BELOW, "Directory to search in."),
            ("tags", _PAIRS, "Tags that it must have, as `a=1&b=`; an empty value fits any."),
            ("minSize", size, "Bytes at least."),
            ("maxSize", size, "Bytes at most."),
            ("newer", _WHEN, "Changed after this time."),
            ("older", _WHEN, "Changed before this time."),
        )
    ]
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Directory {name}", "version": "1", "description": "One directory over many stores."},
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"password": []}],
        "paths": {
            "/v1/files/{path}": {
                "parameters": [_PATH],
                "get": _operation(
                    "getFile", "Content of a file",
                    {"200": content, "206": content, "304": empty, "307": empty}, redirect, older, _IF_MATCH,
                    _IF_NONE_MATCH,
                    {"name": "Range", "in": "header", "schema": _TEXT, "description": "A part, as `bytes=0-99`."},
                ),
                "head": _operation(
                    "headFile", "What the content would be", {"200": empty, "304": empty}, older, _IF_MATCH,
                    _IF_NONE_MATCH,
                ),
                "put": _operation(
                    "putFile", "Writes a file; it is there when the answer is",
                    {"200": entry, "201": entry}, _IF_MATCH, _IF_NONE_MATCH, *writes,
                    body={"content": _BYTES},
                ),
                "delete": _operation(
                    "deleteFile", "Moves a file or directory to the trash", {"204": empty}, _RECURSIVE, _IF_MATCH
                ),
            },
            "/v1/stat/{path}": {"parameters": [_PATH], "get": _operation("stat", "What is at a path", {"200": entry})},
            "/v1/list/{path}": {
                "parameters": [_PATH],
                "get": _operation("list", "What is in a directory", {"200": entries}, _AFTER, _LIMIT, _RECURSIVE),
            },
            "/v1/directories/{path}": {
                "parameters": [_PATH],
                "put": _operation(
                    "makeDirectory", "Makes a directory", {"200": entry, "201": entry},
                    _RECURSIVE | {"name": "parents", "description": "Those above it too; one that is there is fine."},
                ),
            },
            "/v1/tags/{path}": {
                "parameters": [_PATH],
                "put": _operation("setTags", "Replaces the tags", {"200": entry}, body=_body("Tags")),
            },
            "/v1/where/{path}": {
                "parameters": [_PATH],
                "get": _operation("where", "Where the copies lie", {"200": _json("Where", "Its copies.")}),
            },
            "/v1/why/{path}": {
                "parameters": [_PATH],
                "get": _operation("why", "Why they lie there", {"200": _json("Why", "Rule and stores.")}),
            },
            "/v1/rules/{path}": {
                "parameters": [_PATH],
                "get": _operation(
                    "rules", "The rules of the directory, and which tags or path bring a file to each",
                    {"200": _json("Rules", "In order.")},
                ),
            },
            "/v1/versions/{path}": {
                "parameters": [_PATH],
                "get": _operation(
                    "versions", "Older contents of a file that are kept, the newest first",
                    {"200": _json("Versions", "The file, and its older versions.")},
                ),
                "post": _operation(
                    "restoreVersion", "Makes an older content the file's own again, as a new version", {"200": entry},
                    _IF_MATCH, body=_body("Version"),
                ),
                "delete": _operation(
                    "deleteVersion", "Gives an older content up", {"204": empty}, older | {"required": True}
                ),
            },
            "/v1/links/{path}": {
                "parameters": [_PATH],
                "put": _operation(
                    "link", "Makes a link to an object of a store, which is read where it lies", {"201": entry},
                    body=_body("Link"),
                ),
                "post": _operation(
                    "adopt", "Makes a link an ordinary file: its content is copied to where the rules place it",
                    {"200": entry}, body=_body("Nothing"),
                ),
            },
            "/v1/move": {"post": _operation("move", "Renames", {"200": entry}, body=_body("FromTo"))},
            "/v1/copy": {"post": _operation("copy", "Copies a file", {"201": entry}, body=_body("FromTo"))},
            "/v1/trash": {"get": _operation("trash", "What was deleted", {"200": entries}, _AFTER, _LIMIT)},
            "/v1/restore": {
                "post": _operation("restore", "Brings something back", {"200": entry}, body=_body("Restore"))
            },
            "/v1/search": {"get": _operation("search", "Finds files", {"200": entries}, *query, _AFTER, _LIMIT)},
            "/v1/usage": {
                "get": _operation("usage", "Sums, and the state of the stores", {"200": _json("Usage", "Sums.")})
            },
            "/v1/snapshot": {
                "post": _operation(
                    "snapshot", "Writes the catalogue into two stores, where there are two",
                    {"200": _json("Snapshot", "What it holds.")}, body=_body("Nothing"),
                )
            },
            "/v1/rebuild": {
                "post": _operation(
                    "rebuild", "Throws the catalogue away and makes it anew of what the stores hold",
                    {"202": _json("Rebuilding", "It has begun; until it is done, the answer to all else is 503.")},
                    body=_body("Rebuild"),
                )
            },
            "/v1/believe": {
                "post": _operation(
                    "believe", "Believes a store's listing that lacks over a fifth of what is on record",
                    {"202": _json("Store", "It will be looked at.")}, body=_body("Believed"),
                )
            },
            "/v1/cost": {"get": _operation("cost", "What all of it costs", {"200": _json("Cost", "By store.")})},
            "/v1/quote": {
                "get": _operation(
                    "quote", "What the change takes that waits for approval", {"200": _json("Quote", "Its figures.")}
                )
            },
            "/v1/plan": {
                "post": _operation(
                    "plan", "What other rules and stores would take", {"200": _json("Quote", "Its figures.")},
                    body=_body("Plan"),
                )
            },
        },
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "A token of Kubernetes."},
                "password": {"type": "http", "scheme": "basic"},
            },
        },
    }  # fmt: skip
