"""The gateway does what its document says, and nothing that it doesn't: requests made of the document alone."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.data.gateway_scene import PASSWORD, Served

_EXAMPLES = "60" if os.environ.get("CI_FULL") else "2"


def test_schemathesis_finds_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Served(tmp_path) as served, caplog.at_level(logging.ERROR, "cloudmesh"):
        # something is there that can be read, moved and restored
        assert served.ask("PUT", "/v1/files/0", b"content").status == 201
        run = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli"),
                *("--config-file", str(Path(__file__).with_name("schemathesis.toml"))),
                *("run", f"{served.url}/openapi.json", "--auth", f"ada:{PASSWORD}", "--checks", "all", "--mode", "all"),
                *("--generation-deterministic", "--seed", "1", "-n", _EXAMPLES, "--max-failures", "5", "--no-color"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=280,
        )
        paths = served.ask("GET", "/openapi.json").json["paths"]
        alive = served.ask("GET", "/healthz").body
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    operations = sum(len(methods.keys() - {"parameters"}) for at, methods in paths.items() if at != "/v1/rebuild")
    assert f"Tested: {operations}" in run.stdout
    assert alive == b"ok"
    assert not [r for r in caplog.records if r.name.startswith("cloudmesh") and r.levelno >= logging.ERROR]
