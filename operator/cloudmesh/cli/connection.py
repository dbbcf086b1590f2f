"""Where a directory's gateway is and who asks, from options and variables."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from urllib.parse import urlencode

from cloudmesh.data import names
from cloudmesh.data.client import Vdir

URL, TOKEN, NAME = "CLOUDMESH_VDIR_URL", "CLOUDMESH_VDIR_TOKEN", "CLOUDMESH_VDIR"
_REMOTE = re.compile(r"([a-z0-9](?:[-a-z0-9.]*[a-z0-9])?):(/.*)", re.DOTALL)
_ADDRESS = re.compile(r"https?://[^\s/@?#]+(/[^\s@?#]*)?")
_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,61}[a-z0-9])?")


class UsageError(Exception):
    """The command can't be understood; the message says what to write."""


def options() -> argparse.ArgumentParser:
    """The options that all verbs have which ask a gateway."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("gateway")
    group.add_argument("--name", "--storage", default="", help=f"the directory of paths that name none; else {NAME}")
    group.add_argument("--url", default="", help=f"where its gateway answers; else {URL}, else the cluster's Service")
    group.add_argument("--token", default="", help=f"a Kubernetes token; else {TOKEN}, else the Pod's own")
    group.add_argument("--user", default="", help="a user name, instead of a token")
    group.add_argument("--password-file", default="", help="the file with that user's password")
    group.add_argument("--namespace", default="", help="the directory's namespace; else the Pod's own")
    return parser


def remote(text: str) -> tuple[str, str] | None:
    """Name and path of `NAME:/path`, None for anything else."""
    found = _REMOTE.fullmatch(text)
    return (found[1], names.clean_path(found[2])) if found else None


def named(chosen: argparse.Namespace, name: str = "") -> str:
    """The directory's name: the one given, else of `--name`, else of the variable."""
    if name and chosen.name not in ("", name):
        raise UsageError(f"the path is of '{name}' and --name says '{chosen.name}': name one directory")
    found = name or chosen.name or os.environ.get(NAME, "")
    if not found:
        raise UsageError(f"which directory? Write NAME:/path, --name NAME, or set {NAME}")
    if not _NAME.fullmatch(found):
        raise UsageError(f"'{found}' can't be the name of a directory")
    return found


def at(chosen: argparse.Namespace, text: str) -> tuple[str, str]:
    """Name and clean path of `NAME:/path`, or of `/path` in the directory that is named otherwise."""
    if found := remote(text):
        return named(chosen, found[0]), found[1]
    head, colon, rest = text.partition(":")
    if colon and _NAME.fullmatch(head) and not (chosen.name or os.environ.get(NAME)):
        raise UsageError(f"'{text}' isn't a path of a directory: write {head}:/{rest}, from the root")
    return named(chosen), names.clean_path(text)


def connect(chosen: argparse.Namespace, name: str) -> Vdir:
    """The client of one directory."""
    url = (chosen.url or os.environ.get(URL, "")).replace("{name}", name)
    if url and not _ADDRESS.fullmatch(url):
        raise UsageError("the URL must be like https://host/path, without a user or password in it")
    token = (chosen.token or os.environ.get(TOKEN, "")).strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError("the token has characters that no token has")
    if bool(chosen.user) != bool(chosen.password_file):
        raise UsageError("--user and --password-file go together")
    password = ""
    if chosen.password_file:
        try:
            password = Path(chosen.password_file).read_text().rstrip("\r\n")
        except (OSError, ValueError):
            raise UsageError(f"the password file '{chosen.password_file}' can't be read") from None
    return Vdir(name, namespace=chosen.namespace, url=url, token=token, user=chosen.user, password=password)


def only_one(chosen: argparse.Namespace, wanted: set[str]) -> None:
    """Refuses several directories at one URL, where all would be the same one."""
    url = chosen.url or os.environ.get(URL, "")
    if len(wanted) > 1 and url and "{name}" not in url:
        raise UsageError("one URL is of one directory: write {name} in it where the directory's name belongs")


def encoded(pairs: dict[str, str]) -> str:
    """Tags as a query holds them."""
    return urlencode(pairs)
