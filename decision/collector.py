"""Python's garbage collector held off while something large is built.

A compiler makes hundreds of thousands of objects that all stay, and while it does the collector would look through the
whole heap of the process several times, kernels and all, to find nothing.
"""

from __future__ import annotations

import gc
import threading
from contextlib import ContextDecorator


class CollectorPaused(ContextDecorator):
    """Pauses the collector between entry and exit, in any number of threads; the last to leave lets it run again.

    A collector that was off at the first entry stays off. Objects without cycles are freed all the while.
    """

    _lock = threading.Lock()
    _inside_count = 0
    _was_on = False

    def __enter__(self) -> None:
        """Pause it."""
        cls = CollectorPaused
        with cls._lock:
            if cls._inside_count == 0:
                cls._was_on = gc.isenabled()
                gc.disable()
            cls._inside_count += 1

    def __exit__(self, *raised: object) -> None:
        """Let it run again, whatever was raised."""
        cls = CollectorPaused
        with cls._lock:
            cls._inside_count -= 1
            if cls._inside_count == 0 and cls._was_on:
                gc.enable()
