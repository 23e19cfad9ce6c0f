"""Distinct counts of many values: near enough, the same in any order, and of bounded size."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest

from decision.schema import Aggregation, Feature, ValueType, View
from streaming.windows.batch import Batch
from streaming.windows.distinct import hashes
from streaming.windows.distinct_kernels import BEFORE
from streaming.windows.errors import StateCorrupt, ValueRefused
from streaming.windows.plan import DISTINCT_EXACT_BELOW, WindowPlan
from streaming.windows.sets import read_set, set_chunks
from streaming.windows.state import CHUNK_BYTES, TileState, decode, encode
from streaming.windows.stream import apply
from streaming.windows.sweep import sweep
from tests.oracle.windows import distinct

HOP_US = 3_600_000_000
WIDTHS: dict[str, int | None] = {"day": 24, "week": 168, "ever": None}
ROWS = 20_000
SEEDS = 40


def counted(widths: dict[str, int | None]) -> WindowPlan:
    """Distinct pages over these windows."""
    return WindowPlan.compile(
        View(
            name="visited",
            join_keys=(),
            features=tuple(Feature(name=name, value_type=ValueType.INT64) for name in widths),
            aggregations=tuple(
                Aggregation(
                    feature=name,
                    column="page",
                    function="count_distinct",
                    window_s=None if hops is None else hops * 3_600,
                )
                for name, hops in widths.items()
            ),
            hop_s=3_600,
        )
    )


PLAN = counted(WIDTHS)


def visits(seed: int, pages: int, hours: int = 400) -> tuple[Batch, int]:
    """Pages that one entity saw in so many hours, and the hour after."""
    rng = np.random.default_rng(seed)
    at = rng.integers(0, hours * HOP_US, ROWS)
    page = rng.integers(0, pages, ROWS) * 1_000_003 + seed
    return Batch(np.zeros(ROWS, np.int64), at, (), {"page": page}), hours * HOP_US


def inside(batch: Batch, now_us: int, hops: int | None) -> list[int]:
    start_us = -1 if hops is None else now_us - hops * HOP_US
    return list(map(int, np.asarray(batch.columns["page"])[batch.event_us >= start_us]))


@pytest.mark.parametrize("pages", [40, 255, 256, 3_000, 15_000])
def test_many_values_are_counted_as_the_reference_counts_them(pages: int) -> None:
    """By the k smallest hashes of all values, of which the state keeps enough for every window."""
    batch, now_us = visits(1, pages)
    values = apply(PLAN, [TileState.empty(PLAN)], batch, now_us).values
    for name, hops in WIDTHS.items():
        held = inside(batch, now_us, hops)
        assert values[name] == [distinct(held, DISTINCT_EXACT_BELOW)]
        if len(set(held)) < DISTINCT_EXACT_BELOW:
            assert values[name] == [len(set(held))]


def test_error_is_as_stated() -> None:
    """Over seeds the relative error has no bias and the stated deviation, 1 / √(k − 2)."""
    errors = []
    for seed in range(SEEDS):
        batch, now_us = visits(seed, 15_000)
        values = apply(PLAN, [TileState.empty(PLAN)], batch, now_us).values
        errors += [
            float(values[name][0]) / len(set(inside(batch, now_us, hops))) - 1  # type: ignore[arg-type]
            for name, hops in WIDTHS.items()
        ]
    stated = 1 / math.sqrt(DISTINCT_EXACT_BELOW - 2)
    assert abs(np.mean(errors)) < 4 * stated / math.sqrt(len(errors))
    assert 0.7 * stated < np.std(errors) < 1.3 * stated


def test_state_is_small_and_does_not_depend_on_arrival() -> None:
    """About k (1 + ln(n / k)) hashes stay, in chunks of 2 KB; any cut and order gives the same bytes."""
    batch, now_us = visits(5, 15_000)
    whole = apply(PLAN, [TileState.empty(PLAN)], batch, now_us).states[0]
    order = np.random.default_rng(6).permutation(ROWS)
    state = TileState.empty(PLAN)
    for rows in np.array_split(order, 7):
        part = part_of(batch, rows)
        state = decode(PLAN, encode(PLAN, apply(PLAN, [state], part, now_us).states[0]))
    chunks = encode(PLAN, whole)
    assert encode(PLAN, state) == chunks
    assert all(len(data) <= CHUNK_BYTES for data in chunks.values())
    expected = DISTINCT_EXACT_BELOW * (1 + math.log(ROWS / DISTINCT_EXACT_BELOW))
    assert len(whole.sets[0]) // 16 < 1.2 * expected


def test_sweep_counts_as_the_stream_does() -> None:
    """At instants all over the history."""
    assert_swept_as_streamed(*visits(7, 3_000), instants=50)


def assert_swept_as_streamed(batch: Batch, now_us: int, instants: int) -> None:
    swept = sweep(PLAN, batch, 1, now_us)
    for row in range(0, len(swept), len(swept) // instants):
        at_us = int(swept.event_us[row])
        part = part_of(batch, np.flatnonzero(batch.event_us <= at_us))
        values = apply(PLAN, [TileState.empty(PLAN)], part, at_us).values
        assert values == {name: [column.to_list()[row]] for name, column in swept.columns.items()}


def ascending(count: int, hours: int) -> tuple[Batch, int]:
    """Values whose hashes ascend with their hours, as somebody may choose them who wants the set to grow."""
    values = np.arange(count, dtype=np.int64)
    order = np.argsort(hashes("page", values, np.ones(count, np.bool_)).view(np.uint64))
    at = np.arange(count, dtype=np.int64) * hours * HOP_US // count
    return Batch(np.zeros(count, np.int64), at, (), {"page": values[order]}), hours * HOP_US


def part_of(batch: Batch, rows: npt.NDArray[np.int64]) -> Batch:
    page = np.asarray(batch.columns["page"])[rows]
    return Batch(batch.entity[rows], batch.event_us[rows], (), {"page": page})


@pytest.mark.parametrize("widths", [WIDTHS, {"ever": None}, {"day": 24}])
def test_state_is_bounded_whatever_the_values_are(widths: dict[str, int | None]) -> None:
    """At most k hashes for each tile of the widest window and k from before, to the byte the same however they come."""
    plan = counted(widths)
    (told,) = plan.distincts
    batch, now_us = ascending(180_000, 600)
    most = told.most_entries(plan.distinct_exact_below)
    assert most == 256 * sum(
        1 if hops is None else hops + 1 for hops in [max_finite(widths), *forever(widths)]
    )
    state, sizes, counts = TileState.empty(plan), [], []
    cuts = np.linspace(0, len(batch), 21).astype(np.int64)
    for first, stop in itertools.pairwise(cuts):
        at_us = now_us if stop == len(batch) else int(batch.event_us[stop - 1])
        applied = apply(plan, [state], part_of(batch, np.arange(first, stop)), at_us)
        state = decode(plan, encode(plan, applied.states[0]))
        sizes.append(len(state.sets[0]) // 16)
        counts.append((at_us, applied.values))
    assert max(sizes) <= most
    assert max(sizes) > 0.9 * (most - 2 * 256)
    whole = apply(plan, [TileState.empty(plan)], batch, now_us).states[0]
    assert encode(plan, whole) == encode(plan, state)
    assert all(len(data) <= CHUNK_BYTES for data in encode(plan, whole).values())
    for at_us, values in counts[::5]:
        seen = part_of(batch, np.flatnonzero(batch.event_us <= at_us))
        hop_start = at_us // HOP_US * HOP_US
        for name, hops in widths.items():
            assert values[name] == [distinct(inside(seen, hop_start, hops), DISTINCT_EXACT_BELOW)]


def max_finite(widths: dict[str, int | None]) -> int:
    return max((hops for hops in widths.values() if hops is not None), default=-1)


def forever(widths: dict[str, int | None]) -> list[None]:
    return [None] if None in widths.values() else []


def test_a_sweep_counts_values_that_ascend_as_the_stream_does() -> None:
    """What it forgets on its way is what the stream forgets."""
    assert_swept_as_streamed(*ascending(30_000, 600), instants=12)


def test_a_set_from_before_is_read() -> None:
    """Chunks without the mark of what only all time covers, whose tiles go back for ever."""
    entries = np.array([[1, -5], [2, 480_000], [3, 7]], np.int64)
    chunks = set_chunks(b"", entries.tobytes())
    assert [data[0] for data in chunks.values()] == [1]
    assert read_set(chunks) == entries.tobytes()
    entries[0, 1] = BEFORE
    chunks = set_chunks(b"", entries.tobytes())
    assert [data[0] for data in chunks.values()] == [2]
    assert read_set(chunks) == entries.tobytes()


def test_a_new_value_changes_one_chunk() -> None:
    """Of a large set, most is not written again."""
    rng = np.random.default_rng(8)
    entries = np.empty((1_500, 2), np.int64)
    entries[:, 0] = np.sort(rng.integers(0, 2**64, 1_500, np.uint64)).view(np.int64)
    entries[:, 1] = rng.integers(400_000, 400_900, 1_500)
    before = set_chunks(b"", entries.tobytes())
    entries[700, 1] = 400_899
    after = set_chunks(b"", entries.tobytes())
    assert len(before) > 8
    assert sum(before[name] != data for name, data in after.items()) == 1
    assert read_set(after) == entries.tobytes()


def rows(values: list[object]) -> Batch:
    """A column of one entity at one time."""
    none = np.zeros(len(values), np.int64)
    return Batch(none, none, (), {"page": values})


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ([1, 1.0, True, np.int32(1)], 1),
        ([0.0, -0.0, None, math.nan], 1),
        (["a", b"a", "a", "é", "e\u0301"], 4),
        ([0.5, 1.5, 2**53, -(2**63), 2**63 - 1], 5),
        (["\ud800", ""], 2),
        ([None, None], 0),
    ],
)
def test_values_that_are_equal_count_once(values: list[object], count: int) -> None:
    """Numbers by what they are worth, texts by their code points; NULL and NaN do not count."""
    applied = apply(PLAN, [TileState.empty(PLAN)], rows(values), 0)
    assert applied.values == {name: [count] for name in WIDTHS}


@pytest.mark.parametrize("value", [[1], {"a": 1}, object()])
def test_a_value_of_no_one_form_is_refused(value: object) -> None:
    """Lists and objects are named with their row."""
    with pytest.raises(ValueRefused, match="column 'page', row 1"):
        apply(PLAN, [TileState.empty(PLAN)], rows(["a", value]), 0)


def test_damaged_sets_are_refused() -> None:
    """Chunks cut anywhere, lengthened, or of a set that the view has not."""
    batch, now_us = visits(1, 3_000)
    chunks = encode(PLAN, apply(PLAN, [TileState.empty(PLAN)], batch, now_us).states[0])
    names = [name for name in chunks if name.startswith(b"w:visited:d")]
    assert len(names) > 5
    rng = np.random.default_rng(5)
    for name in names:
        for damaged in (chunks[name][: rng.integers(len(chunks[name]))], chunks[name] + b"\0"):
            with pytest.raises(StateCorrupt):
                decode(PLAN, chunks | {name: damaged})
    with pytest.raises(StateCorrupt, match="no set 7"):
        decode(PLAN, chunks | {b"w:visited:d7.0:0": chunks[names[0]]})
