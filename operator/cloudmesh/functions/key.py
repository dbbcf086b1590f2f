"""The build key: one hash over everything that an image depends on. Pure; operator and builder both call it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

_FORMAT = "1"
"""Changes when the same input would give another image."""


def build_key(
    *,
    source: str,
    module: str,
    name: str,
    base_path: str,
    expose: Mapping[str, Any],
    lock: str,
    python: str,
    platforms: Sequence[str],
    base: str,
    runtime: str,
) -> str:
    """Name the image that these inputs make.

    Args:
        source: text of the module.
        module: its name.
        name: the service's name, which stands in its document.
        base_path: where the operations are served.
        expose: what is served, as in the resource.
        lock: text of the lock, empty without requirements.
        python: version of Python, `3.11`.
        platforms: platforms such as `linux/amd64`, in any order.
        base: digest of the base image.
        runtime: digest of the runtime.

    Returns:
        32 hexadecimal digits.
    """
    inputs = {
        "format": _FORMAT,
        "source": source,
        "module": module,
        "name": name,
        "basePath": base_path,
        "expose": expose,
        "lock": lock,
        "python": python,
        "platforms": sorted(platforms),
        "base": base,
        "runtime": runtime,
    }
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
