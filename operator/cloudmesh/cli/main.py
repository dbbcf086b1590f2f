"""`cms NOUN VERB ...`: 0 is right, 1 is failed or different, 2 is a command that can't be understood."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from cloudmesh.cli import storage, vdir
from cloudmesh.cli.connection import UsageError
from cloudmesh.cli.output import complain
from cloudmesh.engine.errors import CloudmeshError

NOUNS = (storage, vdir)
FAILED, USAGE, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: Those after `cms`; left out, those of the process.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a name that the terminal can't show must not end the command
            stream.reconfigure(errors="backslashreplace")
    try:
        options = _parsed(arguments)
        code = int(options.run(options))
        sys.stdout.flush()
    except SystemExit as end:  # of argparse, which has said what is wrong
        return int(end.code or 0)
    except BrokenPipeError:
        # who read the output went away: nothing more can be said there, by the interpreter's end neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except UsageError as error:
        complain(str(error))
        return USAGE
    except CloudmeshError as error:
        complain(str(error))
        return FAILED
    except OSError as error:
        complain(f"{error.filename or 'input or output'}: {error.strerror or type(error).__name__}")
        return FAILED
    except (ValueError, KeyError):
        # the client reads what a gateway answers; what else there is at that URL may answer anything
        complain("the answer can't be read: is there a gateway at this URL?")
        return FAILED
    return code


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:
        raise UsageError(f"'{unknown[0]}' isn't known here: `cms NOUN VERB --help` tells what is")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cms", description="The command line of Cloudmesh.")
    nouns = parser.add_subparsers(metavar="NOUN", required=True)
    for noun in NOUNS:
        noun.add_to(nouns)
    return parser
