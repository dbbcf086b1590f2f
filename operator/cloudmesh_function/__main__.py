"""`python -m cloudmesh_function`: serves the function that lies in the image."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


def main() -> int:
    """Reads the environment and the function's files, and serves."""
    from cloudmesh_function import server, service, settings

    # as process 1 of a container a signal without handler does nothing, and imports may take long
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server.configure_logging()
    try:
        found = settings.from_environment()
        definition = service.Definition.read(Path(found.app_dir))
    except (settings.SettingsError, OSError, ValueError) as error:
        print(f"cloudmesh_function: {error}", file=sys.stderr)  # noqa: T201
        return 2
    status = server.run(service.make(definition, found), found)
    sys.stdout.flush()
    sys.stderr.flush()
    # threads of calls that outlived their time-out must not keep the process
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
