"""What windows refuse, and how the refusal reads."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from decision.schema import Aggregation, Feature, ValueType, View
from streaming.windows.batch import Batch
from streaming.windows.errors import PlanError, StateCorrupt, SumOverflow, ValueRefused
from streaming.windows.kernels import fixed_from_floats
from streaming.windows.plan import WindowPlan
from streaming.windows.state import TileState, decode, encode
from streaming.windows.stream import apply
from streaming.windows.sweep import sweep
from streaming.windows.warm import warm

V = ValueType
DAY_S = 86_400


def view_of(*rows: tuple[str, str, str, int | None, ValueType], hop_s: int = 3600) -> View:
    return View(
        name="spend",
        join_keys=(),
        features=tuple(Feature(name=name, value_type=kind) for name, _, _, _, kind in rows),
        aggregations=tuple(
            Aggregation(feature=name, column=column, function=function, window_s=window_s)
            for name, column, function, window_s, _ in rows
        ),
        hop_s=hop_s,
    )


def batch_of(*xs: float | str | None, at: int = 0) -> Batch:
    times = np.full(len(xs), at, dtype=np.int64)
    return Batch(np.zeros(len(xs), dtype=np.int64), times, [f"e{i}" for i in range(len(xs))], {"x": list(xs)})


def test_windows_plan_lists_every_problem() -> None:
    """One error names all that is wrong with a view."""
    view = view_of(
        ("a", "x", "median", DAY_S, V.DOUBLE),
        ("b", "x", "sum", 5000, V.DOUBLE),
        ("c", "x", "sum", DAY_S, V.STRING),
        ("d", "*", "max", DAY_S, V.DOUBLE),
        ("e", "x", "last_k(1000)", None, V.STRING_LIST),
        ("f", "x", "last", None, V.STRING_LIST),
        ("g", "x", "count", 10**9 * 3600, V.INT64),
        ("g", "x", "count", DAY_S, V.INT64),
    )
    with pytest.raises(PlanError) as error:
        WindowPlan.compile(view)
    text = str(error.value)
    for part in (
        "'median' is not one of sum, count",
        "5000 s is not a multiple of the hop of 3600 s",
        "sum cannot be a STRING",
        "max needs a column",
        "k of last_k is 1000",
        "last cannot be a STRING_LIST",
        "use a larger hop",
        "'g' is computed twice",
    ):
        assert part in text
    assert len(error.value.problems) == 8


def test_windows_plan_needs_schema_and_hop() -> None:
    """A feature outside of the schema and a window without a hop are named."""
    view = View(
        name="v",
        join_keys=(),
        features=(Feature(name="a", value_type=V.INT64),),
        aggregations=(
            Aggregation(feature="a", column="*", function="count", window_s=60),
            Aggregation(feature="ghost", column="*", function="count", window_s=60),
        ),
    )
    with pytest.raises(PlanError, match=r"needs a hop.*'ghost' is not in the view's schema"):
        WindowPlan.compile(view)


def test_windows_plan_shares_partials() -> None:
    """Windows over one column and function share slots; last needs none."""
    plan = WindowPlan.compile(
        view_of(
            ("s1", "x", "sum", DAY_S, V.DOUBLE),
            ("s7", "x", "sum", 7 * DAY_S, V.DOUBLE),
            ("m7", "x", "mean", 7 * DAY_S, V.DOUBLE),
            ("c7", "x", "count", 7 * DAY_S, V.INT64),
            ("l7", "y", "last", 7 * DAY_S, V.STRING),
        )
    )
    assert len(plan.slots) == 2
    assert plan.columns == ("x", "y")
    assert plan.windows.tolist() == [24, 168]


@pytest.mark.parametrize("window_s", [DAY_S, None])
def test_windows_sum_overflow_is_refused(window_s: int | None) -> None:
    """A sum past int64 names its feature, in the stream and in the sweep, and leaves the state alone."""
    plan = WindowPlan.compile(view_of(("total", "x", "sum", window_s, V.DOUBLE)))
    state = TileState.empty(plan)
    for _ in range(2):
        with pytest.raises(SumOverflow, match=r"spend\.total"):
            apply(plan, [state], batch_of(9e12, 9e12), 0)
    with pytest.raises(OverflowError):
        sweep(plan, batch_of(-9e12, -9e12), 1, 0)
    fine = apply(plan, [state], batch_of(9e12), 0)
    with pytest.raises(SumOverflow):
        apply(plan, fine.states, batch_of(9e12, at=3_600_000_000), 3_600_000_000)
    assert fine.values["total"] == [9e12]


@pytest.mark.parametrize(
    ("function", "kind", "bad"),
    [
        ("sum", V.DOUBLE, 1e13),
        ("sum", V.DOUBLE, math.inf),
        ("sum", V.DOUBLE, 10**13),
        ("sum", V.DOUBLE, "ten"),
        ("sum", V.INT64, 1.5),
        ("max", V.INT64, 1e30),
        ("max", V.DOUBLE, "ten"),
        ("max", V.INT64, 2**70),
        ("last", V.STRING, 5),
        ("last", V.BOOL, 2),
    ],
)
def test_windows_refuse_a_value_by_row(function: str, kind: ValueType, bad: float | str) -> None:
    """A value that does not fit is refused with its column and row."""
    plan = WindowPlan.compile(view_of(("f", "x", function, DAY_S, kind)))
    with pytest.raises(ValueRefused, match="column 'x', row 1") as error:
        apply(plan, [TileState.empty(plan)], batch_of(None, bad), 0)
    assert (error.value.column, error.value.row) == ("x", 1)


def test_windows_refuse_an_event_ahead_of_time() -> None:
    """Logical time never lies before an event."""
    plan = WindowPlan.compile(view_of(("c", "x", "count", DAY_S, V.INT64)))
    with pytest.raises(ValueRefused, match="event_time"):
        apply(plan, [TileState.empty(plan)], batch_of(1.0, at=2), 1)


def test_windows_infinities_have_extremes() -> None:
    """Infinity, extreme integers and negative zero are values like any other."""
    plan = WindowPlan.compile(
        view_of(("lo", "x", "min", DAY_S, V.DOUBLE), ("hi", "x", "max", DAY_S, V.DOUBLE), hop_s=60)
    )
    applied = apply(plan, [TileState.empty(plan)], batch_of(math.inf, -math.inf), 0)
    assert (applied.values["lo"], applied.values["hi"]) == ([-math.inf], [math.inf])
    zero = apply(plan, [TileState.empty(plan)], batch_of(0.0, -0.0), 0).values
    assert [math.copysign(1, x[0]) for x in (zero["lo"], zero["hi"])] == [-1, 1]  # type: ignore[arg-type]
    whole = WindowPlan.compile(view_of(("lo", "x", "min", DAY_S, V.INT64), ("hi", "x", "max", None, V.INT64)))
    ends = (2**63 - 1, -(2**63))
    for end in ends:
        state = apply(whole, [TileState.empty(whole)], batch_of(end), 0).states[0]
        again = apply(whole, [decode(whole, encode(whole, state))], Batch.empty(whole), 1)
        assert again.values == {"lo": [end], "hi": [end]}


@given(st.floats(min_value=-9.2e12, max_value=9.2e12))
@example(5e-7)
@example(2.5e-6)
@example(0.1)
@example(4_503_599_627.3704955)
@example(9_007_199_254.740993)
@example(5e-324)
def test_windows_fixed_point_is_exact(x: float) -> None:
    """The product with 10⁶ is rounded half to even as a real number, not as a rounded product."""
    out = np.empty(1, dtype=np.int64)
    assert fixed_from_floats(np.array([x]), np.ones(1, dtype=np.uint8), out) == -1
    assert out[0] == round(Fraction(x) * 10**6)


@given(st.integers(-(2**40), 2**40))
@example(-4)
def test_windows_fixed_point_halves_go_to_even(numerator: int) -> None:
    """Near and at exact halves of 10⁻⁶, where a product in floats would round twice."""
    x = (2 * numerator + 1) / 2e6
    for near in (x, math.nextafter(x, math.inf), math.nextafter(x, -math.inf), (2 * numerator + 1) / 2**7):
        out = np.empty(1, dtype=np.int64)
        fixed_from_floats(np.array([near]), np.ones(1, dtype=np.uint8), out)
        assert out[0] == round(Fraction(near) * 10**6)


def test_windows_state_of_other_aggregations_is_refused() -> None:
    """Chunks say what layout they were written under."""
    one = WindowPlan.compile(view_of(("a", "x", "sum", DAY_S, V.DOUBLE)))
    two = WindowPlan.compile(view_of(("a", "x", "max", DAY_S, V.DOUBLE)))
    chunks = encode(one, apply(one, [TileState.empty(one)], batch_of(1.0), 0).states[0])
    with pytest.raises(StateCorrupt, match="other aggregations"):
        decode(two, chunks)


@given(st.data())
def test_windows_damaged_chunks_are_refused_or_read(data: st.DataObject) -> None:
    """Cut anywhere, a chunk is refused; nothing reads past its end."""
    plan = WindowPlan.compile(
        view_of(
            ("a", "x", "max", DAY_S, V.DOUBLE),
            ("f", "x", "first", DAY_S, V.DOUBLE),
            ("l", "x", "last", None, V.DOUBLE),
        )
    )
    state = apply(plan, [TileState.empty(plan)], batch_of(1.5, 2.5, at=7), 9).states[0]
    chunks = encode(plan, state)
    name = data.draw(st.sampled_from(sorted(chunks)))
    chunks[name] = chunks[name][: data.draw(st.integers(0, len(chunks[name]) - 1))]
    with pytest.raises(StateCorrupt):
        decode(plan, chunks)


def test_windows_state_with_a_damaged_text_is_refused() -> None:
    """Bytes that are no UTF-8 where a text was stored."""
    plan = WindowPlan.compile(view_of(("l", "x", "last", None, V.STRING)))
    chunks = encode(plan, apply(plan, [TileState.empty(plan)], batch_of("miłk"), 0).states[0])
    damaged = {name: chunk.replace("ł".encode(), b"\xff\xff") for name, chunk in chunks.items()}
    assert damaged != chunks
    with pytest.raises(StateCorrupt, match="not UTF-8"):
        decode(plan, damaged)


def test_windows_state_without_head_is_refused() -> None:
    """Tiles without their head chunk are not a state."""
    plan = WindowPlan.compile(view_of(("a", "x", "sum", DAY_S, V.DOUBLE)))
    chunks = encode(plan, apply(plan, [TileState.empty(plan)], batch_of(1.0), 0).states[0])
    del chunks[b"w:spend:h"]
    with pytest.raises(StateCorrupt, match="no head chunk"):
        decode(plan, chunks)
    assert decode(plan, {}).untouched


def test_windows_one_event_touches_two_chunks() -> None:
    """In a long history, a new event changes the head and the newest chunk only."""
    plan = WindowPlan.compile(view_of(("a", "x", "max", 4000 * 3600, V.DOUBLE)))
    at = np.arange(4000, dtype=np.int64) * 3_600_000_000
    batch = Batch(np.zeros(4000, dtype=np.int64), at, (), {"x": np.linspace(0.1, 9.7, 4000)})
    before = apply(plan, [TileState.empty(plan)], batch, int(at[-1]))
    after = apply(plan, before.states, batch_of(5.0, at=int(at[-1]) + 1), int(at[-1]) + 1)
    old, new = encode(plan, before.states[0]), encode(plan, after.states[0])
    assert len(old) > 20
    assert len([name for name in old | new if old.get(name) != new.get(name)]) == 2


def test_windows_warm_runs_every_kernel() -> None:
    """Warming takes a step, a sweep and a round trip, and leaves nothing behind."""
    warm()
