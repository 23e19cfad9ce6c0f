"""Background work that is put off for as long as can be."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any


class LazyExecutor:
    """The slowest background that there can be: it does what it is given once somebody waits for that."""

    def __init__(self, *_: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *args: Any) -> LazyFuture:
        """Take work."""
        return LazyFuture(partial(work, *args))

    def shutdown(self, **_: object) -> None:
        """What nobody has waited for is never done."""


class PromptExecutor(LazyExecutor):
    """The fastest: what it is given is done at once."""

    def submit(self, work: Callable[..., Any], *args: Any) -> LazyFuture:
        """Do it."""
        future = LazyFuture(partial(work, *args), is_done=True)
        future.result()
        return future


class LazyFuture:
    """Work that is done when its result is asked for."""

    def __init__(self, work: Callable[[], Any], *, is_done: bool = False) -> None:
        self._result = cache(work)
        self._is_done = is_done

    def result(self) -> Any:
        """Do it, unless it is done."""
        return self._result()

    def done(self) -> bool:
        """As it was said: never before somebody waits."""
        return self._is_done
