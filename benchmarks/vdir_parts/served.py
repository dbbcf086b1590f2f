"""A directory's gateway over real stores, in a process of its own that may be killed and started again."""

from __future__ import annotations

import base64
import http.client
import importlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import bcrypt
import urllib3
from tests.testbed import sftpserver, swiftserver
from tests.testbed.ports import free_port
from tests.testbed.s3server import ACCESS_KEY, SECRET_KEY

from cloudmesh.data import config as configs
from cloudmesh.data.client import Vdir
from cloudmesh.data.config import AuthConfig, DirectoryConfig, PlacementRule, StoreConfig
from cloudmesh.data.stores.ports import Store
from cloudmesh.data.stores.registry import StoreContext, maker

USER, PASSWORD, OPERATOR, BUCKET, PREFIX = "bench", "bench", "bench-operator", "lab", "lab/"
START_SECONDS = 300.0
"""Where others load the machine, a process that is begun takes minutes."""
END_SECONDS = 60.0
GATEWAY = "cloudmesh.data.gateway"
ENVIRONMENT = {"CLOUDMESH_LOG_LEVEL": "WARNING"}
ROOT = Path(__file__).parents[2]


def _secret(**values: str) -> dict[str, str]:
    return {name.replace("__", "-"): base64.b64encode(value.encode()).decode() for name, value in values.items()}


def of_s3(name: str, url: str) -> StoreConfig:
    """A bucket on one of our S3 servers, or on a proxy in front of it."""
    settings = {"endpoint": url, "bucket": BUCKET, "region": "us-east-1"}
    keys = _secret(aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY)
    return StoreConfig(name, "s3", settings, keys, prefix=PREFIX)


def of_folder(name: str, folder: Path) -> StoreConfig:
    """A folder of this machine, as a volume."""
    return StoreConfig(name, "local", prefix=PREFIX, mount=str(folder))


def of_sftp(name: str, server: sftpserver.SftpServer) -> StoreConfig:
    """A folder on our SFTP server."""
    settings = {
        "host": server.host, "port": server.port, "user": sftpserver.USER, "hostKey": server.host_key,
        "path": server.path,
    }  # fmt: skip
    return StoreConfig(name, "sftp", settings, _secret(ssh__privatekey=server.client_key), prefix=PREFIX)


def of_swift(name: str, url: str) -> StoreConfig:
    """A container on our Swift, or on a proxy in front of it."""
    settings = {"authUrl": f"{url}/auth/v1.0", "container": BUCKET}
    keys = {"username": swiftserver.USER, "password": swiftserver.KEY}
    return StoreConfig(name, "swift", settings, _secret(**keys), prefix=PREFIX)


def opened(config: StoreConfig) -> Store:
    """A store, in this process."""
    keys = {name: base64.b64decode(value) for name, value in config.credentials.items()}
    return maker(config.kind)(StoreContext(config.name, config.settings, keys, mount=config.mount, allow_private=True))


class _Cold:
    """A gateway's process as the operator begins it."""

    def __init__(self, arguments: tuple[str, ...], log: Path) -> None:
        command = [sys.executable, "-m", GATEWAY, *arguments]
        with log.open("ab") as out:
            self._process = subprocess.Popen(command, cwd=ROOT, env=os.environ | ENVIRONMENT, stdout=out, stderr=out)
        self.terminate, self.kill = self._process.terminate, self._process.kill

    def ended(self) -> bool:
        return self._process.poll() is not None

    def wait(self) -> None:
        self._process.wait(END_SECONDS)


class _Warm:
    """A gateway's process that is forked from one that has its modules, and nothing else."""

    def __init__(self, arguments: tuple[str, ...], log: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([f"{GATEWAY}.__main__", __name__])
        self._process = context.Process(target=_serve, args=(arguments, str(log)), daemon=True)
        self._process.start()
        self.terminate, self.kill = self._process.terminate, self._process.kill

    def ended(self) -> bool:
        return self._process.exitcode is not None

    def wait(self) -> None:
        self._process.join(END_SECONDS)
        if not self.ended():
            raise RuntimeError("the gateway doesn't end")


def _serve(arguments: tuple[str, ...], log: str) -> None:
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ |= ENVIRONMENT
    sys.argv = [GATEWAY, *arguments]
    sys.exit(importlib.import_module(f"{GATEWAY}.__main__").main())


class _Hasty(Vdir):
    def __init__(self, name: str, **more: Any) -> None:
        super().__init__(name, **more)
        retries = self._pool.connection_pool_kw["retries"].new(respect_retry_after_header=False)
        self._pool = urllib3.PoolManager(**self._pool.connection_pool_kw | {"retries": retries})


class Served:
    """One gateway; use with `with`, which starts it.

    Args:
        folder: An empty one, for its configuration, its catalogue and its log.
        stores: In their order.
        rule: Places all files.
        warm: Whether its process is forked from one that has its modules, which is begun often.
        more: Members of the configuration.
    """

    def __init__(
        self, folder: Path, stores: tuple[StoreConfig, ...], rule: PlacementRule, *, warm: bool = False, **more: Any
    ) -> None:
        self._file, self.catalog, self._log = folder / "config.json", folder / "catalog", folder / "log"
        auth = AuthConfig(kubernetes=False, basic={USER: bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()})
        self.config = DirectoryConfig(
            "bench", "lab", "u", "i", stores, (rule,), auth=auth, operator_token=OPERATOR, allow_private=True, **more
        )
        self._file.write_bytes(configs.dump(self.config))
        self._port = free_port("127.0.0.1")
        self.url = f"http://127.0.0.1:{self._port}"
        self.headers = {"Authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
        self._process: _Cold | _Warm | None = None
        self._begin = _Warm if warm else _Cold

    def __enter__(self) -> Served:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts it, and returns when it serves."""
        arguments = (
            "--config", str(self._file), "--folder", str(self.catalog), "--host", "127.0.0.1", "--port",
            str(self._port),
        )  # fmt: skip
        self._process = self._begin(arguments, self._log)
        end = time.monotonic() + START_SECONDS
        while not self._serves():
            if self._process.ended() or time.monotonic() > end:
                raise RuntimeError(f"the gateway doesn't answer: {self.log()[-2000:]}")
            time.sleep(0.02)

    def _serves(self) -> bool:
        try:
            return not self.summary()["error"]
        except (OSError, http.client.HTTPException, RuntimeError):
            return False

    def stop(self) -> None:
        """Ends it in good order."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def kill(self) -> None:
        """Ends it as a machine ends that loses its power."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def log(self) -> str:
        """What it said."""
        return self._log.read_text(errors="replace")

    def vdir(self, *, hasty: bool = False) -> Vdir:
        """A client; a hasty one doesn't come back after the seconds that it is told, but says so at once."""
        return (_Hasty if hasty else Vdir)("lab", url=self.url, user=USER, password=PASSWORD)

    def summary(self) -> dict[str, Any]:
        """What the operator sees.

        Raises:
            RuntimeError: It can't say.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request("GET", "/internal/summary", headers={"Authorization": f"Bearer {OPERATOR}"})
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"no summary: {answer.status} {body[:500]!r}")
        # what has its default is left out
        return {"error": "", "files": 0, "pending": 0, "waking": False, "stores": []} | dict(json.loads(body))
