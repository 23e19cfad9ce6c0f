"""The smallest change that would have made an offer eligible, verified by deciding again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from decision.bundle import Bundle
from decision.frame import Block, Frame, Layout
from decision.lang.names import labelled
from decision.lang.syntax import Expr, Ref, references, walk
from decision.plan import CONTEXT, PlacementPlan
from decision.program.verdicts import comparisons
from decision.record import Request
from decision.schema import DType, FeatureRef, Status, Value, ValueType
from decision.weigh import Weighing, weigh
from decision.whynot.grounds import Grounds
from decision.whynot.options import Options, Row, options_for
from decision.whynot.search import CHANGES_MAX, Found, search


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One input with what it would have to be.

    Attributes:
        name: Canonical name.
        such_as: Any other text that the policy does not name would do as well.
    """

    name: str
    dtype: DType
    before: Value
    after: Value
    such_as: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """The smallest change, or none.

    Attributes:
        changes: Inputs to change, in the order of the placement's `changeable`; empty where none was found.
        place: The offer's place in the answer after them, from 1; None where better offers would leave it out.
        exact: No change of fewer inputs would do, nor, where none was found, any of up to three.
        note: What is to be said of the search; empty where it is exact and found something.
    """

    changes: tuple[Change, ...] = ()
    place: int | None = None
    exact: bool
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One decision, as it was made."""

    bundle: Bundle
    plan: PlacementPlan
    request: Request
    frame: Frame
    now_us: int
    seed: int
    skip_scoring: bool


def nearest_change(case: Case, offer: str, *, requested: bool, row: Row) -> Nearest:
    """Find the fewest changed inputs that make an offer eligible.

    Args:
        case: The decision; its request is checked.
        offer: An offer that was considered and is not eligible.
        requested: Whether it competes without any rule's doing.
        row: The values that its conditions read.
    """
    grounds = Grounds.of(case.plan, case.bundle.catalog, offer, requested=requested, now_us=case.now_us)
    names = case.plan.placement.changeable
    inputs = _inputs(case, grounds.conditions, frozenset(names), row)
    inputs.sort(key=lambda item: names.index(item.ref.name))
    if _moves_labels(case.plan, grounds.conditions, frozenset(names)):
        inputs = [replace(item, exact=False) for item in inputs]
    if not inputs:
        where = "is declared changeable" if not names else f"of {case.plan.name} that may change"
        return Nearest(exact=True, note=f"none found: no input that keeps it out {where}")
    usable = [item for item in inputs if item.options]
    found = search(grounds, usable, row, case.now_us)
    after = _again(case, offer, {item.ref.name: option.value for item, option in found.changes})
    if found.changes and not after.assessment.standings[offer].eligible:
        found = replace(found, changes=())
    return _answer(found, inputs, _place(after, offer, case.request.limit) if found.changes else None)


def _moves_labels(plan: PlacementPlan, conditions: Iterable[Expr], changeable: frozenset[str]) -> bool:
    """Whether a change may move a model segment that the conditions read: comparisons do not show where."""
    read = {labelled(name) for condition in conditions for name in references(condition)}
    features = (label.handle.features for label in plan.labels if label.handle and label.model in read)
    return any(str(ref) in changeable for refs in features for ref in refs)


def _inputs(case: Case, conditions: Iterable[Expr], changeable: frozenset[str], row: Row) -> list[Options]:
    """What to try for each changeable input that a comparison reads."""
    reading: dict[Ref, dict[Expr, None]] = {}
    for part in (part for condition in conditions for part in comparisons(condition)):
        for ref in {node for node in walk(part) if isinstance(node, Ref) and node.name in changeable}:
            reading.setdefault(ref, {})[part] = None
    return [
        options_for(ref, _value_type(case, ref.name), tuple(parts), changeable, row, case.now_us)
        for ref, parts in reading.items()
    ]


def _value_type(case: Case, name: str) -> ValueType | None:
    view, _, feature = name.partition(".")
    if view == CONTEXT:
        return None
    return case.bundle.catalog.feature(FeatureRef(view=view, feature=feature)).value_type


def _again(case: Case, offer: str, changes: Mapping[str, Value]) -> Weighing:
    """Decide on the changed inputs."""
    context = {name.partition(".")[2]: value for name, value in changes.items() if _is_context(name)}
    request = case.request._replace(context={**case.request.context, **context})
    customer = {name: value for name, value in changes.items() if name in case.plan.customer_layout.place}
    candidate = {name: value for name, value in changes.items() if name in case.plan.candidate_layout.place}
    frame = Frame(
        customer=_written(
            case.frame.customer, case.frame.customer.rows[0], case.plan.customer_layout, customer
        ),
        candidates=_written(case.frame.candidates, offer, case.plan.candidate_layout, candidate),
    )
    return weigh(
        request, frame, case.plan, now_us=case.now_us, seed=case.seed, skip_scoring=case.skip_scoring
    )


def _is_context(name: str) -> bool:
    return name.startswith(f"{CONTEXT}.")


def _written(block: Block, row: str, layout: Layout, values: Mapping[str, Value]) -> Block:
    """The block with other values in one row; a column or row that it lacks is added."""
    if not values:
        return block
    rows = block.rows if row in block.rows else (*block.rows, row)
    names = tuple(dict.fromkeys((*block.layout.names, *values)))
    cells = {name: _column(block, name, rows) for name in names}
    place = rows.index(row)
    for name, value in values.items():
        column, statuses, _ = cells[name]
        column[place] = value
        statuses[place] = int(Status.NULL if value is None else Status.PRESENT)
    dtypes = dict(
        zip((*layout.names, *block.layout.names), (*layout.dtypes, *block.layout.dtypes), strict=True)
    )
    columns = cells.values()
    return Block.of(
        Layout.of((name, dtypes[name]) for name in names),
        rows,
        [column for column, _, _ in columns],
        [statuses for _, statuses, _ in columns],
        [times for _, _, times in columns],
    )


def _column(block: Block, name: str, rows: Sequence[str]) -> tuple[list[Value], list[int], list[int]]:
    """Values, statuses and event times of a column, filled up for rows that the block lacks."""
    more = len(rows) - len(block.rows)
    at = block.layout.place.get(name)
    missing = [int(Status.NOT_FOUND)]
    if at is None:
        return [None] * len(rows), missing * len(rows), [0] * len(rows)
    values = next(column for place, column in enumerate(block.values()) if place == at)
    times = block.event_us[block.layout.view_of[at]].tolist()
    return values + [None] * more, block.statuses[at].tolist() + missing * more, times + [0] * more


def _place(after: Weighing, offer: str, limit: int) -> int | None:
    shown = after.ranking.order[:limit]
    return shown.index(offer) + 1 if offer in shown else None


def _answer(found: Found, inputs: Sequence[Options], place: int | None) -> Nearest:
    changes = tuple(
        Change(
            name=item.ref.name,
            dtype=item.ref.dtype,
            before=item.before,
            after=option.value,
            such_as=option.such_as,
        )
        for item, option in found.changes
    )
    inexact = [item.ref.name for item in inputs if not item.exact]
    tried = len(changes) if changes else CHANGES_MAX
    bounded = found.finished_count < tried
    notes = []
    if not changes:
        notes.append(f"none found: no change of up to {found.finished_count} of {len(inputs)} inputs does")
    if bounded:
        notes.append(f"the search ended at its bound, in the middle of changes of {found.finished_count + 1}")
    if inexact:
        notes.append(
            f"not every value of {', '.join(inexact)} was tried: other inputs decide there too, or too many values"
        )
    exact = not inexact and (found.finished_count >= tried - bool(changes))
    return Nearest(changes=changes, place=place, exact=exact, note="; ".join(notes))
