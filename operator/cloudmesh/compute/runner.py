"""Commands on a machine that outlive the login: started once a token, looked at later, stopped.

A small shell script does it on the machine. The folder `FOLDER/TOKEN` is the marker that makes a second start do
nothing, and holds what became of the first: `log`, `pid`, `began`, `ended`, `exit`, and `oom` if memory ran out.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from cloudmesh.compute.ssh import Ssh, SshTarget
from cloudmesh.engine import Conflict, Transient

Progress = Literal["None", "Running", "Ended", "Lost"]
"""`Lost` is a command whose process went without saying how it ended."""

RUNNER_PATH = ".cloudmesh/run"
TIMED_OUT = (124, 137)
RUNNER = r"""#!/bin/sh
# start|once FOLDER TOKEN SECONDS FILES COMMAND…: runs a command in FOLDER, once for TOKEN; 0 seconds for no limit.
# FILES is `-`, or a folder beside FOLDER whose content is copied into it, once the file FILES.ok says that it is there.
# look < lines "FOLDER TOKEN": tells of each; stop < lines: ends each
set -u
# oom_kill of this container, or of this host
ooms() {
    for events in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control /proc/vmstat; do
        [ -r "$events" ] && sed -n 's/^oom_kill //p' "$events" && return
    done
}
# Brings this folder to the other nodes that SLURM gave; it is there already where they share it.
spread() {
    tar -cf - --exclude './cm-*' . | timeout -k 5 300 srun --nodes="$SLURM_JOB_NUM_NODES" \
        --ntasks="$SLURM_JOB_NUM_NODES" --kill-on-bad-exit=1 --chdir=/ sh -c \
        'mkdir -p "$1" && cd "$1" && if [ -d "$2" ]; then cat >/dev/null; else tar -xf -; fi' sh "$PWD" "$1"
}
born() { cut -d ' ' -f 22 "/proc/$1/stat" 2>/dev/null; }
child() {
    token=$1 seconds=$2 files=$3 tries=240
    shift 3
    echo "$$ $(born $$)" >"$token/pid.new" && mv "$token/pid.new" "$token/pid"
    date +%s >"$token/began"
    while [ "$files" != - ] && [ ! -f "../$files.ok" ]; do
        tries=$((tries - 1))
        if [ "$tries" -eq 0 ]; then
            set -- sh -c 'echo "the files of the job did not come"; exit 75'
            files=-
        fi
        sleep 0.5
    done
    [ "$files" = - ] || cp -R -n "../$files/." .
    if [ "${SLURM_JOB_NUM_NODES:-1}" -gt 1 ] && ! spread "$token" >"$token/spread" 2>&1; then
        set -- sh -c 'cat "$1"; echo "the folder of the run did not come to all nodes"; exit 75' sh "$token/spread"
    fi
    before=$(ooms)
    timeout -k 10 "$seconds" "$@" >"$token/log" 2>&1 </dev/null &
    work=$!
    echo "$work" >"$token/work"
    wait "$work"
    code=$?
    [ "$code" -lt 128 ] || [ "$(ooms)" = "$before" ] || touch "$token/oom"
    date +%s >"$token/ended"
    echo "$code" >"$token/exit.new" && mv "$token/exit.new" "$token/exit"
    return "$code"
}
mode=$1
shift
case $mode in
start | once)
    mkdir -p "$1" && cd "$1" || exit 70
    if ! mkdir "$2" 2>/dev/null; then
        [ -d "$2" ] && exit 0
        exit 70
    fi
    shift
    if [ "$mode" = once ]; then
        hostname >"$1/node"
        child "$@"
        exit
    fi
    setsid sh "$HOME/.cloudmesh/run" child "$@" >/dev/null 2>&1 </dev/null &
    ;;
child)
    child "$@"
    ;;
look)
    while read -r folder token; do
        d=$folder/$token state=Running code=- began=- ended=- oom=-
        if [ ! -d "$d" ]; then
            state=None
        elif [ -f "$d/pid" ]; then
            read -r pid time <"$d/pid"
            [ "$(born "$pid")" = "$time" ] || state=Lost
        elif [ -n "$(find "$d" -maxdepth 0 -mmin +1)" ]; then
            state=Lost
        fi
        [ -f "$d/exit" ] && state=Ended && read -r code <"$d/exit"
        [ -f "$d/began" ] && read -r began <"$d/began"
        [ -f "$d/ended" ] && read -r ended <"$d/ended"
        [ -f "$d/oom" ] && oom=oom
        echo "$token $state ${code:--} ${began:--} ${ended:--} $oom"
    done
    ;;
stop)
    while read -r folder token; do
        [ -f "$folder/$token/exit" ] && continue
        { read -r work <"$folder/$token/work" || read -r work _ <"$folder/$token/pid"; } 2>/dev/null &&
            kill -TERM "$work" 2>/dev/null
    done
    exit 0
    ;;
*) exit 64 ;;
esac
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of a command.

    Args:
        state: None: never started here; Running; Ended; Lost.
        exit_code: Its exit code when it has ended.
        began: Seconds since 1970 at which it began, by the machine's clock.
        ended: The same of its end.
        oom: It was killed because memory ran out.
    """

    state: Progress
    exit_code: int | None = None
    began: int | None = None
    ended: int | None = None
    oom: bool = False


async def install(ssh: Ssh, target: SshTarget) -> None:
    """Puts the script on a machine; over itself is fine."""
    await ssh.put(target, {RUNNER_PATH: RUNNER.encode()}, mode=0o700)


async def start(
    ssh: Ssh, target: SshTarget, folder: str, token: str, seconds: int, command: Sequence[str], *, files: str = "-"
) -> None:
    """Starts a command in a folder, once for its token; a second start does nothing.

    Args:
        ssh: How to get there.
        target: The machine, where the script has been put.
        folder: Working folder, below the home.
        token: Name of the marker.
        seconds: Limit on the command, 0 for none.
        command: The program and its arguments.
        files: A folder beside the working folder whose content is copied into it, when the file `<files>.ok` is there.

    Raises:
        Transient: It may have started or not: look.
    """
    argv = ["sh", RUNNER_PATH, "start", folder, token, str(seconds), files, *command]
    done = await ssh.run(target, argv)
    if done.status != 0:
        raise Transient(f"{target}: the command can't be started: {done.complaint}")


async def look(ssh: Ssh, target: SshTarget, commands: Iterable[tuple[str, str]]) -> dict[str, Seen]:
    """What became of commands, by token, each given as folder and token; all in one call.

    Raises:
        Transient: The machine doesn't answer.
    """
    asked = list(commands)
    lines = "".join(f"{folder} {token}\n" for folder, token in asked)
    # the script may not be there: what never started there has no folder either
    argv = ["sh", "-c", f'test -f {RUNNER_PATH} || exit 0; exec sh {RUNNER_PATH} "$@"', "sh", "look"]
    done = await ssh.run(target, argv, stdin=lines.encode())
    if done.status != 0:
        raise Transient(f"{target}: {done.complaint}")
    found = {token: Seen("None") for _, token in asked}
    for line in done.text.splitlines():
        parts = line.split()
        # an older script says nothing of memory
        if len(parts) not in (5, 6) or parts[0] not in found:
            raise Conflict(f"{target}: {posixpath.basename(RUNNER_PATH)} answers what isn't understood: {line[:80]!r}")
        code, began, ended = (int(text) if text.lstrip("-").isdigit() else None for text in parts[2:5])
        found[parts[0]] = Seen(_PROGRESS[parts[1]], code, began, ended, "oom" in parts[5:])
    return found


async def stop(ssh: Ssh, target: SshTarget, commands: Iterable[tuple[str, str]]) -> None:
    """Ends commands, in ten seconds by force; those that ended or never started are fine."""
    lines = "".join(f"{folder} {token}\n" for folder, token in commands)
    argv = ["sh", "-c", f"test -f {RUNNER_PATH} || exit 0; exec sh {RUNNER_PATH} stop", "sh"]
    await ssh.run(target, argv, stdin=lines.encode())


_PROGRESS: dict[str, Progress] = {"None": "None", "Running": "Running", "Ended": "Ended", "Lost": "Lost"}
