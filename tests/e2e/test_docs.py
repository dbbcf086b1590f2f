"""Runs README and pages of docs/ word for word: files are written, commands run, and what they print is compared.

A page's blocks of `console`, `yaml`, `toml` and `python` are taken in order, in one shell and one folder of their own:

- A block of `yaml`, `toml` or `python` is a file; the sentence before it names it: "Save this as `loan.yaml`:".
- In a block of `console` a line with `$ ` is a command, the lines up to the next one are its output, on both channels.
- `…` in the output stands for any text in a line; as a line of its own it stands for any lines.
- Runs of blanks are equal, since columns move with the length of what stands in them.
- A command that ends in `&` goes on beside the others; the next one waits until its port takes connections. What the
  shell says of its jobs isn't compared.

The folder has links to `build`, `charts` and `manifests` of the checkout, since some pages are read in one. Two things
are changed in commands and in output, so that a test may run beside others: the namespace `tutorial` is one of the
test's own, and the local ports 8001 and 8080 are free ones. A page that makes no namespace begins in an empty one.
Where a page has an S3 server, `https://s3.example.org` with its key, one of the test's own stands for it, in files too.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from types import MappingProxyType

import pytest
from tests import install
from tests.testbed import s3server
from tests.testbed.kubectl import TestCluster
from tests.testbed.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

PAGES = (
    "README.md",
    "docs/tutorials/function.md",
    "docs/tutorials/cluster.md",
    "docs/tutorials/your-first-directory.md",
    "docs/how-to/install.md",
    "docs/how-to/debug-a-function.md",
    "docs/how-to/pin-and-roll-back.md",
    "docs/how-to/serve-without-a-cluster.md",
    "docs/how-to/price-before-start.md",
    "docs/how-to/approve-a-quote.md",
    "docs/how-to/limit-cost.md",
    "docs/how-to/log-in.md",
    "docs/how-to/debug-a-cluster.md",
    "docs/reference/account-kubernetes.md",
    "docs/reference/account-memory.md",
    "docs/explanation/jobs.md",
    "docs/how-to/keep-files-in-s3.md",
    "docs/how-to/use-a-directory-from-python.md",
    "docs/how-to/use-a-directory-in-a-pod.md",
    "docs/how-to/let-people-in.md",
    "docs/how-to/when-a-store-is-lost.md",
    "docs/how-to/limit-what-files-cost.md",
)
ELSEWHERE = (
    "docs/how-to/write-a-provider.md",
    "docs/how-to/write-a-policy.md",
    "docs/how-to/write-a-store.md",
    "docs/how-to/write-a-placement.md",
    "docs/reference/account-aws.md",
    "docs/reference/account-ssh.md",
    "docs/reference/store-azureblob.md",
    "docs/reference/store-gcs.md",
    "docs/reference/store-local.md",
    "docs/reference/store-s3.md",
    "docs/reference/store-sftp.md",
    "docs/reference/store-swift.md",
    "docs/reference/store-webdav.md",
    "docs/explanation/cost.md",
    "docs/how-to/use-cms-for-files.md",
    "docs/how-to/keep-the-catalogue-in-postgresql.md",
    "docs/how-to/mount-a-directory-on-machines.md",
)
"""Followed by test_write_a_provider.py, test_account_pages.py and ssh/test_mounts.py of tests/contract/compute,
test_write_a_store.py, test_store_pages.py and test_catalog_page.py of tests/contract/data, test_guide.py of
tests/unit/policy, test_placement_page.py of tests/unit/data, test_cost_pages.py of tests/unit/compute and
test_vdir_command.py of tests/unit/cli, since they need no cluster."""
S3 = "https://s3.example.org"
SECONDS = 120.0
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"Save\s+this\s+as\s+`([\w-]+\.\w+)`[^`]*:\s*$")
LOCAL_PORT = re.compile(r"(?:--port[= ]| )(\d+)(?::\d+| |$)")
KUBECTL_LOG = re.compile(r"[IWE]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ \S+:\d+\] ")
"""What kubectl logs by itself, such as a watch that it begins again."""
JOB = re.compile(r"\[\d+\]|bash: line \d+: +\d+ Terminated ")
SHOWN = {"", "text", "sh"}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that the reader does: writes a file, or runs a command."""

    line: int
    file: str = ""
    text: str = ""
    command: str = ""
    output: str = ""


def read_steps(page: Path, text: str) -> Iterator[Step]:
    """All steps of a page, in order; `page` is only named."""
    for block in FENCE.finditer(text):
        language, body = block[1], block[2]
        line = text[: block.start()].count("\n") + 1
        if language in ("yaml", "python", "toml"):
            name = FILE_NAME.search(text[: block.start()].rstrip())
            assert name, (
                f"{page.name}:{line}: no sentence before the block names the file, as in: Save this as `x.yaml`:"
            )
            yield Step(line, file=name[1], text=body)
        elif language == "console":
            commands = list(re.finditer(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", body, re.MULTILINE))
            assert commands and commands[0].start() == 0, f"{page.name}:{line}: a console block begins with `$ `"
            for found in commands:
                at = line + 1 + body[: found.start()].count("\n")
                yield Step(at, command=found[1], output=found[2])
        else:
            assert language in SHOWN, f"{page.name}:{line}: a block of {language} is neither run nor just shown"


def pattern(expected: str) -> re.Pattern[str]:
    """What the output must match."""
    lines = []
    for line in expected.strip().splitlines():
        if line.strip() == "…":
            lines.append(r"(?:.*\n)*?.*")
            continue
        words = [re.escape(word).replace("…", ".*") for word in line.split()]
        lines.append(r"[ \t]*" + r"[ \t]+".join(words) + r"[ \t]*")
    return re.compile("\n".join(lines))


class Shell:
    """One bash, fed with one command after the other; background jobs and variables stay."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._mark = secrets.token_hex(8)
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self._lines: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)

    def _send(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()

    def run(self, command: str, expected: re.Pattern[str]) -> tuple[int, str]:
        """Runs a command; gives its status and output. One in the background gets a while to say what is expected."""
        background = command.rstrip().endswith("&")
        log = self._folder / ".background.log"
        if background:
            command = f">{log.name} 2>&1 {command}"
        self._send(f"{{ {command}\n}} </dev/null 2>&1\nprintf '\\n%s %s\\n' {self._mark} $?")
        output, deadline = "", time.monotonic() + SECONDS
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                raise AssertionError(f"`{command}` did not end within {SECONDS:.0f} s: {output}") from None
            if line.startswith(self._mark):
                status = int(line.split()[1])
                break
            output += line
        if background:
            _wait_for_port(command)
            said = time.monotonic() + 10  # what it says of its port comes a moment later
            while not expected.fullmatch(_plain(output := log.read_text())) and time.monotonic() < said:
                time.sleep(0.1)
        return status, output

    def close(self) -> None:
        """Ends the shell and what it left running."""
        self._send("kill $(jobs -p) 2>/dev/null; exit")
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._reader.join(10)
        self._process.stdout.close()


def _wait_for_port(command: str) -> None:
    port = LOCAL_PORT.search(command)
    assert port, f"`{command}` runs in the background: it must name its port, as in --port=N or N:80"
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", int(port[1])), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def follow(
    page: Path,
    folder: Path,
    environment: dict[str, str],
    changes: dict[str, str],
    *,
    places: Mapping[str, str] = MappingProxyType({}),
    text: str = "",
) -> int:
    """Does what a page says.

    Args:
        page: the Markdown file.
        folder: an empty folder to do it in.
        environment: of the shell.
        changes: word of the page -> word of this run, in commands and output.
        places: the same, in files too.
        text: what to follow instead of the file's text.

    Returns:
        How many commands were run.
    """
    everywhere = {**places, **changes}
    shell, count = Shell(folder, environment), 0
    try:
        for step in read_steps(page, text or page.read_text()):
            where = f"{page.relative_to(install.ROOT)}:{step.line}"
            if step.file:
                (folder / step.file).write_text(_changed(step.text, places))
                continue
            command, expected = (_changed(part, everywhere) for part in (step.command, step.output))
            said = pattern(expected)
            status, output = shell.run(command, said)
            assert status == 0, f"{where}: `{command}` ended with status {status}:\n{output}"
            assert said.fullmatch(_plain(output)), (
                f"{where}: `{command}` printed\n{output}\nand the page says\n{expected}"
            )
            count += 1
    finally:
        shell.close()
    return count


def _changed(text: str, words: Mapping[str, str]) -> str:
    found = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in words) or r"(?!)")
    return found.sub(lambda match: words[match[0]], text)


def _plain(output: str) -> str:
    """The output without what the shell says of its jobs, what kubectl logs, blanks at the end of lines and empty lines
    at either end.
    """
    kept = (line for line in output.splitlines() if not JOB.match(line) and not KUBECTL_LOG.match(line))
    return "\n".join(line.rstrip() for line in kept).strip()


@pytest.fixture
def environment(cluster: TestCluster, tmp_path: Path) -> dict[str, str]:
    """KUBECONFIG is a copy, since pages change the namespace in it; kubectl's cache is new, as on a new machine."""
    kubeconfig = tmp_path / "kubeconfig"
    shutil.copy(cluster.kubeconfig, kubeconfig)
    found = {**cluster.info.environment(), "KUBECONFIG": str(kubeconfig), "KUBECACHEDIR": str(tmp_path / "cache")}
    return {
        **found,
        "PATH": f"{Path(sys.executable).parent}:{found['PATH']}",
        "LC_ALL": "C.UTF-8",
    }


@pytest.mark.usefixtures("cloudmesh")
@pytest.mark.parametrize("page", PAGES)
def test_page_says_what_happens(page: str, cluster: TestCluster, environment: dict[str, str], tmp_path: Path) -> None:
    """Every command of the page works, and prints what the page says."""
    namespace, own = f"t-docs-{secrets.token_hex(3)}", "namespace/tutorial created" in (install.ROOT / page).read_text()
    changes = {"tutorial": namespace, "8001": str(free_port()), "8080": str(free_port())}
    folder = tmp_path / "work"
    folder.mkdir()
    for name in ("build", "charts", "manifests"):
        (folder / name).symlink_to(install.ROOT / name)
    if not own:
        cluster.kubectl("create", "namespace", namespace)
        config = ["--kubeconfig", environment["KUBECONFIG"]]
        cluster.kubectl(*config, "config", "set-context", "--current", f"--namespace={namespace}")
    try:
        with contextlib.ExitStack() as stack:
            places = {}
            if S3 in (install.ROOT / page).read_text():
                assert cluster.info.host_address, "Pods must reach servers of this host"
                server = stack.enter_context(s3server.s3(cluster.info.host_address, "lab"))
                places = {S3: server.url, S3.removeprefix("https://"): server.host}
                places |= {"AKIAEXAMPLE": s3server.ACCESS_KEY, "EXAMPLESECRET": s3server.SECRET_KEY}
            assert follow(install.ROOT / page, folder, environment, changes, places=places) >= 3
    finally:
        cluster.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=false")
