"""The compiled program's own edges: inputs, bounds and sharing."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from decision.errors import FrameError
from decision.lang.interpreter import evaluate
from decision.lang.syntax import Compare, In, Literal, Ref
from decision.program import Numbers, Program, TextCodes, texts
from decision.program.kernels import bucket_of
from decision.schema import DType, Value
from tests.support.lang_world import expression

TRUTHS: dict[Value, int] = {True: 1, False: 0, None: -1}


def compile_texts(*conditions: str) -> Program:
    return Program.compile([expression(text) for text in conditions])


@pytest.mark.parametrize("value", [0, 7, -1, 10, 99, 100, 2**63 - 1, -(2**63), -(10**18)])
@pytest.mark.parametrize("salt", ["", "s", "sälty", "x" * 60, "y" * 200])
def test_bucket_kernel_is_sha256(value: int, salt: str) -> None:
    """The kernel's hash of an int64 is hashlib's, over one block of SHA-256 and over several."""
    data = salt.encode()
    digest = hashlib.sha256(data + b"\0" + str(value).encode()).digest()
    code = np.array([len(data), *data], np.int64)
    code.setflags(write=False)
    assert bucket_of(value, 1_000_003, code, 0) == int.from_bytes(digest[:8], "big") % 1_000_003


def test_equal_comparisons_are_evaluated_once() -> None:
    """Conditions that share a comparison share its register, also where it is spelt another way."""
    program = compile_texts("v.i < 5 AND v.b", "4 >= v.i OR v.c", "NOT v.i > 4")
    bits = {program.bits[expression(text)] for text in ("v.i < 5", "4 >= v.i", "NOT v.i > 4")}
    assert len(bits) == 1


def test_parts_tell_which_comparison_held() -> None:
    """The bits beside the conditions' own say what became of each comparison."""
    program = compile_texts("v.i > 1 AND v.s LIKE 'a%'")
    parts = program.run({"v.i": 2, "v.s": "b"}, 0).parts[0]
    held = {
        text: int(parts[bit // 64] >> np.uint64(bit % 64)) & 1
        for text in ("v.i > 1", "v.s LIKE 'a%'")
        for bit in [program.bits[expression(text)]]
    }
    assert held == {"v.i > 1": 1, "v.s LIKE 'a%'": 0}


def test_texts_that_no_rule_names_compare_by_content() -> None:
    """Two features of the same unheard-of text are equal, of two different ones not."""
    program = compile_texts("v.s = v.z")
    rows = [{"v.s": f"new {i}", "v.z": f"new {i // 2 * 2}"} for i in range(100)]
    assert program.run(rows, 0).truth[:, 0].tolist() == [i % 2 == 0 for i in range(100)]


def test_texts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of ever new texts start new generations and stay right."""
    monkeypatch.setattr(texts, "TEXTS_MAX", 50)
    program = compile_texts("v.s = 'text 7' OR v.s LIKE '%9'")
    for start in range(0, 1_000, 20):
        rows = [{"v.s": f"text {i}"} for i in range(start, start + 20)]
        expected = [i == 7 or i % 10 == 9 for i in range(start, start + 20)]
        assert program.run(rows, 0).truth[:, 0].tolist() == expected
        assert len(program._texts._current) <= 50 + 20 + 1


def test_a_held_frame_survives_a_new_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame encoded before a new generation keeps its own codes."""
    monkeypatch.setattr(texts, "TEXTS_MAX", 3)
    program = compile_texts("v.s LIKE 'b%'")
    frame = program.encode([{"v.s": "banana"}])
    for i in range(50):
        program.run({"v.s": f"other {i}"}, 0)
    assert program.evaluate(frame, 0).truth.tolist() == [[1]]


def test_columns_of_arrays_span_blocks() -> None:
    """Arrays, nulls and dictionary codes over many blocks give what rows give."""
    program = compile_texts(
        "v.x > 0.5 AND v.i % 3 = 1", "v.s = 'a' OR v.b", "v.s LIKE '%b' AND hour(v.t) < 6"
    )
    rng = np.random.default_rng(1)
    count = 40_000
    columns: dict[str, Numbers | TextCodes] = {
        "v.x": Numbers(values=rng.random(count), nulls=rng.random(count) < 0.1),
        "v.i": Numbers(values=rng.integers(-9, 9, count)),
        "v.s": TextCodes(codes=rng.integers(-1, 3, count), texts=("a", "ab", "b")),
        "v.b": Numbers(values=rng.random(count) < 0.5, nulls=rng.random(count) < 0.1),
        "v.t": Numbers(values=rng.integers(0, 10**15, count)),
    }
    found = program.run_columns(columns, count, 0).truth
    for i in [*range(0, count, 997), count - 1]:
        row: dict[str, Value] = {}
        for name, column in columns.items():
            if isinstance(column, TextCodes):
                row[name] = None if column.codes[i] < 0 else column.texts[column.codes[i]]
            else:
                missing = column.nulls is not None and column.nulls[i]
                row[name] = None if missing else column.values[i].item()
        assert found[i].tolist() == [TRUTHS[evaluate(expr, row, 0)] for expr in program.expressions]


def test_values_of_another_type_are_refused() -> None:
    """A value that its declared type cannot hold is named, not bent."""
    program = compile_texts("v.i > 1", "v.s = 'a'")
    wrong: list[dict[str, Value]] = [{"v.i": "one"}, {"v.i": 1.5}, {"v.i": 2**63}, {"v.s": 3}]
    for row in wrong:
        with pytest.raises(FrameError, match=next(iter(row))):
            program.run(row, 0)
    with pytest.raises(FrameError, match="2 rows"):
        program.run_columns({"v.i": [1]}, 2, 0)


def test_columns_of_another_kind_are_refused() -> None:
    """Arrays that would be read as something else are named, not read."""
    program = compile_texts("v.i > 1", "v.s = 'a'", "v.b")
    numbers, codes = np.array([1, 2]), np.array([0, 1])
    for name, column in (
        ("v.s", Numbers(values=numbers)),
        ("v.i", Numbers(values=numbers / 2)),
        ("v.b", Numbers(values=numbers)),
        ("v.i", TextCodes(codes=codes, texts=("a", "b"))),
        ("v.s", TextCodes(codes=codes, texts=("a",))),
    ):
        with pytest.raises(FrameError, match=name):
            program.run_columns({name: column}, 2, 0)


def test_nothing_to_do_is_no_error() -> None:
    """No conditions, no rows, constants alone."""
    assert Program.compile([]).run({}, 0).truth.shape == (1, 0)
    assert compile_texts("v.i > 1").run([], 0).truth.shape == (0, 1)
    assert compile_texts("TRUE", "NULL").run([{}, {}], 0).truth.tolist() == [[1, -1], [1, -1]]


def test_only_conditions_are_compiled() -> None:
    """An expression of another type is refused with its place."""
    with pytest.raises(ValueError, match="not a condition"):
        Program.compile([Ref(name="v.i", dtype=DType.INT64)])


def test_long_in_lists_look_items_up() -> None:
    """Ten thousand items of each type are found and missed."""
    items = tuple(Literal(value=f"item {i}", dtype=DType.STRING) for i in range(10_000))
    numbers = tuple(Literal(value=3 * i, dtype=DType.INT64) for i in range(10_000))
    program = Program.compile(
        [
            In(operand=Ref(name="v.s", dtype=DType.STRING), items=items),
            In(operand=Ref(name="v.i", dtype=DType.INT64), items=numbers),
            Compare(op="=", left=Ref(name="v.s", dtype=DType.STRING), right=items[9_999]),
        ]
    )
    assert program.run({"v.s": "item 9999", "v.i": 29_997}, 0).truth.tolist() == [[1, 1, 1]]
    assert program.run({"v.s": "item", "v.i": 29_998}, 0).truth.tolist() == [[0, 0, 0]]
