"""Takes secrets out of what others wrote into their errors."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

SHORTEST = 6
PUBLIC = frozenset({"hosts", "ca.crt"})


class Redactor:
    """Knows the secrets of one account.

    Args:
        secrets: Values that must not be told; very short ones are left, since they are part of any text.
    """

    def __init__(self, secrets: Iterable[bytes] = ()) -> None:
        texts = {value.decode("utf-8", "replace").strip() for value in secrets}
        lines = {line.strip() for text in texts for line in text.splitlines()}
        plain = {text for text in texts | lines if len(text) >= SHORTEST}
        self._secrets = sorted({form for text in plain for form in _forms(text)}, key=len, reverse=True)

    def text(self, text: str) -> str:
        """The text without secrets."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, "[redacted]")
        return text

    def clean(self, error: BaseException) -> None:
        """Takes secrets out of an error's arguments, and drops the errors behind it, which may hold them too."""
        if self._secrets:
            error.args = tuple(self.text(item) if isinstance(item, str) else item for item in error.args)
        error.__cause__ = None
        error.__context__ = None


def _forms(text: str) -> Iterable[str]:
    """A secret as libraries write it: plain, in URLs, in basic authentication and user data."""
    yield text
    yield quote(text, safe="")
    yield quote(text)
    yield quote_plus(text)
    data = text.encode()
    # base64 of a longer text that holds it: where it begins there moves its letters, the ends depend on its neighbours
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            whole = encode(b"\0" * shift + data).decode().rstrip("=")
            inner = whole[(0, 2, 3)[shift] : len(whole) - (0 if (shift + len(data)) % 3 == 0 else 1)]
            if len(inner) >= SHORTEST:
                yield inner
