# ruff: noqa
"""Docstrings in the three usual styles.

The module's description has two lines.
They belong together.
"""


def rest_style(a: int, b: str = "b") -> str:
    """Short text.

    Longer text over
    two lines.

    :param a: first, over
        two lines
    :param str b: second
    :returns: something
    :rtype: str
    :raises ValueError: never
    """
    return b


def google_style(a: int, *rest: int, b: str = "b", **more: str) -> str:
    """Short text.

    Longer text.

    Args:
        a: first, over
            two lines
        *rest: others
        b (str): second
        **more: more: with a colon

    Returns:
        str: something

    Raises:
        ValueError: never

    Note:
        A note.
    """
    return b


def numpy_style(a: int, b: str = "b", c: float = 1.0) -> str:
    """Short text.

    Longer text.

    Parameters
    ----------
    a : int
        first, over
        two lines
    b, c : str
        second and third

    Returns
    -------
    str
        something

    See Also
    --------
    google_style : another
    """
    return b


def only_params(a: int) -> int:
    """:param a: nothing but a parameter"""
    return a


def no_docstring(a: int) -> int:
    return a


def one_line(a: int) -> int:
    """One line without anything else"""
    return a


def wrong_names(a: int) -> int:
    """The docstring names another parameter.

    :param b: not there
    """
    return a
