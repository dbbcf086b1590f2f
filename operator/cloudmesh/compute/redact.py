"""Takes secrets out of what others wrote into their errors."""

from __future__ import annotations

from collections.abc import Iterable

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
        self._secrets = sorted((t for t in texts | lines if len(t) >= SHORTEST), key=len, reverse=True)

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
