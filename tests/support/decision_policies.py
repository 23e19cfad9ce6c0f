"""Random policies: everything that can be declared, with conditions that come out TRUE, FALSE and NULL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast, get_args

from decision.lang.syntax import (
    NOWHERE,
    And,
    Arithmetic,
    Call,
    Case,
    Compare,
    CompareOp,
    DatePart,
    Expr,
    In,
    IsNull,
    Like,
    Literal,
    Not,
    Now,
    Or,
    Ref,
    ToFloat,
)
from decision.policy import (
    THOMPSON_MAX,
    Action,
    Boost,
    Cap,
    Exclude,
    Exploration,
    Explore,
    Include,
    Offer,
    Pin,
    Placement,
    Policy,
    Rule,
    Segment,
    Selector,
    Show,
    TagDecision,
)
from decision.schema import DType
from tests.support.decision_catalog import (
    CONTEXT,
    CUSTOMER_NAMES,
    DTYPES,
    HOUR_US,
    LABELS,
    NAMES,
    NOW_US,
    OFFER_NAMES,
    POOLS,
    SEGMENTS,
    TAGS,
    ref_of,
)
from tests.support.lang_exprs import ZONES

OPS: tuple[CompareOp, ...] = get_args(CompareOp)
ALWAYS = Not(operand=Compare(op="<", left=Now(), right=Literal(value=0, dtype=DType.TIMESTAMP)))
ANYWHERE = {**CUSTOMER_NAMES, **OFFER_NAMES}
ELSEWHERE = {**ANYWHERE, "context.elsewhere": DType.BOOL}
"""What an offer's condition may read: context of another placement too, which is NULL here."""
Names = Mapping[str, DType]


class Drawer:
    """Draws part by part from short lists; strategies nested as deep would take seconds to build."""

    def __init__(self, number: Callable[[int, int], int]) -> None:
        self.number = number

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.number(0, len(options) - 1)]

    def once_in(self, times: int) -> bool:
        return self.number(1, times) == times

    def some(self, options: Sequence[Any], least: int, most: int) -> tuple[Any, ...]:
        """Different ones, in any order."""
        left = list(options)
        count = min(self.number(least, most), len(left))
        return tuple(left.pop(self.number(0, len(left) - 1)) for _ in range(count))


class Conditions(Drawer):
    """Conditions over names of given types."""

    def condition(self, names: Names) -> Expr:
        """Comparisons, joined by AND, OR and NOT."""
        match self.number(0, 5):
            case 0 | 1:
                return self.leaf(names)
            case 2:
                return Not(operand=self.leaf(names))
            case 3:
                return And(operands=self._leaves(names, self.number(2, 3)))
            case 4:
                return Or(operands=self._leaves(names, self.number(2, 3)))
            case _:
                both = Or(operands=self._leaves(names, 2))
                return Not(operand=And(operands=(both, self.leaf(names))))

    def of_candidate(self) -> Expr:
        """A condition that surely reads the candidate."""
        own = self.condition(OFFER_NAMES)
        if self.once_in(2):
            return own
        return cast("Expr", self.pick([And, Or])(operands=(own, self.leaf(CUSTOMER_NAMES))))

    def _leaves(self, names: Names, count: int) -> tuple[Expr, ...]:
        return tuple(self.leaf(names) for _ in range(count))

    def leaf(self, names: Names) -> Expr:
        """One comparison about one of the names."""
        name = self.pick(sorted(names))
        dtype = names[name]
        ref = Ref(name=name, dtype=dtype)
        others = [
            Ref(name=each, dtype=dtype) for each in sorted(names) if names[each] is dtype and each != name
        ]
        match dtype:
            case DType.BOOL:
                return cast("Expr", self.pick([ref, IsNull(operand=ref)]))
            case DType.STRING_LIST:
                return Call(function="contains", args=(ref, self.literal(DType.STRING)), dtype=DType.BOOL)
            case DType.STRING:
                return self._about_text(ref, others)
            case DType.TIMESTAMP:
                return self._about_instant(ref)
            case _:
                return self._about_number(ref, others)

    def literal(self, dtype: DType) -> Expr:
        """A constant that text can say."""
        pool = [value for value in POOLS[dtype] if value == value and value not in UNSAID]  # noqa: PLR0124 - NaN
        return Literal(value=self.pick(pool), dtype=dtype)

    def _items(self, dtype: DType) -> tuple[Expr, ...]:
        null = Literal(value=None, dtype=dtype)
        return tuple(null if self.once_in(4) else self.literal(dtype) for _ in range(self.number(2, 4)))

    def _about_text(self, ref: Ref, others: list[Ref]) -> Expr:
        if ref.name.startswith("label("):
            return Compare(op="=", left=ref, right=Literal(value=self.pick(LABELS), dtype=DType.STRING))
        if ref.name == "context.customer":
            unit = (ref, Literal(value="salt", dtype=DType.STRING), Literal(value=4, dtype=DType.INT64))
            bucket = Call(function="bucket", args=unit, dtype=DType.INT64)
            place = Literal(value=self.number(0, 3), dtype=DType.INT64)
            return Compare(op="<=", left=bucket, right=place)
        shapes: list[Callable[[], Expr]] = [
            lambda: Compare(op=self.pick(["=", "<>"]), left=ref, right=self.literal(DType.STRING)),
            lambda: In(operand=ref, items=self._items(DType.STRING)),
            lambda: Like(operand=ref, pattern=self.pick(["b%", "%o", "_", "%e%", "a_"])),
            lambda: IsNull(operand=ref),
            lambda: Compare(op="=", left=ref, right=self.pick(others)),
        ]
        return cast("Expr", self.pick(shapes)())

    def _about_instant(self, ref: Ref) -> Expr:
        shapes: list[Callable[[], Expr]] = [
            lambda: Compare(op=self.pick(OPS), left=ref, right=self.literal(DType.TIMESTAMP)),
            lambda: Compare(op=self.pick(OPS), left=self._ago(), right=ref),
            lambda: Compare(
                op=self.pick(OPS),
                left=DatePart(part="hour", operand=ref, zone=self.pick(ZONES)),
                right=Literal(value=self.number(0, 23), dtype=DType.INT64),
            ),
            lambda: IsNull(operand=ref),
        ]
        return cast("Expr", self.pick(shapes)())

    def _ago(self) -> Expr:
        hours = Literal(value=self.pick([1, 2, 41]) * HOUR_US, dtype=DType.INTERVAL)
        return Arithmetic(op="-", left=Now(), right=hours, dtype=DType.TIMESTAMP)

    def _about_number(self, ref: Ref, others: list[Ref]) -> Expr:
        dtype = ref.dtype
        as_float: Expr = ref if dtype is DType.FLOAT64 else ToFloat(operand=ref)
        shapes: list[Callable[[], Expr]] = [
            lambda: Compare(op=self.pick(OPS), left=ref, right=self.literal(dtype)),
            lambda: Compare(op=self.pick(OPS), left=as_float, right=self.literal(DType.FLOAT64)),
            lambda: In(operand=ref, items=self._items(dtype)),
            lambda: IsNull(operand=ref),
            lambda: Compare(op=self.pick(OPS), left=self._step(ref), right=ref),
            lambda: Compare(op=self.pick(OPS), left=ref, right=self.pick(others)),
            lambda: Compare(
                op=self.pick(OPS),
                left=Arithmetic(op="+", left=ref, right=self.pick(others), dtype=dtype),
                right=self.literal(dtype),
            ),
        ]
        return cast("Expr", self.pick(shapes)())

    def _step(self, ref: Ref) -> Expr:
        below = Compare(op="<", left=ref, right=self.literal(ref.dtype))
        return Case(
            branches=((below, self.literal(ref.dtype)),), default=self.literal(ref.dtype), dtype=ref.dtype
        )


UNSAID = frozenset({float("inf"), float("-inf"), -(2**63)})
"""Values that have no constant."""


class Policies(Conditions):
    """Policies over some offers, each part as likely as it takes for all of them to meet."""

    def __init__(self, number: Callable[[int, int], int]) -> None:
        super().__init__(number)
        self.names: tuple[str, ...] = self.some(NAMES, 2, 6)

    def policy(self) -> Policy:
        """What is declared, its conditions as they are meant."""
        elsewhere = Placement(
            name="other",
            context={**CONTEXT, "elsewhere": DType.BOOL},
            candidates=(Selector(tag="x"),),
            span=NOWHERE,
        )
        return Policy(
            segments=_segments(),
            rules=(
                *(self._rule(number) for number in range(self.number(0, 5))),
                *(self._rivals() if self.once_in(3) else ()),
            ),
            offers=tuple(self._offer(name, whole=name == self.names[0]) for name in self.names),
            placements=(self._placement(), elsewhere),
            caps=tuple(self._cap(number) for number in range(self.number(0, 2))),
        )

    def _rule(self, number: int) -> Rule:
        per_candidate = self.once_in(2)
        condition = self.of_candidate() if per_candidate else self.condition(CUSTOMER_NAMES)
        if self.once_in(5):  # holds for everyone: rules meet more often than conditions would have them
            per_candidate, condition = False, ALWAYS
        limits = [None, None, None, NOW_US, NOW_US + 1, NOW_US - HOUR_US, NOW_US + HOUR_US]
        return Rule(
            name=f"r{number}",
            placement=self.pick(["home", "home", "home", "other"]),
            condition=condition,
            actions=self._actions(1, 3, per_candidate=per_candidate),
            otherwise=self._actions(0, 2, per_candidate=per_candidate),
            priority=self.pick([0, 0, 0, 1, 2, -1]),
            active_from_us=self.pick(limits),
            active_until_us=self.pick(limits),
            per_candidate=per_candidate,
            span=NOWHERE,
        )

    def _rivals(self) -> Iterator[Rule]:
        """Rules for everyone that want the same place, or one after the other, for several offers."""
        position, pins = self.number(1, 2), self.once_in(2)
        for name in self.some(self.names, 2, 3):
            yield Rule(
                name=f"for {name}",
                placement="home",
                condition=ALWAYS,
                actions=(Pin(offer=name, position=position) if pins else Show(offer=name),),
                priority=self.number(0, 2),
                span=NOWHERE,
            )

    def _actions(self, least: int, most: int, *, per_candidate: bool) -> tuple[Action, ...]:
        return tuple(self._action(per_candidate=per_candidate) for _ in range(self.number(least, most)))

    def _action(self, *, per_candidate: bool) -> Action:
        kinds: list[Callable[[], Action]] = [
            lambda: Boost(selector=self._target(per_candidate=per_candidate), factor=self.pick(FACTORS)),
            lambda: Boost(selector=self._target(per_candidate=per_candidate), factor=self.pick(FACTORS)),
            lambda: Show(offer=self.pick(self.names)),
            lambda: Pin(offer=self.pick(self.names), position=self.pick([1, 1, 2, 2, 3, 4])),
            lambda: Pin(offer=self.pick(self.names), position=self.pick([1, 1, 2, 2, 3, 4])),
            lambda: Include(selector=self._target(per_candidate=per_candidate)),
            lambda: Exclude(selector=self._target(per_candidate=per_candidate)),
            lambda: TagDecision(name=self.pick(["t", "ü", "holdout"])),
        ]
        return cast("Action", self.pick(kinds)())

    def _target(self, *, per_candidate: bool) -> Selector:
        return Selector() if per_candidate and self.once_in(2) else self._selector()

    def _selector(self) -> Selector:
        return Selector(offer=self.pick(self.names)) if self.once_in(2) else Selector(tag=self.pick(TAGS))

    def _offer(self, name: str, *, whole: bool) -> Offer:
        """An offer that is whole declares everything that conditions may read."""
        attributes = {"margin": self.pick([0.5, 1.5, 3.0]), "kind": self.pick(["a", "é"])}
        tags = [*self.some(TAGS, 0, 3), *([] if self.once_in(4) else ["all"])]
        readers = [lambda: None, lambda: self.condition(ELSEWHERE), lambda: self.condition(OFFER_NAMES)]
        return Offer(
            name=name,
            keys={} if not whole and self.once_in(6) else {"category": name},
            content={"title": name},
            attributes={key: value for key, value in attributes.items() if whole or not self.once_in(4)},
            tags=tuple(dict.fromkeys(tags)),
            value=self.pick([0.0, 0.5, 1.0, 1.0, 1.0, 2.0, 3.25, 1e300, 5e-324]),
            weight=self.pick([1.0, 1.0, 1.0, 0.9, 0.0, 1e10]),
            when=self.pick(readers)(),
            span=NOWHERE,
        )

    def _placement(self) -> Placement:
        everything = (Selector(tag="all"),)
        return Placement(
            name="home",
            context=CONTEXT,
            candidates=self.pick([everything, everything, self._listed()]),
            model=self.pick([None, None, "worth", "worth", "click", "wild", "gone"]),
            limit=self.pick([1, 3, 10, 10]),
            max_per_tag={tag: self.number(1, 3) for tag in self.some(TAGS, 0, 2)},
            fallback=self.some(self.names, 0, 3),
            explore=self._explore(),
            minimum_score=self.pick([None, None, None, 0.5, 1.0, -0.25]),
            span=NOWHERE,
        )

    def _listed(self) -> tuple[Selector, ...]:
        return tuple(dict.fromkeys(self._selector() for _ in range(self.number(0, 2))))

    def _explore(self) -> Explore:
        kind = self.pick(list(Exploration))
        match kind:
            case Exploration.NONE:
                return Explore()
            case Exploration.EPSILON_GREEDY:
                parameter = self.pick([0.1, 0.5, 0.9, 1.0])
            case Exploration.SOFTMAX:
                parameter = self.pick([0.05, 0.5, 1.0, 3.0, 1e3])
            case _:
                return self._thompson()
        return Explore(kind=kind, top_k=self.pick([1, 2, 2, 3, 8]), parameter=parameter)

    def _thompson(self) -> Explore:
        counts = self.pick(COUNTS)
        successes, failures = (None, None) if counts is None else map(ref_of, counts)
        return Explore(
            kind=Exploration.THOMPSON,
            top_k=self.pick([1, 2, 2, 3, THOMPSON_MAX]),
            prior=(self.pick(SHAPES), self.pick(SHAPES)),
            successes=successes,
            failures=failures,
        )

    def _cap(self, number: int) -> Cap:
        return Cap(
            name=f"c{number}",
            placement=self.pick([None, "home", "home", "other"]),
            limit=self.pick([0, 1, 2, 3, 5, 5]),
            window_s=7 * 86_400,
            selector=self.pick([None, self._selector()]),
            counter=ref_of(self.pick(COUNTERS)),
            span=NOWHERE,
        )


FACTORS = (0.5, 0.1, 1e-9, 1 / 3, 1.0, 1.5, 3.0, 1.1, 1e6)
SHAPES = (0.5, 1.0, 2.5, 20.0)
COUNTS = (
    None,
    ("affinity.clicks", "affinity.misses"),
    ("profile.age", "affinity.misses"),
    ("affinity.spend", "profile.spend"),
)
COUNTERS = ("affinity.shown", "affinity.shown", "profile.shown", "popularity.rank", "affinity.spend")


def _segments() -> tuple[Segment, ...]:
    return tuple(
        Segment(
            name=name,
            condition=IsNull(operand=Ref(name=reads, dtype=DTYPES[reads])),
            view=view,
            join_keys=(key,),
            span=NOWHERE,
        )
        for name, (view, key, reads) in SEGMENTS.items()
    )
