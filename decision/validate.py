"""Checks a request against its placement before anything is read for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from decision.errors import (
    ContextTypeError,
    InvalidRequestError,
    LimitError,
    UnknownCandidateError,
    UnknownContextError,
    nearest,
)
from decision.plan import PlacementPlan, typed_key
from decision.record import Request
from decision.schema import DType, Scalar, Value

MAX_CANDIDATES: Final = 1000
MAX_LIST: Final = 1000
_INT64: Final = range(-(1 << 63), 1 << 63)
_ELEMENTS: Final[Mapping[DType, DType]] = {
    DType.BOOL_LIST: DType.BOOL,
    DType.INT64_LIST: DType.INT64,
    DType.FLOAT64_LIST: DType.FLOAT64,
    DType.STRING_LIST: DType.STRING,
    DType.TIMESTAMP_LIST: DType.TIMESTAMP,
}


def check_request(request: Request, plan: PlacementPlan) -> Request:
    """The request with its context typed and its candidates in file order, each once, and a limit.

    Raises:
        InvalidRequestError: Naming the field at fault and the nearest valid name.
    """
    typed_key(request.customer_id, plan.customer_key_type)
    context, candidates = request.context, request.candidates
    return Request(
        request.placement,
        request.customer_id,
        {name: _typed(name, context[name], plan) for name in sorted(context)} if context else context,
        _candidates(candidates, plan) if candidates else candidates,
        _limit(request.limit, plan.placement.limit),
    )


def _candidates(names: tuple[str, ...], plan: PlacementPlan) -> tuple[str, ...]:
    if len(names) > MAX_CANDIDATES:
        raise InvalidRequestError("candidates", f"at most {MAX_CANDIDATES}, not {len(names)}")
    for index, name in enumerate(names):
        if name not in plan.offer_plans:
            message = f"no offer {name!r} at placement {plan.name!r}"
            raise UnknownCandidateError(f"candidates[{index}]", message, nearest(name, plan.offer_names))
    wanted = frozenset(names)
    return tuple(name for name in plan.offer_names if name in wanted)


def _limit(limit: int, most: int) -> int:
    if not 0 <= limit <= most:
        raise LimitError("limit", f"must be from 1 to {most}, or 0 for {most}; it is {limit}")
    return limit or most


def _typed(name: str, value: Value, plan: PlacementPlan) -> Value:
    field = f"context.{name}"
    dtype = plan.context.get(name)
    if dtype is None:
        message = f"placement {plan.name!r} declares no context {name!r}"
        raise UnknownContextError(field, message, nearest(name, plan.context))
    try:
        return _convert(value, dtype)
    except TypeError:
        raise ContextTypeError(field, f"must be {dtype}, not {value!r:.80}") from None


def _convert(value: Value, dtype: DType) -> Value:
    if value is None:
        return None
    element = _ELEMENTS.get(dtype)
    if element is None:
        return _scalar(value, dtype)
    if not isinstance(value, tuple) or len(value) > MAX_LIST:
        raise TypeError
    return tuple(_element(item, element) for item in value)


def _element(value: Scalar, dtype: DType) -> Scalar:
    item = _scalar(value, dtype)
    if item is None:
        raise TypeError
    return item


def _scalar(value: Value, dtype: DType) -> Scalar | None:
    """An integer is welcome where a float is declared; a NaN is NULL."""
    match dtype, value:
        case DType.BOOL, bool():
            return value
        case _, bool():
            raise TypeError
        case ((DType.INT64 | DType.TIMESTAMP), int()) if value in _INT64:
            return value
        case DType.FLOAT64, int() if value in _INT64:
            return float(value)
        case DType.FLOAT64, float():
            return None if math.isnan(value) else value
        case DType.STRING, str():
            return value
        case _:
            raise TypeError
