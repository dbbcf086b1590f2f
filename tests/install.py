"""Puts Cloudmesh onto the cluster that is up: images, the host's package index and authorities, the chart.

What `make demo`, the end-to-end tests and the benchmarks share.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from images.__main__ import build
from images.compose import default_cache

from tests.testbed import clusters
from tests.testbed.clusters import Cluster

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "build" / "images"
NAMESPACE = "cloudmesh-system"
RELEASE = "cloudmesh"
BUNDLE = "host-certificates"


class InstallError(Exception):
    """Something could not be installed; the text has the command's own words."""


def run(cluster: Cluster, *command: str, stdin: str | None = None, seconds: float = 300) -> str:
    """Runs kubectl, helm and the like against the cluster; gives what it printed.

    Raises:
        InstallError: it failed.
    """
    done = subprocess.run(
        command,
        input=stdin,
        env=cluster.environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    if done.returncode:
        raise InstallError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def host_bundle() -> Path | None:
    """The certificate authorities that this machine's package clients trust, if they aren't the system's own."""
    for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        if (value := os.environ.get(name)) and Path(value).is_file():
            return Path(value)
    return None


def host_index() -> str:
    """The package index that this machine is set up for; empty for the default one."""
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        if value := os.environ.get(name):
            return value
    for file in (Path("/etc/pip.conf"), Path.home() / ".config/pip/pip.conf", Path.home() / ".pip/pip.conf"):
        parser = configparser.ConfigParser(interpolation=None)
        if file.is_file():
            parser.read(file)
            if value := parser.get("global", "index-url", fallback=""):
                return value
    return ""


def _make_namespace(cluster: Cluster) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    run(cluster, "kubectl", "apply", "--server-side", "-f", "-", stdin=json.dumps(body))


def _host_values(cluster: Cluster) -> list[str]:
    """Index, authorities and proxy of this machine, as chart values; what is secret goes into Secrets."""
    values: list[str] = []
    if bundle := host_bundle():
        # A ConfigMap holds 1 MiB; the system's bundle is a quarter of it.
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": BUNDLE, "namespace": NAMESPACE},
            "data": {"ca.crt": bundle.read_text()},
        }
        run(cluster, "kubectl", "apply", "--server-side", "-f", "-", stdin=json.dumps(body))
        values += ["--set", f"builder.caBundle.configMapName={BUNDLE}"]
    if index := host_index():
        parts = urlsplit(index)
        secret = {"url": index}
        if parts.username:
            host = parts.hostname or ""
            plain = parts._replace(netloc=f"{host}:{parts.port}" if parts.port else host).geturl()
            secret = {"url": plain, "username": parts.username, "password": parts.password or ""}
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "host-index", "namespace": NAMESPACE},
            "stringData": secret,
        }
        run(cluster, "kubectl", "apply", "--server-side", "-f", "-", stdin=json.dumps(body))
        values += ["--set", "builder.index.secretName=host-index"]
    for name, key in (("HTTP_PROXY", "httpProxy"), ("HTTPS_PROXY", "httpsProxy"), ("NO_PROXY", "noProxy")):
        if value := os.environ.get(name) or os.environ.get(name.lower()):
            values += ["--set-string", f"builder.proxy.{key}={value.replace(',', chr(92) + ',')}"]
    return values


def build_images() -> None:
    """Builds the images into build/images; seconds when nothing changed."""
    subprocess.run([sys.executable, "-m", "images", "build"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def machine_image() -> str:
    """Builds the image of machines that are Pods, alone, and puts it onto the nodes; gives its name there."""
    out = clusters.STATE / "machine-image"
    name = build(out, default_cache(), ("machine",))["machine"]
    clusters.import_images([out / "machine.tar"])
    return name


def _import_images(cluster: Cluster) -> None:
    """Puts the images onto the nodes, once for each content."""
    archives = sorted(IMAGES.glob("*.tar"))
    mark = clusters.STATE / "imported.json"
    # The bed's image store ends with the bed; its identity is the kubeconfig, made anew with it.
    state = {
        "cluster": hashlib.sha256(cluster.kubeconfig.read_bytes()).hexdigest(),
        "values": (IMAGES / "values.yaml").read_text(),
    }
    if mark.is_file() and json.loads(mark.read_text()) == state:
        return
    clusters.import_images(archives)
    mark.write_text(json.dumps(state))


def install(cluster: Cluster, *more: str) -> None:
    """Installs or upgrades the chart and waits until all of it is ready.

    Args:
        cluster: one that is up.
        more: further arguments for helm, such as `--set`.

    Raises:
        InstallError: it didn't become ready.
    """
    _import_images(cluster)
    _make_namespace(cluster)
    run(
        cluster,
        *("helm", "upgrade", "--install", RELEASE, "charts/cloudmesh", "--namespace", NAMESPACE),
        *("-f", str(IMAGES / "values.yaml"), *_host_values(cluster), *more, "--wait", "--timeout", "5m"),
        seconds=400,
    )
