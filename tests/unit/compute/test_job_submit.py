"""The script that submits to SLURM, run for real by /bin/sh with stand-ins for SLURM's commands."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from cloudmesh.compute.jobs.batch import CALL_SECONDS, LATER, SUBMIT

QUEUE = '#!/bin/sh\n[ ! -e "$HOME/down" ] || exit 1\ncat "$HOME/queue"\n'
SBATCH = """#!/bin/sh
echo "$@" >>"$HOME/calls"
for word; do case $word in --comment=*) token=${word#*=};; esac; done
[ ! -e "$HOME/before" ] || . "$HOME/before"
number=$((40 + $(wc -l <"$HOME/calls")))
echo "$token $number" >>"$HOME/queue"
[ ! -e "$HOME/after" ] || . "$HOME/after"
echo "$number;cluster"
"""
SCANCEL = '#!/bin/sh\n[ ! -e "$HOME/down" ] || exit 1\necho "$@" >>"$HOME/cancelled"\n'


class Controller:
    """A machine's home with the script and SLURM's commands."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "bin").mkdir()
        for name, text in (("squeue", QUEUE), ("sbatch", SBATCH), ("scancel", SCANCEL)):
            (home / "bin" / name).write_text(text)
            (home / "bin" / name).chmod(0o755)
        (home / "queue").touch()
        (home / "slurm.conf").touch()
        script = SUBMIT.replace("/run/slurm/conf/slurm.conf", str(home / "slurm.conf"))
        script = script.replace("/etc/slurm/slurm.conf", str(home / "none"))
        assert script.count(str(home)) == 2
        (home / "submit").write_text(script.replace(f"-k 2 {CALL_SECONDS}", "-k 1 1"))

    def begin(self, *words: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        path = f"{self.home}/bin:{os.environ['PATH']}"
        return subprocess.Popen(
            ["sh", "submit", *words], cwd=self.home, env={"PATH": path, "HOME": str(self.home)},
            text=True, stdin=pipe, stdout=pipe, stderr=pipe,
        )  # fmt: skip

    def submit(self, token: str = "cm-a") -> tuple[int, str]:
        process = self.begin("submit", "marks", token, "-N1", "run", "a b")
        out, err = process.communicate()
        return process.returncode, (out or err).strip()

    def cancel(self, *tokens: str) -> int:
        process = self.begin("cancel", "marks")
        process.communicate("".join(f"{token}\n" for token in tokens))
        return process.returncode

    def calls(self) -> int:
        path = self.home / "calls"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def age(self, seconds: float) -> None:
        """Lets so much time go by since the last try."""
        then = time.time() - seconds
        os.utime(self.home / "marks/cm-a/tried", (then, then))


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return Controller(tmp_path)


def test_a_token_is_submitted_once(controller: Controller) -> None:
    assert controller.submit() == (0, "41")
    assert controller.submit() == (0, "41")
    assert controller.submit("cm-b") == (0, "42")
    assert controller.calls() == 2
    words = (controller.home / "calls").read_text().splitlines()[0]
    assert words == f"--parsable --chdir={controller.home} --comment=cm-a -N1 run a b"


def test_nothing_is_asked_where_slurm_has_no_configuration_yet(controller: Controller) -> None:
    (controller.home / "slurm.conf").unlink()
    assert controller.submit() == (LATER, "SLURM has no configuration here yet")
    assert controller.calls() == 0
    (controller.home / "slurm.conf").touch()
    assert controller.submit() == (0, "41")


@pytest.mark.parametrize(
    "words",
    [
        "sbatch: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host",
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
    ],
)
def test_what_nobody_took_is_tried_again_at_once(controller: Controller, words: str) -> None:
    (controller.home / "before").write_text(f'echo "{words}" >&2; exit 1\n')
    assert controller.submit() == (1, words)
    (controller.home / "before").unlink()
    assert controller.submit() == (0, "42")


def test_a_try_that_was_cut_off_after_it_got_through_is_found_in_the_queue(controller: Controller) -> None:
    (controller.home / "after").write_text("sleep 30\n")
    began = time.monotonic()
    assert controller.submit() == (124, f"sbatch took longer than {CALL_SECONDS} s")
    assert time.monotonic() - began < 10
    assert controller.submit() == (0, "41")
    assert controller.calls() == 1


def test_a_try_that_may_be_on_its_way_is_waited_for_some_seconds(controller: Controller) -> None:
    (controller.home / "before").write_text('echo "Socket timed out on send/recv operation" >&2; exit 1\n')
    assert controller.submit() == (1, "Socket timed out on send/recv operation")
    (controller.home / "before").unlink()
    assert controller.submit() == (LATER, "")
    controller.age(30)
    (controller.home / "down").touch()
    assert controller.submit()[0] == LATER
    assert controller.calls() == 1
    (controller.home / "down").unlink()
    assert controller.submit() == (0, "42")


def test_two_at_once_submit_once(controller: Controller) -> None:
    (controller.home / "before").write_text("sleep 0.3\n")
    both = [controller.begin("submit", "marks", "cm-a", "run") for _ in range(2)]
    answers = sorted((process.communicate()[0].strip(), process.returncode) for process in both)
    assert answers == [("", LATER), ("41", 0)]
    assert controller.calls() == 1


def test_what_was_submitted_is_taken_back_and_an_answer_is_needed(controller: Controller) -> None:
    controller.submit("cm-a")
    (controller.home / "queue").write_text("(null) 7\ncm-a 41\ncm-b 9\ncm-b 8\n")
    assert controller.cancel("cm-a", "cm-b", "cm-c") == 0
    assert (controller.home / "cancelled").read_text() == "--quiet 41\n--quiet 8\n"
    (controller.home / "down").touch()
    assert controller.cancel("cm-a") == 1
    assert controller.cancel("cm-b") == 1
