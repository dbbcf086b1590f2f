"""Secrets are taken out of what others wrote, in each form that libraries give them."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterator
from urllib.parse import quote_plus

import pytest

from cloudmesh.compute.redact import Redactor
from cloudmesh.engine.logs import set_up

SECRET = "wJalr/XUtnFEMI+K7MDENG="


@pytest.mark.parametrize("before", ["", "a", "ab", "user:"])
@pytest.mark.parametrize("after", ["", "!", "!!", " and more"])
def test_encoded_secrets_are_seen_in_longer_texts(before: str, after: str) -> None:
    redactor = Redactor([SECRET.encode()])
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(f"{before}{SECRET}{after}".encode()).decode()
        assert "[redacted]" in redactor.text(f"header {text} end"), text
    assert redactor.text(f"q={quote_plus(SECRET)}&x") == "q=[redacted]&x"
    assert redactor.text(f"{before}{SECRET}{after}") == f"{before}[redacted]{after}"


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("name", ["botocore.auth", "botocore.endpoint", "urllib3.connectionpool", "asyncssh", "boto3"])
def test_libraries_that_tell_secrets_are_quiet_at_debug(name: str) -> None:
    stream = io.StringIO()
    set_up("DEBUG", stream)
    logging.getLogger(name).debug("X-Amz-Security-Token: %s", SECRET)
    logging.getLogger(name).info("command %s", SECRET)
    assert SECRET not in stream.getvalue()
    logging.getLogger("cloudmesh.compute").debug("ours")
    assert "ours" in stream.getvalue()
