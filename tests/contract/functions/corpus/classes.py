# ruff: noqa
"""Dataclasses, TypedDicts, NamedTuples and Enums."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, NamedTuple, NotRequired, Optional, Required, TypedDict


class Color(enum.Enum):
    """A colour."""

    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mode(enum.StrEnum):
    FAST = enum.auto()
    SLOW = enum.auto()


class Shape(str, enum.Enum):
    ROUND = "round"
    FLAT = "flat"


class Numbered(enum.Enum):
    ONE = enum.auto()
    TWO = enum.auto()


class Ratio(enum.Enum):
    HALF = 0.5
    FULL = 1.5


class MixedValues(enum.Enum):
    NUMBER = 1
    TEXT = "one"


class Aliased(enum.Enum):
    FIRST = "a"
    AGAIN = "a"


@dataclass
class Point:
    """A point in the plane."""

    x: float
    y: float = 0.0


@dataclass(frozen=True)
class Tagged:
    name: str
    tags: list[str] = field(default_factory=list)
    kind: ClassVar[str] = "tagged"
    color: Color = Color.RED


@dataclass
class Line:
    start: Point
    end: Point
    label: Optional[str] = None


@dataclass
class Tree:
    value: int
    children: list[Tree] = field(default_factory=list)


@dataclass
class Named3(Point):
    name: str = "n"


@dataclass(kw_only=True)
class OnlyKeywords:
    a: int = 1
    b: str


@dataclass
class Computed:
    a: int
    twice: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.twice = 2 * self.a


@dataclass
class EitherTime:
    at: datetime | str


class Movie(TypedDict):
    title: str
    year: int


class Partial(TypedDict, total=False):
    title: Required[str]
    year: int


class WithOptional(TypedDict):
    title: str
    year: NotRequired[int]


class MovieWithRating(Movie):
    rating: float


class Position(NamedTuple):
    x: int
    y: int = 0


class Outer:
    @dataclass
    class Inner:
        a: int


def color(x: Color) -> Color:
    return x


def default_color(x: Color = Color.GREEN) -> Color:
    return x


def level(x: Level) -> Level:
    return x


def mode(x: Mode = Mode.FAST) -> Mode:
    return x


def shape(x: Shape) -> str:
    return x.value


def numbered(x: Numbered) -> Numbered:
    return x


def ratio(x: Ratio) -> float:
    return x.value


def mixed_values(x: MixedValues) -> str:
    return x.name


def aliased(x: Aliased) -> Aliased:
    return x


def colors(x: list[Color]) -> list[Color]:
    return x


def optional_color(x: Color | None = None) -> Color | None:
    return x


def by_color(x: dict[Color, int]) -> int:
    return sum(1 for _ in x)


def point(p: Point) -> Point:
    return p


def points(ps: list[Point]) -> int:
    return len(ps)


def distance(a: Point, b: Point) -> bool:
    return a == b


def optional_point(p: Point | None = None) -> Point | None:
    return p


def tagged(t: Tagged) -> Tagged:
    return t


def line(of: Line) -> Line:
    return of


def tree_sum(tree: Tree) -> int:
    return tree.value + sum(map(tree_sum, tree.children))


def give_tree(depth: bool) -> Tree:
    return Tree(1, [Tree(2)] if depth else [])


def inherited(x: Named3) -> str:
    return x.name


def only_keywords(x: OnlyKeywords) -> OnlyKeywords:
    return x


def computed(x: Computed) -> int:
    return x.twice


def either_time(x: EitherTime) -> str:
    return type(x.at).__name__


def movie(m: Movie) -> Movie:
    return m


def partial(m: Partial) -> Partial:
    return m


def with_optional(m: WithOptional) -> WithOptional:
    return m


def movie_with_rating(m: MovieWithRating) -> MovieWithRating:
    return m


def position(p: Position) -> int:
    return p.x


def inner(x: Outer.Inner) -> int:
    return x.a


def point_or_movie(x: Point | Movie) -> str:
    return type(x).__name__


def mixed(p: Point, n: int, c: Color = Color.RED) -> str:
    return f"{n} {c.value}"


def point_map(x: dict[str, Point]) -> list[str]:
    return sorted(x)
