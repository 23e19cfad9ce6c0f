"""Feast's run-time type checks, compiled when a function is first called instead of when Feast is imported.

Feast decorates its classes with typeguard's `typechecked`, which parses, rewrites and compiles a whole module again for
each of their methods: over 200 times, three quarters of the seconds that `import feast` takes, in every process that
loads a repo. Such a process calls a few dozen of those methods. What is checked, and how it fails, stays the same.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

import typeguard

_check: Callable[..., Any] = typeguard.typechecked


def defer_feasts_checks() -> None:
    """Put off the checks of what is imported from Feast after this; twice does nothing more."""
    typeguard.typechecked = _typechecked


def _typechecked(target: Any = None, **options: Any) -> Any:
    """Typeguard's decorator, which only for Feast's classes has its way later."""
    if options or not isinstance(target, type) or not target.__module__.startswith("feast."):
        return _check(target, **options)
    for name, member in list(vars(target).items()):
        if isinstance(member, (FunctionType, classmethod, staticmethod, property)):
            setattr(target, name, _put_off(member, target))
    return target


def _put_off(member: Any, owner: type) -> Any:
    match member:
        case classmethod() | staticmethod():
            return type(member)(_put_off(member.__func__, owner))
        case property():
            fget, fset, fdel = (_put_off(each, owner) for each in (member.fget, member.fset, member.fdel))
            return type(member)(fget, fset, fdel, member.__doc__)
        case _:
            return _deferred(member) if _can_wait(member, owner) else member


def _can_wait(function: Any, owner: type) -> bool:
    """Whether typeguard would rewrite it: written in the class, in its module's file, and wrapped by nothing else."""
    return (
        isinstance(function, FunctionType)
        and function.__module__ == owner.__module__
        and function.__qualname__.startswith(f"{owner.__qualname__}.")
        and function.__code__.co_filename == sys.modules[owner.__module__].__file__
        and not hasattr(function, "__wrapped__")
    )


def _deferred(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that has the checks compiled into the given one when it is called."""

    @functools.cache
    def checked() -> Callable[..., Any]:
        compiled: Callable[..., Any] = _check(function)
        return compiled

    def stand_in(*args: Any, **kwargs: Any) -> Any:
        return checked()(*args, **kwargs)

    # Attributes stay behind, as they do where typeguard makes a function: one of them says that a method is abstract.
    return functools.update_wrapper(stand_in, function, updated=())
