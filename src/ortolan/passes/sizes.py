"""Sizes as terms: products of a number and names, so that what is equal is written equally.

A size, or an integer computed from sizes, is an int, or a text like "3*#0*x[1]": names between
stars, in order, after a number that is not 1. A name stands for a number that is not known; what
is no product, such as a sum, is a name in brackets without a star.
"""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

__all__ = ["Element", "Known", "add", "divide", "is_plain", "multiply", "subtract", "wider"]

Element: TypeAlias = int | str
Known: TypeAlias = tuple[Element, ...]


# Where each term is the square of the one before, a text is soon longer than memory.
_LONGEST = 1000
_LARGEST = (1 << 63) - 1


def is_plain(term: Element) -> bool:
    """Whether a term is not too long or large to go on with."""
    return len(term) <= _LONGEST if isinstance(term, str) else term <= _LARGEST


def multiply(*terms: Element) -> Element:
    """The product."""
    number = 1
    names: list[str] = []
    for term in terms:
        factor, more = _parts(term)
        number *= factor
        names.extend(more)
    return _join(number, names)


def divide(a: Element, b: Element) -> Element:
    """The quotient, rounded towards 0 as integers of ONNX are."""
    number, names = _parts(a)
    divisor, others = _parts(b)
    left = Counter(names)
    left.subtract(others)
    if divisor and number % divisor == 0 and min(left.values(), default=0) >= 0:
        return _join(number // divisor, list(left.elements()))
    if isinstance(a, int) and isinstance(b, int) and b:
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return _name(f"{a}/{b}")


def add(a: Element, b: Element) -> Element:
    """The sum."""
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    if a == 0 or b == 0:
        return b if a == 0 else a
    first, second = sorted((str(a), str(b)))
    return _name(f"{first}+{second}")


def subtract(a: Element, b: Element) -> Element:
    """The difference."""
    if isinstance(a, int) and isinstance(b, int):
        return a - b
    if a == b:
        return 0
    return a if b == 0 else _name(f"{a}-{b}")


def wider(a: Element, b: Element) -> Element | None:
    """The size that two sizes stretch to; None if that depends on which of them is 1."""
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    if isinstance(a, int) or isinstance(b, int):
        # A fixed size other than 1: the other one is equal to it, or 1.
        return a if isinstance(a, int) else b
    return None


def _parts(term: Element) -> tuple[int, list[str]]:
    if isinstance(term, int):
        return term, []
    head, *rest = term.split("*")
    return (int(head), rest) if head.lstrip("-").isdigit() else (1, [head, *rest])


def _join(number: int, names: list[str]) -> Element:
    if not names or number == 0:
        return number
    head = [] if number == 1 else [str(number)]
    return "*".join([*head, *sorted(names)])


def _name(text: str) -> str:
    return f"({text.replace('*', '.')})"
