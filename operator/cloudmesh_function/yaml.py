"""JSON values as block YAML; small, since a function's image has no YAML library."""

from __future__ import annotations

import json
import re
from typing import Any, Final

_PLAIN: Final = re.compile(r"^[A-Za-z/_$][A-Za-z0-9/_$.-]*$")
_WORDS: Final = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n", "~"})


def dump(value: Any) -> str:
    """The value as YAML text that any YAML 1.1 or 1.2 reader turns into the same value."""
    if isinstance(value, (dict, list)) and value:
        return "\n".join(_block(value, 0)) + "\n"
    return _scalar(value) + "\n"


def _block(value: Any, depth: int) -> list[str]:
    pad = "  " * depth
    lines: list[str] = []
    if isinstance(value, dict):
        for key, item in value.items():
            head = f"{pad}{_scalar(str(key))}:"
            if isinstance(item, (dict, list)) and item:
                lines.append(head)
                lines += _block(item, depth + 1)
            else:
                lines.append(f"{head} {_scalar(item)}")
        return lines
    for item in value:
        if isinstance(item, (dict, list)) and item:
            inner = _block(item, depth + 1)
            lines.append(f"{pad}- {inner[0].lstrip(' ')}")
            lines += inner[1:]
        else:
            lines.append(f"{pad}- {_scalar(item)}")
    return lines


def _scalar(value: Any) -> str:
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, list):
        return "[]"
    if isinstance(value, str):
        if _PLAIN.match(value) and value.lower() not in _WORDS:
            return value
        return _quoted(value)
    if isinstance(value, float):
        text = json.dumps(value)
        # YAML 1.1 takes an exponent only behind a point and with a sign
        mantissa, mark, exponent = text.partition("e")
        if not mark:
            return text
        return (
            f"{mantissa if '.' in mantissa else mantissa + '.0'}e{exponent if exponent[0] in '+-' else '+' + exponent}"
        )
    return json.dumps(value)


def _quoted(text: str) -> str:
    # JSON's escapes are YAML's, but for characters beyond the first plane and those YAML doesn't print
    def escape(found: re.Match[str]) -> str:
        code = ord(found[0])
        return f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}"

    return re.sub(
        r"[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]|[\U00010000-\U0010ffff]",
        escape,
        json.dumps(text, ensure_ascii=False),
    )
