"""A Swift that tests start on this machine, over a folder, with Swift's own logins and with Keystone's."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.testbed import artifacts
from tests.testbed.console import TestbedError
from tests.testbed.ports import free_port

LOOPBACK = "127.0.0.1"
USER, KEY = "test:tester", "testing-9f2c"
"""They may do all by Swift's own login, in an account of theirs."""
KEYSTONE_USER, KEYSTONE_PASSWORD, KEYSTONE_PROJECT = "admin", artifacts.KEYSTONE_PASSWORD, "admin"
REGION = "RegionOne"
TOKEN_SECONDS = 3600
START_SECONDS = 90.0
MAX_FILE = 64 << 20
"""Bytes of one object at most: a real one's 5 GiB take long."""
_MEMBERS = ("account", "container", "object", "proxy")
_RUN = "import sys; from swift.{module}.server import main; sys.exit(main())"
_PIPELINE = (
    "catch_errors gatekeeper healthcheck cache listing_formats bulk tempurl ratelimit {auth} copy container-quotas "
    "account-quotas slo dlo versioned_writes symlink proxy-server"
)
_FILTERS = (
    "catch_errors", "gatekeeper", "healthcheck", "listing_formats", "bulk", "tempurl", "ratelimit", "copy", "slo",
    "dlo", "symlink",
)  # fmt: skip


class SwiftServer:
    """Swift's proxy, account, container and object servers and a memcached; use `start` and `stop`.

    Args:
        folder: An empty one, for its files and its logs; its file system must keep extended attributes.
        keystone: Whether Keystone comes with it.
        host: Address of this machine that proxy and Keystone listen on, such as the `host_address` of a cluster, for
            its Pods; the others are on loopback.
    """

    def __init__(self, folder: Path, *, keystone: bool = False, host: str = LOOPBACK) -> None:
        self._folder = folder
        self._keystone = keystone
        self.host = host
        self._hosts = dict.fromkeys(("memcached", *_MEMBERS), LOOPBACK) | {"proxy": host, "keystone": host}
        self._ports = {name: free_port(host) for name, host in self._hosts.items()}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.url = f"http://{host}:{self._ports['proxy']}"
        self.auth_url = f"{self.url}/auth/v1.0"
        """Where `USER` and `KEY` log in."""
        self.keystone_url = f"http://{host}:{self._ports['keystone']}/v3"
        """Where `KEYSTONE_USER` and `KEYSTONE_PASSWORD` log in, for `KEYSTONE_PROJECT`."""
        python = str(artifacts.swift() / "venv/bin/python")
        memcached, self._environment = artifacts.memcached()
        self._commands = {
            name: [python, "-c", _RUN.format(module={"object": "obj"}.get(name, name)), str(folder / f"{name}.conf")]
            for name in _MEMBERS
        }
        user = pwd.getpwuid(os.getuid()).pw_name
        port = str(self._ports["memcached"])
        self._commands["memcached"] = [memcached, "-l", LOOPBACK, "-p", port, "-U", "0", "-m", "64", "-u", user]
        self._commands["keystone"] = [python, str(artifacts.HERE / "swift/keystone_server.py")]
        self._prepare(python, user)

    def start(self) -> None:
        """Starts all; returns when logins are answered and objects are kept."""
        for name in self._commands:
            if name != "keystone" or self._keystone:
                self.begin(name)
        end = time.monotonic() + START_SECONDS
        if self._keystone:
            self._wait(self._keystone_answers, end, "keystone")
            self._fill_catalogue()
        for name in _MEMBERS:
            self.wait_for(name)
        self._wait(lambda: bool(self.login()), end, "proxy")

    def begin(self, name: str) -> None:
        """Starts one member of `account`, `container`, `object`, `proxy`, `memcached`, `keystone`."""
        environment = {
            **self._environment,
            "KEYSTONE_HOST": self.host,
            "KEYSTONE_PORT": str(self._ports["keystone"]),
            "OS_KEYSTONE_CONFIG_DIR": str(self._folder),
        }
        with (self._folder / f"{name}.log").open("ab") as out:
            self._processes[name] = subprocess.Popen(
                self._commands[name], stdout=out, stderr=out, cwd=self._folder, env=environment
            )

    def end(self, name: str) -> None:
        """Ends one member at once."""
        process = self._processes.pop(name)
        process.kill()
        process.wait(30)

    def stop(self) -> None:
        """Ends all at once; what it holds stays."""
        for name in list(self._processes):
            self.end(name)

    def wait_for(self, name: str) -> None:
        """Returns when a member that was begun anew takes connections."""
        self._wait(lambda: _listens(self._hosts[name], self._ports[name]), time.monotonic() + START_SECONDS, name)

    def login(self) -> tuple[str, str]:
        """Storage URL and token of `USER`."""
        headers = {"X-Auth-User": USER, "X-Auth-Key": KEY}
        told, _ = _ask("GET", self.auth_url, headers=headers)
        return told["x-storage-url"], told["x-auth-token"]

    def make_container(self, name: str) -> None:
        """Makes a container of `USER`."""
        storage, token = self.login()
        _ask("PUT", f"{storage}/{name}", headers={"X-Auth-Token": token})

    def read(self, container: str, key: str) -> bytes:
        """The content of an object of `USER`."""
        storage, token = self.login()
        asked = urllib.request.Request(f"{storage}/{container}/{quote(key)}", headers={"X-Auth-Token": token})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            content: bytes = answer.read()
            return content

    def keystone_token(self) -> str:
        """A token of `KEYSTONE_USER` in `KEYSTONE_PROJECT`."""
        domain = {"id": "default"}
        user = {"name": KEYSTONE_USER, "domain": domain, "password": KEYSTONE_PASSWORD}
        asked = {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": KEYSTONE_PROJECT, "domain": domain}},
        }
        told, _ = _ask("POST", f"{self.keystone_url}/auth/tokens", {"auth": asked})
        return told["x-subject-token"]

    def keystone(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Asks Keystone's API as `KEYSTONE_USER`."""
        _, found = _ask(method, self.keystone_url + path, body, {"X-Auth-Token": self.keystone_token()})
        return found

    # -- how it is made

    def _wait(self, ready: Callable[[], bool], end: float, name: str) -> None:
        while True:
            with contextlib.suppress(OSError):
                if ready():
                    return
            ended = [each for each, process in self._processes.items() if process.poll() is not None]
            if ended or time.monotonic() > end:
                self.stop()
                log = (self._folder / f"{(ended or [name])[0]}.log").read_text()[-2000:]
                raise TestbedError(f"Swift: {(ended or [name])[0]} doesn't answer: {log}")
            time.sleep(0.1)

    def _keystone_answers(self) -> bool:
        with urllib.request.urlopen(self.keystone_url, timeout=5) as answer:
            return bool(answer.status == 200)

    def _prepare(self, python: str, user: str) -> None:
        folder, ports = self._folder, self._ports
        (folder / "srv/d1").mkdir(parents=True)
        rings = [str(ports[name]) for name in ("account", "container", "object")]
        artifacts.run([python, str(artifacts.HERE / "swift/prepare.py"), str(folder), *rings], cwd=folder, timeout=120)
        (folder / "swift.conf").write_text(
            "[swift-hash]\nswift_hash_path_suffix = bed\nswift_hash_path_prefix = bed\n"
            f"[swift-constraints]\nmax_file_size = {MAX_FILE}\n"
            "[storage-policy:0]\nname = Policy-0\ndefault = yes\n"
        )
        for name in _MEMBERS[:3]:
            (folder / f"{name}.conf").write_text(
                f"[DEFAULT]\n{self._common(name, user)}devices = {folder}/srv\nmount_check = false\n"
                f"disable_fallocate = true\n[pipeline:main]\npipeline = healthcheck {name}-server\n"
                f"[app:{name}-server]\nuse = egg:swift#{name}\n[filter:healthcheck]\nuse = egg:swift#healthcheck\n"
            )
        auth = "authtoken keystoneauth tempauth" if self._keystone else "tempauth"
        filters = "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in _FILTERS)
        own = USER.replace(":", "_")
        (folder / "proxy.conf").write_text(
            f"[DEFAULT]\n{self._common('proxy', user)}[pipeline:main]\npipeline = {_PIPELINE.format(auth=auth)}\n"
            "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
            # a server that was away, or slow on a busy machine, is asked again at once
            "error_suppression_limit = 1000000\nerror_suppression_interval = 1\nnode_timeout = 30\n"
            f"{filters}"
            f"[filter:cache]\nuse = egg:swift#memcache\nmemcache_servers = {LOOPBACK}:{ports['memcached']}\n"
            "[filter:container-quotas]\nuse = egg:swift#container_quotas\n"
            "[filter:account-quotas]\nuse = egg:swift#account_quotas\n"
            "[filter:versioned_writes]\nuse = egg:swift#versioned_writes\nallow_object_versioning = true\n"
            "[filter:tempauth]\nuse = egg:swift#tempauth\nreseller_prefix = TEMP\n"
            f"user_{own} = {KEY} .admin {self.url}/v1/TEMP_test\n"
            f"user_test_reader = {KEY} {self.url}/v1/TEMP_test\n"
            "[filter:keystoneauth]\nuse = egg:swift#keystoneauth\nreseller_prefix = AUTH\noperator_roles = admin\n"
            "[filter:authtoken]\npaste.filter_factory = keystonemiddleware.auth_token:filter_factory\n"
            f"auth_url = {self.keystone_url}\nwww_authenticate_uri = {self.keystone_url}\nauth_type = password\n"
            f"username = {KEYSTONE_USER}\npassword = {KEYSTONE_PASSWORD}\nproject_name = {KEYSTONE_PROJECT}\n"
            "user_domain_id = default\nproject_domain_id = default\ndelay_auth_decision = true\ninterface = public\n"
            "service_token_roles_required = true\ncache = swift.cache\n"
        )
        if self._keystone:
            seed = artifacts.swift() / "keystone"
            shutil.copytree(seed / "fernet", folder / "fernet")
            shutil.copy(seed / "keystone.db", folder / "keystone.db")
            (folder / "keystone.conf").write_text(artifacts.keystone_settings(folder, TOKEN_SECONDS))
            with contextlib.closing(sqlite3.connect(folder / "keystone.db")) as database, database:
                database.execute("UPDATE endpoint SET url = ?", (self.keystone_url,))

    def _common(self, name: str, user: str) -> str:
        return (
            f"bind_ip = {self._hosts[name]}\nbind_port = {self._ports[name]}\nworkers = 0\nuser = {user}\n"
            f"swift_dir = {self._folder}\nlog_level = WARNING\nlog_address = {self._folder}/no-such-log\n"
        )

    def _fill_catalogue(self) -> None:
        """Tells Keystone where Swift is; and a second region and interface, which nobody should take."""
        if self.keystone("GET", "/services?type=object-store")["services"]:
            return
        told = {"service": {"type": "object-store", "name": "swift"}}
        service = self.keystone("POST", "/services", told)["service"]["id"]
        self.keystone("POST", "/regions", {"region": {"id": "elsewhere"}})
        here, nowhere = f"{self.url}/v1/AUTH_$(tenant_id)s", "http://127.0.0.1:9/v1/AUTH_$(tenant_id)s"
        for region, interface, url in (
            ("elsewhere", "public", nowhere), (REGION, "internal", nowhere), (REGION, "public", here),
        ):  # fmt: skip
            asked = {"service_id": service, "region_id": region, "interface": interface, "url": url}
            self.keystone("POST", "/endpoints", {"endpoint": asked})


@contextlib.contextmanager
def swift(*, keystone: bool = False, host: str = LOOPBACK) -> Iterator[SwiftServer]:
    """A server that runs, over a temporary folder: in memory if that keeps extended attributes, as it syncs often."""
    memory = "/dev/shm"
    place = memory if os.access(memory, os.W_OK) and _keeps_attributes(memory) else None
    with tempfile.TemporaryDirectory(prefix="cloudmesh-swift-", dir=place) as folder:
        server = SwiftServer(Path(folder), keystone=keystone, host=host)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _keeps_attributes(folder: str) -> bool:
    with tempfile.NamedTemporaryFile(dir=folder) as trial:
        try:
            os.setxattr(trial.name, "user.cloudmesh.trial", b"x" * 4096)
        except OSError:
            return False
        return True


def _listens(host: str, port: int) -> bool:
    with socket.create_connection((host, port), timeout=5):
        return True


def _ask(
    method: str, url: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None
) -> tuple[dict[str, str], dict[str, Any]]:
    """Headers, in small letters, and the JSON of an answer."""
    data = None if body is None else json.dumps(body).encode()
    asked = {"Content-Type": "application/json", **(headers or {})}
    with urllib.request.urlopen(urllib.request.Request(url, data, asked, method=method), timeout=30) as answer:
        text = answer.read()
        told = {name.lower(): value for name, value in answer.headers.items()}
        return told, json.loads(text) if text and told.get("content-type", "").startswith("application/json") else {}
