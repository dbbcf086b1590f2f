"""The scan of the logs, which runs when all end-to-end tests have, finds what it is for."""

from __future__ import annotations

import base64
import json

import pytest
from tests.e2e.leaks import find, needles

TOKEN = "a-token-of-the-builder"
MUNGE = bytes(range(128, 256))
LINE = "b3BlbnNzaC1rZXktdjEAAAAABG5v"
PRIVATE = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{LINE}\nbmUAAAAEbm9uZQ==\n-----END OPENSSH PRIVATE KEY-----\n"
DATA = {
    key: base64.b64encode(value).decode()
    for key, value in {
        "token": TOKEN.encode(),
        "munge.key": MUNGE,
        "id_ed25519": PRIVATE.encode(),
        "id_ed25519.pub": b"ssh-ed25519 AAAA",
    }.items()
}
SECRET = {"metadata": {"namespace": "ns", "name": "it"}, "type": "Opaque", "data": DATA}


@pytest.mark.parametrize(
    "line",
    [
        f"refused: {TOKEN}!",
        f"put {MUNGE!r}"[:200],
        json.dumps({"message": f"put {MUNGE!r}"}),
        f"put {MUNGE.hex()}",
        f"key {LINE}",
        json.dumps(SECRET),
        json.dumps({"id_ed25519": PRIVATE}),
        "Authorization: Bearer abc",
        "sent eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOlsiaHR0cHM6",
    ],
)
def test_a_secret_in_a_log_is_found_and_not_repeated(line: str) -> None:
    told = find(f"all is well\n{line}\n", needles(SECRET))
    assert told
    assert TOKEN not in told[0]


def test_what_is_public_may_be_logged() -> None:
    assert find(f"ssh-ed25519 AAAA {DATA['id_ed25519.pub']} authorization failed", needles(SECRET)) == []
