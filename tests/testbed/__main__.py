"""`python -m tests.testbed COMMAND`, run from the checkout's root."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

from tests.testbed import artifacts, clusters, config
from tests.testbed.console import TestbedError, say


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.testbed", description="A real Kubernetes for the tests.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("build", help="build what an own bed is made of, without starting one")
    commands.add_parser("build-data", help="build the servers of stores that tests start")
    commands.add_parser("up", help="start the cluster, or mend it")
    commands.add_parser("down", help="end the cluster; nothing is left of it")
    commands.add_parser("status", help="what runs, as JSON")
    for name, text in (
        ("exec", "run a command inside of the bed"),
        ("nsexec", "run a command of the host in the bed's network"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("arguments", nargs=argparse.REMAINDER, metavar="COMMAND")
    images = commands.add_parser("import-image", help="put image archives onto the node")
    images.add_argument("archives", nargs="+", type=Path, metavar="TAR")
    logs = commands.add_parser("logs", help="the log of a component, or the names of all")
    logs.add_argument("component", nargs="?")
    kill = commands.add_parser("kill", help="send a signal to a component")
    kill.add_argument("component")
    kill.add_argument("--signal", default="KILL", choices=["KILL", "TERM", "STOP", "CONT"])
    return parser


def _logs(component: str | None) -> None:
    folder = clusters.STATE / "log"
    names = sorted(path.stem for path in folder.glob("*.log"))
    if component is None:
        print("\n".join(names))
    elif component in names:
        sys.stdout.write((folder / f"{component}.log").read_text(errors="replace"))
    else:
        raise TestbedError(f"no log of {component}: there are {', '.join(names) or 'none'}")


def _status() -> None:
    cluster = clusters.current()
    status: dict[str, object] = {"kind": cluster.kind, "kubeconfig": str(cluster.kubeconfig)}
    if cluster.kind == "own":
        record = clusters.own().record()
        assert record is not None
        plan = record.plan
        status["node"], status["host"], status["link"] = plan.node, plan.host, plan.link
        status["pods"], status["services"], status["dns"] = plan.pods, plan.services, plan.bridge
        status["registry"] = config.registry(plan)
        status["components"] = clusters.own().components()
    print(json.dumps(status, indent=1))


def _main(options: argparse.Namespace) -> None:
    command: str = options.command
    match command:
        case "build":
            artifacts.parts()
        case "build-data":
            from tests.testbed import stores  # more than a bed needs

            stores.prepare(stores.parts())
        case "up":
            began = time.monotonic()
            cluster = clusters.up()
            say(f"  {time.monotonic() - began:5.1f} s  in all")
            clusters.say_where(cluster)
        case "down":
            clusters.down()
        case "status":
            _status()
        case "exec" | "nsexec":
            if not options.arguments:
                raise TestbedError(f"{command} needs a command to run")
            arguments = clusters.own().enter(options.arguments, only_network=command == "nsexec")
            os.execvp(arguments[0], arguments)
        case "import-image":
            clusters.import_images(options.archives)
        case "logs":
            _logs(options.component)
        case "kill":
            clusters.own().signal(options.component, signal.Signals[f"SIG{options.signal}"])
        case _:
            raise AssertionError(command)


if __name__ == "__main__":
    try:
        _main(_parser().parse_args())
    except TestbedError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; call it again to go on")
