# ruff: noqa
"""A class whose methods are served."""


class Base:
    def inherited(self, x: int) -> int:
        return x


class Calculator(Base):
    """Counts."""

    scale = 2

    def __init__(self, start: int = 0):
        self.total = start

    @classmethod
    def multiplyint(cls, x: int, y: int) -> int:
        """Multiplies."""
        return x * y

    @staticmethod
    def dividefloat(x: float, y: float = 1.0) -> float:
        return x

    def keep(self, x: int) -> bool:
        self.total = x
        return True

    async def later(self, name: str = "n") -> str:
        return name

    @property
    def hidden_property(self) -> int:
        return self.total

    def _private(self) -> int:
        return 1
