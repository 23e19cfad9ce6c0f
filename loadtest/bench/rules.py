"""The rule program against CPython's `eval` on one row, and against DuckDB on history, all measured in one run."""

from __future__ import annotations

import importlib.util
import os
import platform
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import numba
import numpy as np
import pyarrow as pa

from decision.lang import logic, parser
from decision.lang.bound import KEPT
from decision.lang.compiler import compile_expression, compile_policy
from decision.lang.syntax import Expr
from decision.program import Numbers, Program, TextCodes, warm
from decision.schema import Catalog, Feature, JoinKey, Value, ValueType, View

NUMBERS, TEXTS, TIMES = 40, 15, 5
NOW_US: Final = 1_780_000_000_000_000
MINUTE_US: Final = 60_000_000
RULES: Final = 1_000
MANY_RULES: Final = 10_000
HISTORY_ROWS: Final = 1_400_000
BUDGET_S: Final = 2.0
"""Wall time spent on each pair of measurements."""
BLOCK: Final = 20
"""Calls of one in a row, as a server makes them."""
FEWEST, MOST = 5, 3_000
RIVALS: Final = {"zen": "zen", "cel": "cel", "rule-engine": "rule_engine"}
"""Rivals that the lock does not hold, by module; a column of one that is absent is null."""

CATALOG: Final = Catalog(
    project="bench",
    views=(
        View(
            name="v",
            join_keys=(JoinKey(name="customer_id", value_type=ValueType.STRING),),
            features=tuple(
                Feature(name=f"{prefix}{i}", value_type=kind)
                for prefix, count, kind in (
                    ("n", NUMBERS, ValueType.DOUBLE),
                    ("s", TEXTS, ValueType.STRING),
                    ("t", TIMES, ValueType.UNIX_TIMESTAMP),
                )
                for i in range(count)
            ),
        ),
    ),
)
HISTORY_CONDITION: Final = "v.n0 > 50.0 AND (v.s0 = 'word 3' OR v.n1 < 20.0) AND NOT v.n2 > 90.0"
HISTORY_SQL: Final = "n0 > 50.0 AND (s0 = 'word 3' OR n1 < 20.0) AND NOT n2 > 90.0"


@dataclass(frozen=True, slots=True)
class Atom:
    """One comparison as Waypost reads it and as Python does; Python's is true exactly where Waypost's is TRUE."""

    ours: str
    python: str


def run() -> dict[str, Any]:
    """Measure everything.

    Returns:
        Medians in µs of 1,000 rules on one row, from decoded row to masks (`waypost_us_p50`, `eval_us_p50`, and null
        for rivals that are not installed); cost per rule at 1,000 and 10,000 rules; compile times in ms with one rule
        changed and with empty caches; `string_us`, an unseen text against every pattern; one condition over 1.4
        million rows against DuckDB with one thread; the environment.
    """
    warm()
    parser._lark()  # noqa: SLF001 - the grammar is built once per process, not once per policy
    rules = _rules(RULES)
    compile_times = _compile_times([rule.ours for rule in rules])
    few = _measure_row(rules)
    many = _measure_row(_rules(MANY_RULES))
    return {
        "waypost_us_p50": few["us_p50"],
        "waypost_us_p99": few["us_p99"],
        "eval_us_p50": few["eval_us_p50"],
        "zen_table_us_p50": None,
        "zen_expr_us_p50": None,
        "cel_us_p50": None,
        "ratio_vs_zen": None,
        "ratio_vs_eval": round(few["eval_us_p50"] / few["us_p50"], 1),
        "rivals_absent": [
            name for name, module in RIVALS.items() if importlib.util.find_spec(module) is None
        ],
        "same_rules_fired": few["same"] and many["same"],
        "per_rule_ns_1000": round(few["us_p50"] * 1e3 / RULES, 2),
        "per_rule_ns_10000": round(many["us_p50"] * 1e3 / MANY_RULES, 2),
        **compile_times,
        "string_us": few["string_us"],
        "encode_us_p50": few["encode_us_p50"],
        "history": _measure_history(),
        "environment": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "numba": numba.__version__,
            "duckdb": duckdb.__version__,
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),
        },
    }


def _rules(count: int) -> list[Atom]:
    """Pairwise different conditions of three comparisons; a third has OR or NOT."""
    draw = random.Random(7)
    return [_rule(draw) for _ in range(count)]


def _rule(draw: random.Random) -> Atom:
    a, b, c = (_atom(draw) for _ in range(3))
    if draw.random() < 2 / 3:
        return Atom(f"{a.ours} AND {b.ours} AND {c.ours}", f"{a.python} and {b.python} and {c.python}")
    if draw.random() < 0.5:
        return Atom(f"{a.ours} AND ({b.ours} OR {c.ours})", f"{a.python} and ({b.python} or {c.python})")
    limit, name = draw.random() * 100, f"n{draw.randrange(NUMBERS)}"
    negated = Atom(f"NOT v.{name} > {limit!r}", f"({name} is not None and not {name} > {limit!r})")
    return Atom(
        f"{a.ours} AND {b.ours} AND {negated.ours}", f"{a.python} and {b.python} and {negated.python}"
    )


def _atom(draw: random.Random) -> Atom:
    """60 % numbers, 20 % texts by = and IN, 10 % LIKE, 10 % time."""
    kind = draw.random()
    if kind < 0.6:
        name, op, limit = (
            f"n{draw.randrange(NUMBERS)}",
            draw.choice(["<", "<=", ">", ">="]),
            draw.random() * 100,
        )
        return Atom(f"v.{name} {op} {limit!r}", f"({name} is not None and {name} {op} {limit!r})")
    name = f"s{draw.randrange(TEXTS)}"
    words = [f"word {draw.randrange(400)}" for _ in range(3)]
    if kind < 0.7:
        return Atom(f'v.{name} = "{words[0]}"', f"{name} == {words[0]!r}")
    if kind < 0.8:
        listed = ", ".join(f'"{word}"' for word in words)
        return Atom(f"v.{name} IN ({listed})", f"{name} in {set(words)!r}")
    if kind < 0.9:
        part = str(draw.randrange(400))
        return Atom(f'v.{name} LIKE "%{part}%"', f"({name} is not None and {part!r} in {name})")
    name, minutes = f"t{draw.randrange(TIMES)}", draw.randrange(1, 2_000)
    python = f"({name} is not None and {name} > now - {minutes * MINUTE_US})"
    return Atom(f"v.{name} > now() - {minutes} minutes", python)


def _row() -> dict[str, Value]:
    """A row with a tenth of its values missing."""
    draw = random.Random(3)
    row: dict[str, Value] = {f"n{i}": draw.random() * 100 for i in range(NUMBERS)}
    row |= {f"s{i}": f"word {draw.randrange(400)}" for i in range(TEXTS)}
    row |= {f"t{i}": NOW_US - draw.randrange(2_000) * MINUTE_US for i in range(TIMES)}
    return {name: None if draw.random() < 0.1 else value for name, value in row.items()}


def _expressions(conditions: Sequence[str]) -> list[Expr]:
    bound = [compile_expression(text, CATALOG)[0] for text in conditions]
    return [expr for expr in bound if expr is not None]


def _measure_row(rules: Sequence[Atom]) -> dict[str, Any]:
    program = Program.compile(_expressions([rule.ours for rule in rules]))
    codes = [compile(rule.python, "rule", "eval") for rule in rules]
    row = _row()
    named = {f"v.{name}": value for name, value in row.items()}
    frame = program.encode([named])
    scope: dict[str, Any] = {"__builtins__": {}, **row, "now": NOW_US}

    def ours() -> object:
        return program.evaluate(frame, NOW_US)

    def python() -> list[bool]:
        return [eval(code, scope) for code in codes]  # noqa: S307 - the rival; its texts are made above

    our_us, eval_us = _time_in_turn(ours, python)
    unseen = iter(range(10**9))
    generation = program._texts.generation()  # noqa: SLF001 - resolving a text is measured by itself
    string_us = [
        _elapsed_ns(lambda: generation.code(f"unseen word {next(unseen)}")) / 1e3 for _ in range(500)
    ]
    encode_us = [_elapsed_ns(lambda: program.encode([named])) / 1e3 for _ in range(200)]
    return {
        "us_p50": round(float(np.median(our_us)), 2),
        "us_p99": round(float(np.percentile(our_us, 99)), 2),
        "eval_us_p50": round(float(np.median(eval_us)), 2),
        "string_us": round(float(np.median(string_us)), 2),
        "encode_us_p50": round(float(np.median(encode_us)), 2),
        "same": (program.evaluate(frame, NOW_US).truth[0] == 1).tolist() == python(),
    }


def _compile_times(conditions: Sequence[str]) -> dict[str, float]:
    """From policy text to program: with empty caches, then with one rule changed, also one that moves all below it."""
    rules = [f'rule r{i} on p:\n  IF {text}\n  THEN boost("a", 1.5)\n' for i, text in enumerate(conditions)]
    head = "placement p: candidates a\noffer a:\n"

    def build() -> None:
        policy = compile_policy({"bench.policy": head + "".join(rules)}, CATALOG).policy
        if policy is None:
            raise RuntimeError("the policy of the measurement does not compile")
        Program.compile([rule.condition for rule in policy.rules])

    cold = [_cold(build) for _ in range(3)]
    changed = []
    for turn in range(5):
        rules[500] = f'rule changed on p:\n  IF v.n0 > {turn}\n  THEN boost("a", 1.5)\n'
        changed.append(_elapsed_ns(build) / 1e6)
    rules[1] += "\n"
    return {
        "compile_ms": round(float(np.median(changed)), 1),
        "compile_moved_ms": round(_elapsed_ns(build) / 1e6, 1),
        "compile_cold_ms": round(float(np.median(cold)), 1),
    }


def _cold(build: Callable[[], None]) -> float:
    for kept in (parser.parse_declaration, logic.alternatives, logic.can_hold, logic.can_fail):
        kept.cache_clear()
    KEPT.clear()
    return _elapsed_ns(build) / 1e6


def _measure_history() -> dict[str, float | bool]:
    """One condition over columns in memory, DuckDB's in a table of its own."""
    rng = np.random.default_rng(5)
    numbers = {f"n{i}": rng.random(HISTORY_ROWS) * 100 for i in range(3)}
    nulls = {name: rng.random(HISTORY_ROWS) < 0.1 for name in numbers}
    codes = rng.integers(-1, 40, HISTORY_ROWS)
    words = tuple(f"word {i}" for i in range(40))
    columns: dict[str, Numbers | TextCodes] = {
        f"v.{name}": Numbers(values=values, nulls=nulls[name]) for name, values in numbers.items()
    }
    columns["v.s0"] = TextCodes(codes=codes, texts=words)
    program = Program.compile(_expressions([HISTORY_CONDITION]))
    with duckdb.connect(config={"threads": 1}) as connection:
        _fill(connection, numbers, nulls, codes, words)

        def ours() -> int:
            return int((program.run_columns(columns, HISTORY_ROWS, NOW_US).registers == 2).sum())

        def theirs() -> int:
            found = connection.execute(f"SELECT count(*) FROM history WHERE {HISTORY_SQL}").fetchone()  # noqa: S608
            return int(found[0]) if found else 0

        our_us, duckdb_us = _time_in_turn(ours, theirs, block=1)
        same = ours() == theirs()
    ours_ms, duckdb_ms = float(np.median(our_us)) / 1e3, float(np.median(duckdb_us)) / 1e3
    return {
        "rows": HISTORY_ROWS,
        "waypost_ms_p50": round(ours_ms, 1),
        "duckdb_ms_p50": round(duckdb_ms, 1),
        "ratio": round(ours_ms / duckdb_ms, 2),
        "same": same,
    }


def _fill(connection: Any, numbers: Any, nulls: Any, codes: Any, words: Sequence[str]) -> None:
    masked = {name: pa.array(values, mask=nulls[name]) for name, values in numbers.items()}
    texts = pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), pa.array(words)).cast(pa.string())
    connection.register("arrow", pa.table({**masked, "s0": texts}))
    connection.execute("CREATE TABLE history AS SELECT * FROM arrow")


def _time_in_turn(
    first: Callable[[], object], second: Callable[[], object], block: int = BLOCK
) -> tuple[list[float], list[float]]:
    """Times in µs of both calls, alternating in short blocks, so that a busy moment of the machine meets both."""
    first()
    second()
    times: tuple[list[float], list[float]] = ([], [])
    stop = time.perf_counter() + BUDGET_S
    while len(times[0]) < FEWEST or (time.perf_counter() < stop and len(times[0]) < MOST):
        for call, into in zip((first, second), times, strict=True):
            into.extend(_elapsed_ns(call) / 1e3 for _ in range(block))
    return times


def _elapsed_ns(call: Callable[[], object]) -> int:
    started = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - started
