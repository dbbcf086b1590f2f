"""`python -m cloudmesh.compute check|offers|plan|quote FILE…`: accounts and clusters from files, without a cluster."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from fractions import Fraction

from cloudmesh.api.quantity import parse_quantity
from cloudmesh.compute.command import verbs
from cloudmesh.compute.command.documents import Mistake, read
from cloudmesh.compute.command.selection import SORTS, Wanted
from cloudmesh.compute.command.tables import FORMS
from cloudmesh.compute.prices.moments import to_seconds, to_time
from cloudmesh.compute.prices.money import to_nanos
from cloudmesh.compute.settings import ComputeSettings
from cloudmesh.engine import utc_now

VERBS = {"check": verbs.run_check, "offers": verbs.run_offers, "plan": verbs.run_plan, "quote": verbs.run_quote}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit status: 0, 1 for what can't be had, 2 for wrong arguments and files."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.file and not getattr(options, "catalogue", ""):
        parser.error("offers needs a FILE or --catalogue")
    try:
        documents = read(options.file, options.namespace)
    except Mistake as mistake:
        verbs.complain(str(mistake))
        return 2
    wanted = Wanted()
    if options.verb == "offers":
        wanted = Wanted(
            type=options.type,
            region=options.region,
            zone=options.zone,
            purchase=options.purchase,
            arch=options.arch,
            gpu=options.gpu,
            min_milli_vcpu=int(options.min_vcpu * 1000),
            min_memory_mib=int(options.min_memory / 2**20),
            max_hourly=options.max_hourly,
            priced=options.priced,
            sort=options.sort,
            limit=options.limit,
        )
    asked = verbs.Options(
        form=options.output,
        accounts=tuple(getattr(options, "account", ())),
        clusters=tuple(getattr(options, "cluster", ())),
        catalogue=getattr(options, "catalogue", ""),
        wanted=wanted,
        now=options.at or utc_now(),
    )
    try:
        return asyncio.run(VERBS[options.verb](documents, ComputeSettings.from_environ(), asked))
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def _of(kind: str, read_: Callable[[str], object]) -> Callable[[str], object]:
    def parse(text: str) -> object:
        try:
            return read_(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {kind}, not {text!r}") from None

    return parse


def _count(text: str) -> int:
    if not text.isdigit():
        raise ValueError(text)
    return int(text)


def _quantity(text: str) -> Fraction:
    return parse_quantity(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cloudmesh.compute", description="Clouds and clusters from YAML files, without a cluster."
    )
    commands = parser.add_subparsers(dest="verb", required=True)
    for verb, text in (
        ("check", "say in words whether accounts can be used, and why not"),
        ("offers", "show what accounts offer, with prices"),
        ("plan", "show which machines clusters would get, why, and what was rejected"),
        ("quote", "show what clusters would cost an hour and a month"),
    ):
        found = commands.add_parser(verb, help=text, description=text)
        number = "*" if verb == "offers" else "+"
        found.add_argument(
            "file", nargs=number, metavar="FILE", help="YAML files or folders of them; - is standard input"
        )
        found.add_argument("--namespace", "-n", default="default", help="namespace of objects that name none")
        found.add_argument("--output", "-o", choices=FORMS, default="table")
        found.add_argument(
            "--at",
            metavar="TIME",
            type=_of("a time such as 2026-11-23T05:00:00Z", lambda text: to_time(to_seconds(text))),
            help="time of the prices and of the quote; now by default",
        )
        if verb in ("check", "offers"):
            found.add_argument("--account", action="append", default=[], metavar="NAME", help="may be repeated")
        else:
            found.add_argument("--cluster", action="append", default=[], metavar="NAME", help="may be repeated")
        if verb == "offers":
            _add_offer_options(found)
    return parser


def _add_offer_options(parser: argparse.ArgumentParser) -> None:
    for name, text in (("type", "machine type"), ("region", "region"), ("zone", "zone"), ("gpu", "model of the GPUs")):
        parser.add_argument(f"--{name}", default="", metavar="PATTERN", help=f"{text}, with * and ?")
    parser.add_argument("--purchase", choices=("OnDemand", "Spot"), default="")
    parser.add_argument("--arch", choices=("amd64", "arm64"), default="")
    quantity = _of("a quantity such as 4 or 16Gi", _quantity)
    parser.add_argument("--min-vcpu", type=quantity, default=Fraction(0), metavar="CPUS")
    parser.add_argument("--min-memory", type=quantity, default=Fraction(0), metavar="MEMORY")
    parser.add_argument("--max-hourly", type=_of("an amount such as 0.25", to_nanos), metavar="AMOUNT")
    parser.add_argument("--priced", action="store_true", help="only offers whose price is known")
    parser.add_argument(
        "--catalogue", default="", metavar="KIND", help="add the packaged prices of a cloud, such as aws"
    )
    parser.add_argument("--sort", choices=SORTS, default="price")
    parser.add_argument("--limit", type=_of("a number", _count), metavar="NUMBER", help="so many at most")


if __name__ == "__main__":
    sys.exit(main())
