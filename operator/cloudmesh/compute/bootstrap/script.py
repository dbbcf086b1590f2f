"""A user's own script, run once on each machine, detached so that a lost connection doesn't end it.

Another text is another script: it runs on machines where the one before failed, and on new ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from cloudmesh.compute.access import ClusterAccess
from cloudmesh.compute.bootstrap.hosts import DONE, Host, Result, for_all, target_of
from cloudmesh.compute.runner import RUNNER, RUNNER_PATH, look, start
from cloudmesh.compute.ssh import Ssh, last_words
from cloudmesh.engine import CloudmeshError

FOLDER = ".cloudmesh/bootstrap"
SCRIPT_SECONDS = 3600
LOG_BYTES = 2000
LOG_LINES = 3


async def settle(
    ssh: Ssh,
    access: ClusterAccess,
    hosts: Sequence[Host],
    done: Mapping[str, Result],
    script: bytes,
    earlier: Sequence[bytes] = (),
) -> dict[str, Result]:
    """One pass: starts the script where it hasn't run, and tells how far each host is.

    Args:
        ssh: How hosts are reached.
        access: Keys of the cluster.
        hosts: Its machines.
        done: What is known of them; only Pending ones are looked at.
        script: What is to be run.
        earlier: What it was before: two of them never run side by side.
    """
    token, before = _token(script), [_token(text) for text in earlier]
    names = "".join(f"{h.name}\n" for h in hosts).encode()

    async def one(host: Host) -> Result:
        target = target_of(host, access)
        found = await look(ssh, target, [(FOLDER, name) for name in (token, *before)])
        seen = found[token]
        if seen.state == "None":
            if any(found[name].state == "Running" for name in before):
                return Result("Pending", f"{host.name}: the script as it was before still runs")
            files = {RUNNER_PATH: RUNNER.encode(), f"{FOLDER}/{token}.sh": script, f"{FOLDER}/hosts": names}
            await ssh.put(target, files, mode=0o700)
            await start(ssh, target, FOLDER, token, SCRIPT_SECONDS, ["sh", f"./{token}.sh"])
            return Result("Pending", f"{host.name}: the script runs")
        if seen.state == "Running":
            return Result("Pending", f"{host.name}: the script runs")
        if seen.state == "Ended" and seen.exit_code == 0:
            return DONE
        end = await ssh.run(target, ["tail", "-c", str(LOG_BYTES), f"{FOLDER}/{token}/log"])
        how = f"ended with {seen.exit_code}" if seen.state == "Ended" else "was cut off"
        return Result("Failed", f"{host.name}: the script {how}: {last_words(end.text, lines=LOG_LINES)}")

    waiting = [h for h in hosts if h.reachable and done.get(h.uid, Result("Pending")).state == "Pending"]
    found = await for_all(waiting, one)
    return {
        uid: Result("Pending", str(result)) if isinstance(result, CloudmeshError) else result
        for uid, result in found.items()
    } | {h.uid: done.get(h.uid, Result("Pending", f"{h.name} isn't reached")) for h in hosts if h.uid not in found}


def _token(script: bytes) -> str:
    return f"script-{hashlib.sha256(script).hexdigest()[:16]}"
