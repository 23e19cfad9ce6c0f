"""What a process that holds much and runs long asks of the C library's allocator."""

from __future__ import annotations

import ctypes

# The numbers of <malloc.h>.
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

LARGE_BYTES = 2**20


def keep_heap_compact() -> None:
    """Have all threads share one heap, and give arrays of a megabyte and more back to the system once they are freed.

    By itself glibc gives each thread a heap, and puts arrays of up to 32 MiB into it once one as large was freed; what
    is small then keeps it from shrinking. To be called before threads are started. Other C libraries go on as they do.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
