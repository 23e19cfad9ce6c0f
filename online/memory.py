"""Bytes at an address, for kernels.

Passing an array to a helper counts a reference, and each index looks for a negative one; together they cost more than
what a kernel does with one cell. An address is a number. Whoever takes one from an array (`array.ctypes.data`) stays
within it, since nothing is checked here, and keeps it: a kernel lets go of an array of its own once it names it no
more, so addresses are taken of arguments and of what is returned.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_BYTE = ir.IntType(8)
_HALF = ir.IntType(32)
_WORD = ir.IntType(64)


def _pointer(builder: Any, address: Any, pointee: ir.Type) -> Any:
    return builder.inttoptr(address, pointee.as_pointer())


@intrinsic
def byte_at(context: Any, address: Any) -> Any:  # noqa: ARG001 - numba's signature
    """Return the byte at an address as a number."""

    def generate(_: Any, builder: Any, __: Any, args: Any) -> Any:
        return builder.zext(builder.load(_pointer(builder, args[0], _BYTE)), _WORD)

    return types.int64(types.int64), generate


@intrinsic
def half_at(context: Any, address: Any) -> Any:  # noqa: ARG001 - numba's signature
    """Return the four bytes at an address, wherever it lies, as a number in the machine's order, not negative."""

    def generate(_: Any, builder: Any, __: Any, args: Any) -> Any:
        return builder.zext(builder.load(_pointer(builder, args[0], _HALF), align=1), _WORD)

    return types.int64(types.int64), generate


@intrinsic
def word_at(context: Any, address: Any) -> Any:  # noqa: ARG001 - numba's signature
    """Return the eight bytes at an address, wherever it lies, as a number in the machine's order."""

    def generate(_: Any, builder: Any, __: Any, args: Any) -> Any:
        return builder.load(_pointer(builder, args[0], _WORD), align=1)

    return types.int64(types.int64), generate


@intrinsic
def put_byte(context: Any, address: Any, value: Any) -> Any:  # noqa: ARG001 - numba's signature
    """Write the low byte of a number."""

    def generate(_: Any, builder: Any, __: Any, args: Any) -> Any:
        builder.store(builder.trunc(args[1], _BYTE), _pointer(builder, args[0], _BYTE))

    return types.void(types.int64, types.int64), generate


@intrinsic
def put_word(context: Any, address: Any, value: Any) -> Any:  # noqa: ARG001 - numba's signature
    """Write a number as eight bytes, wherever they are to lie."""

    def generate(_: Any, builder: Any, __: Any, args: Any) -> Any:
        builder.store(args[1], _pointer(builder, args[0], _WORD), align=1)

    return types.void(types.int64, types.int64), generate
