"""Alternative names of keyword arguments, for scripts written for older versions."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")


def also_named(**others: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Accept keyword arguments under an alternative name, too. The signature shows only the parameters' own names.

    Args:
        others: alternative name -> the parameter's own name.

    Raises:
        TypeError: raised by the decorated function if an argument is given under both names.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> R:
            for other in others.keys() & kwargs.keys() if kwargs else ():
                own = others[other]
                if own in kwargs:
                    raise TypeError(f"{function.__qualname__}() got {own!r} and {other!r}, two names of one argument")
                kwargs[own] = kwargs.pop(other)
            return function(*args, **kwargs)

        return call

    return decorate
