"""The page to try a function in a browser: Swagger UI out of its wheel, without anything from another host."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; font-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE: Final = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Try it</title>
<link rel="icon" type="image/png" href="ui/favicon-32x32.png">
<link rel="stylesheet" href="ui/swagger-ui.css">
</head>
<body>
<div id="ui"></div>
<script src="ui/swagger-ui-bundle.js"></script>
<script src="ui/start.js"></script>
</body>
</html>
"""
START: Final = b"""SwaggerUIBundle({
  url: new URL("openapi.json", window.location.href).href,
  dom_id: "#ui",
  validatorUrl: null,
  deepLinking: true,
  tryItOutEnabled: true,
  displayOperationId: true,
});
"""
_ASSETS: Final = {
    "swagger-ui.css": b"text/css; charset=utf-8",
    "swagger-ui-bundle.js": b"text/javascript; charset=utf-8",
    "favicon-32x32.png": b"image/png",
}


def asset(name: str) -> tuple[bytes, bytes] | None:
    """A file of the page as (media type, content); None for an unknown name."""
    if name == "start.js":
        return b"text/javascript; charset=utf-8", START
    kind = _ASSETS.get(name)
    folder = _folder() if kind else None
    if kind is None or folder is None:
        return None
    try:
        return kind, (folder / name).read_bytes()
    except OSError:
        return None


def _folder() -> Path | None:
    # the package itself isn't imported: it would want Jinja2
    spec = importlib.util.find_spec("swagger_ui_bundle")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for folder in sorted(Path(place).glob("vendor/swagger-ui-*"), reverse=True):
            return folder
    return None
