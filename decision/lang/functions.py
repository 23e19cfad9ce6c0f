"""The functions of conditions: how each checks its arguments and what node it becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from decision.lang.calendar import load_zone, zone_names
from decision.lang.findings import Code, nearest
from decision.lang.instants import parse_instant
from decision.lang.limits import BUCKETS_MAX
from decision.lang.names import label_name
from decision.lang.syntax import (
    UTC,
    Call,
    DatePart,
    Expr,
    FunctionName,
    Literal,
    Now,
    PartName,
    Ref,
    Span,
    Zone,
)
from decision.lang.tree import Constant, Node, Path
from decision.lang.types import ELEMENTS, NUMBERS, ORDERED, coerce, is_null, type_name
from decision.schema import DType

if TYPE_CHECKING:
    from decision.lang.binder import Binder


@dataclass(frozen=True, slots=True)
class Binding:
    """One call to be bound."""

    binder: Binder
    name: str
    args: tuple[Node, ...]
    span: Span

    def counted(self, fewest: int, most: int | None, form: str) -> bool:
        """Whether the number of arguments is right; reports where not."""
        if fewest <= len(self.args) and (most is None or len(self.args) <= most):
            return True
        self.fail(Code.BAD_ARGUMENT, f"{self.name} does not take {len(self.args)} arguments", f"write {form}")
        return False

    def fail(self, code: Code, message: str, suggestion: str = "", span: Span | None = None) -> Expr | None:
        """Report a mistake; the None is what the call is bound to."""
        self.binder.report.add(code, message, span or self.span, suggestion)
        return None

    def call(self, args: list[Expr], dtype: DType) -> Call:
        return Call(function=cast("FunctionName", self.name), args=tuple(args), dtype=dtype, span=self.span)

    def span_of(self, index: int) -> Span:
        return self.binder.place.span(self.args[index].at)


def _now(call: Binding) -> Expr | None:
    return Now(span=call.span) if call.counted(0, 0, "now()") else None


def _epoch(call: Binding) -> Expr | None:
    if not call.counted(0, 0, "epoch()"):
        return None
    return Literal(value=0, dtype=DType.TIMESTAMP, span=call.span)


def _timestamp(call: Binding) -> Expr | None:
    form = 'timestamp("2026-11-23T00:00:00Z")'
    if not call.counted(1, 1, form):
        return None
    text = _text(call.args[0])
    instant_us = None if text is None else parse_instant(text)
    if instant_us is None:
        return call.fail(
            Code.BAD_ARGUMENT, "this is no RFC 3339 time with a zone", f"write {form}", call.span_of(0)
        )
    return Literal(value=instant_us, dtype=DType.TIMESTAMP, span=call.span)


def _coalesce(call: Binding) -> Expr | None:
    if not call.counted(1, None, "coalesce(value, …)"):
        return None
    args = call.binder.common([call.binder.bind(arg) for arg in call.args], "coalesce")
    return None if args is None else call.call(args, args[0].dtype)


def _extreme(call: Binding) -> Expr | None:
    if not call.counted(1, None, f"{call.name}(value, …)"):
        return None
    args = call.binder.common([call.binder.bind(arg) for arg in call.args], call.name)
    if args is None:
        return None
    if args[0].dtype not in ORDERED and not is_null(args[0]):
        return call.fail(Code.TYPE_MISMATCH, f"{call.name} does not order {type_name(args[0].dtype)} values")
    return call.call(args, args[0].dtype)


def _rounding(call: Binding) -> Expr | None:
    return _of_number(call, NUMBERS)


def _abs(call: Binding) -> Expr | None:
    return _of_number(call, (*NUMBERS, DType.INTERVAL))


def _of_number(call: Binding, dtypes: tuple[DType, ...]) -> Expr | None:
    if not call.counted(1, 1, f"{call.name}(number)"):
        return None
    arg = call.binder.bind(call.args[0])
    if arg is None:
        return None
    if is_null(arg):
        arg = coerce(arg, DType.FLOAT64)
    if arg.dtype not in dtypes:
        return call.fail(
            Code.TYPE_MISMATCH, f"{call.name} does not take {type_name(arg.dtype)}", span=arg.span
        )
    return call.call([arg], arg.dtype)


def _contains(call: Binding) -> Expr | None:
    if not call.counted(2, 2, "contains(list, value)"):
        return None
    bound = call.binder.all(call.args)
    if bound is None:
        return None
    items, value = bound
    element = ELEMENTS.get(items.dtype)
    if element is None:
        hint = 'a text is searched with LIKE "%part%"' if items.dtype is DType.STRING else ""
        return call.fail(Code.TYPE_MISMATCH, f"contains takes a list, this is {type_name(items.dtype)}", hint)
    fitting = _element(element, value)
    if fitting is None:
        message = f"the list holds {type_name(element)}, this is {type_name(value.dtype)}"
        return call.fail(Code.TYPE_MISMATCH, message, span=value.span)
    return call.call([items, fitting], DType.BOOL)


def _element(element: DType, value: Expr) -> Expr | None:
    if value.dtype is element or is_null(value) or (element, value.dtype) == (DType.FLOAT64, DType.INT64):
        return coerce(value, element)
    return None


def _in_segment(call: Binding) -> Expr | None:
    name = segment_name(call.args[0]) if len(call.args) == 1 else None
    if name is None:
        return call.fail(
            Code.BAD_ARGUMENT, "in_segment takes a segment's name", "write in_segment(big_spender)"
        )
    view = call.binder.scope.segment_view(name, call.span_of(0))
    return None if view is None else Ref(name=f"{view}.{name}", dtype=DType.BOOL, span=call.span)


def _label(call: Binding) -> Expr | None:
    name = segment_name(call.args[0]) if len(call.args) == 1 else None
    if name is None:
        return call.fail(Code.BAD_ARGUMENT, "label takes a model's name", "write label(shop_intent)")
    labels = call.binder.scope.labels
    if labels is None:
        message = "a segment cannot read a label: that is told at each decision, not stored"
        return call.fail(Code.MIXED_ENTITIES, message, "use a rule")
    if name not in labels:
        message = f"there is no segmentation model `{name}`"
        return call.fail(Code.UNKNOWN_MODEL, message, nearest(name, labels), call.span_of(0))
    return Ref(name=label_name(name), dtype=DType.STRING, span=call.span)


def _bucket(call: Binding) -> Expr | None:
    form = 'bucket(customer, "salt", 100)'
    if not call.counted(3, 3, form):
        return None
    unit = call.binder.bind(call.args[0])
    salt, count = (_literal(arg) for arg in call.args[1:])
    if not isinstance(salt, str) or type(count) is not int or not 1 <= count <= BUCKETS_MAX:
        message = f"bucket takes a quoted salt and a number of buckets from 1 to {BUCKETS_MAX}"
        return call.fail(Code.BAD_ARGUMENT, message, f"write {form}")
    if unit is None:
        return None
    if unit.dtype not in (DType.STRING, DType.INT64):
        return call.fail(Code.TYPE_MISMATCH, "bucket splits by text or int64", f"write {form}", unit.span)
    constants = [Literal(value=salt, dtype=DType.STRING), Literal(value=count, dtype=DType.INT64)]
    return call.call([unit, *constants], DType.INT64)


def _date_part(call: Binding) -> Expr | None:
    if not call.counted(1, 2, f'{call.name}(time, "Europe/Berlin")'):
        return None
    operand = call.binder.typed(call.args[0], DType.TIMESTAMP, call.name)
    zone = UTC if len(call.args) == 1 else _zone(call)
    if operand is None or zone is None:
        return None
    return DatePart(part=cast("PartName", call.name), operand=operand, zone=zone, span=call.span)


def _zone(call: Binding) -> Zone | None:
    name = _text(call.args[1])
    zone = None if name is None else load_zone(name)
    if zone is None:
        hint = nearest(name or "", zone_names()) or 'write an IANA name such as "Europe/Berlin"'
        call.fail(Code.UNKNOWN_ZONE, "this is no time zone", hint, call.span_of(1))
    return zone


def _literal(node: Node) -> object:
    return node.value if isinstance(node, Constant) else None


def _text(node: Node) -> str | None:
    value = _literal(node)
    return value if isinstance(value, str) else None


def segment_name(node: Node) -> str | None:
    """The segment's name that `in_segment` is given, with or without quotes, or None."""
    if isinstance(node, Path) and len(node.parts) == 1:
        return node.parts[0]
    return _text(node)


FUNCTIONS: Final[dict[str, Callable[[Binding], Expr | None]]] = {
    "now": _now,
    "epoch": _epoch,
    "timestamp": _timestamp,
    "coalesce": _coalesce,
    "least": _extreme,
    "greatest": _extreme,
    "round": _rounding,
    "floor": _rounding,
    "abs": _abs,
    "contains": _contains,
    "in_segment": _in_segment,
    "label": _label,
    "bucket": _bucket,
    **dict.fromkeys(
        ("year", "month", "day", "weekday", "day_of_year", "hour", "minute", "second"), _date_part
    ),
}
