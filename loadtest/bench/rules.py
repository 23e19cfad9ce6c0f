"""The rule program against other engines of rules on one row, and against DuckDB on history, all in one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa

from decision.lang.compiler import compile_expression, compile_policy, forget
from decision.lang.lalr import load_tables
from decision.lang.syntax import Expr
from decision.program import Numbers, Program, TextCodes, warm
from decision.sql import SETTINGS, to_sql
from loadtest.bench import rivals
from loadtest.bench.measure import cell, elapsed_ns, environment, in_turn
from loadtest.bench.workload import CATALOG, NOW_US, WAYPOST, Rule, make_row, make_rules, texts
from server.measurement import Bound, Report, Results, Table, Tell

RULES: Final = 1_000
MANY_RULES: Final = 10_000
HISTORY_ROWS: Final = 1_400_000
BUDGET_S: Final = 12.0
"""Wall time spent on the rivals in turn."""
HISTORY_CONDITION: Final = "v.n0 > 50.0 AND (v.s0 = 'word 3' OR v.n1 < 20.0) AND NOT v.n2 > 90.0"

COLUMNS: Final = {f"v.{name}": name for name in ("n0", "n1", "n2", "s0")}

NAMES: Final = {
    "waypost": "Waypost",
    "eval": "CPython `eval`, one list",
    "eval_each": "CPython `eval`, rule by rule",
    "zen_expr": "ZEN expressions, one list",
    "zen_each": "ZEN expressions, rule by rule",
    "zen_table": "ZEN decision table",
    "cel": "CEL (Rust), one list",
    "rule_engine": "rule-engine",
}
"""What is compared, as tables call it, by its name in the results."""


def run(tell: Tell) -> Results:
    """Measure everything.

    Returns:
        Medians and p99 in µs of 1,000 rules on one row, from the decoded row to the bitmask, of ours and every rival
        (`waypost_us_p50`, `zen_table_us_p50`, …; null for one that is not installed), `ratio_vs_zen` to the better of
        ZEN's table and expressions and `ratio_vs_eval`; `same_rules_fired` by rival; cost per rule at 1,000 and 10,000
        rules; compile times in ms with one rule changed and with empty caches; `string_us`, an unseen text against
        every pattern; one condition over 1.4 million rows against DuckDB with one thread; `environment`.
    """
    warm()
    load_tables()
    rules = make_rules(RULES)
    tell(f"compiling {RULES} rules")
    compile_times = _compile_times(texts(rules, WAYPOST))
    tell(f"{RULES} rules on one row, ours and the rivals' in turn")
    few = _measure_row(rules)
    tell(f"{MANY_RULES} rules on one row")
    many = _measure_many(make_rules(MANY_RULES))
    tell(f"one condition over {HISTORY_ROWS} rows, ours and DuckDB's in turn")
    history = _measure_history()
    return {
        **few,
        "per_rule_ns_1000": round(few["waypost_us_p50"] * 1e3 / RULES, 2),
        "per_rule_ns_10000": round(many * 1e3 / MANY_RULES, 2),
        **compile_times,
        "history": history,
        "environment": environment(
            "numpy", "numba", "duckdb", "zen-engine", "common-expression-language", "rule-engine"
        ),
    }


def report(results: Results) -> Report:
    """Rivals on one row, what compiling takes, and history."""
    ours = results["waypost_us_p50"]
    rows = tuple(
        (
            f"{called}",
            cell(results[f"{name}_us_p50"]),
            cell(results[f"{name}_us_p99"]),
            cell(results[f"{name}_us_p50"] and results[f"{name}_us_p50"] / ours, " ×"),
            {True: "yes", False: "NO", None: "–"}[results["same_rules_fired"].get(name)],
        )
        for name, called in NAMES.items()
    )
    history = results["history"]
    more = (
        ("per rule, 1,000 rules", cell(results["per_rule_ns_1000"], " ns")),
        ("per rule, 10,000 rules", cell(results["per_rule_ns_10000"], " ns")),
        ("a row of Python values into registers", cell(results["encode_us_p50"], " µs")),
        ("a text never seen before, against every pattern", cell(results["string_us"], " µs")),
        ("compile 1,000 rules, one of them changed", cell(results["compile_ms"], " ms")),
        ("the same, the change moves the lines below it", cell(results["compile_moved_ms"], " ms")),
        ("compile 1,000 rules for the first time", cell(results["compile_cold_ms"], " ms")),
        (f"one condition over {history['rows']:,} rows", cell(history["waypost_ms_p50"], " ms")),
        ("DuckDB, one thread, the generated SQL", cell(history["duckdb_ms_p50"], " ms")),
    )
    head = ("engine", "µs p50", "µs p99", "÷ Waypost", "same rules fired")
    return Report(
        tables=(
            Table("1,000 rules of three conditions on one row", head, rows),
            Table("Compiling, scaling and history", ("what", "takes"), more),
        ),
        bounds=_bounds(results),
        notes=_notes(results),
    )


def _bounds(results: Results) -> tuple[Bound, ...]:
    few, many = results["per_rule_ns_1000"], results["per_rule_ns_10000"]
    return (
        Bound("1,000 rules on one row", results["waypost_us_p50"], 12, " µs"),
        Bound("the better of ZEN's ÷ Waypost", results["ratio_vs_zen"], 40, " ×", at_most=False),
        Bound("CPython eval ÷ Waypost", results["ratio_vs_eval"], 10, " ×", at_most=False),
        Bound("per rule at 10,000 rules, as at 1,000", many, few, " ns"),
        Bound("compile, one rule changed", results["compile_ms"], 200, " ms"),
        Bound("compile, one changed and lines moved", results["compile_moved_ms"], 200, " ms"),
        Bound("compile, cold", results["compile_cold_ms"], 1000, " ms"),
        Bound("history, Waypost ÷ DuckDB", results["history"]["ratio"], 2, " ×"),
    )


def _notes(results: Results) -> tuple[str, ...]:
    missing = [NAMES[name] for name in results["rivals_absent"]]
    if not missing:
        return ()
    return (f"Not installed, so not measured: {', '.join(missing)}; the extra `bench` has them.",)


def expressions(conditions: Sequence[str]) -> list[Expr]:
    """Conditions of the workload, bound."""
    bound = [compile_expression(text, CATALOG)[0] for text in conditions]
    return [expr for expr in bound if expr is not None]


def _measure_row(rules: Sequence[Rule]) -> dict[str, Any]:
    program = Program.compile(expressions(texts(rules, WAYPOST)))
    row = make_row()
    named = {f"v.{name}": value for name, value in row.items()}
    frame = program.encode([named])
    others = rivals.make_rivals(rules, {**row, "now": NOW_US})
    ours = (program.evaluate(frame, NOW_US).truth[0] == 1).tolist()
    same = {name: rival.fired() == ours for name, rival in others.items()}
    calls: dict[str, Callable[[], object]] = {"waypost": lambda: program.evaluate(frame, NOW_US)}
    times = in_turn({**calls, **{name: rival.run for name, rival in others.items()}}, budget_s=BUDGET_S)
    p50 = {name: times[name].p50 if name in times else None for name in NAMES}
    zen = [us for name, us in p50.items() if us is not None and name.startswith("zen")]
    return {
        **{f"{name}_us_p50": us for name, us in p50.items()},
        **{f"{name}_us_p99": times[name].p99 if name in times else None for name in NAMES},
        "ratio_vs_zen": round(min(zen) / times["waypost"].p50, 1) if zen else None,
        "ratio_vs_eval": round(min(times["eval"].p50, times["eval_each"].p50) / times["waypost"].p50, 1),
        "same_rules_fired": same,
        "rivals_absent": rivals.absent(),
        "string_us": _string_us(program),
        "encode_us_p50": in_turn({"encode": lambda: program.encode([named])}, budget_s=0.5)["encode"].p50,
    }


def _measure_many(rules: Sequence[Rule]) -> float:
    program = Program.compile(expressions(texts(rules, WAYPOST)))
    frame = program.encode([{f"v.{name}": value for name, value in make_row().items()}])
    return in_turn({"many": lambda: program.evaluate(frame, NOW_US)})["many"].p50


def _string_us(program: Program) -> float:
    unseen = iter(range(10**9))
    generation = program._texts.generation()  # noqa: SLF001 - resolving a text is measured by itself
    taken = [elapsed_ns(lambda: generation.code(f"unseen word {next(unseen)}")) / 1e3 for _ in range(500)]
    return round(float(np.median(taken)), 2)


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
    changed, moved = [], []
    for turn in range(5):
        rules[500] = f'rule changed on p:\n  IF v.n0 > {turn}\n  THEN boost("a", 1.5)\n'
        changed.append(elapsed_ns(build) / 1e6)
        rules[1] += "\n"
        moved.append(elapsed_ns(build) / 1e6)
    return {
        "compile_ms": round(float(np.median(changed)), 1),
        "compile_moved_ms": round(float(np.median(moved)), 1),
        "compile_cold_ms": round(float(np.median(cold)), 1),
    }


def _cold(build: Callable[[], None]) -> float:
    forget()
    return elapsed_ns(build) / 1e6


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
    (condition,) = expressions([HISTORY_CONDITION])
    program = Program.compile([condition])
    with duckdb.connect(config={"threads": 1}) as connection:
        for setting in SETTINGS:
            connection.execute(setting)
        _fill(connection, numbers, nulls, codes, words)

        def ours() -> int:
            return int((program.run_columns(columns, HISTORY_ROWS, NOW_US).registers == 2).sum())

        query = f"SELECT count(*) FROM history WHERE {to_sql(condition, COLUMNS)}"  # noqa: S608 - generated

        def theirs() -> int:
            found = connection.execute(query).fetchone()
            return int(found[0]) if found else 0

        times = in_turn({"ours": ours, "duckdb": theirs}, budget_s=4.0)
        same = ours() == theirs()
    return {
        "rows": HISTORY_ROWS,
        "waypost_ms_p50": round(times["ours"].p50 / 1e3, 1),
        "duckdb_ms_p50": round(times["duckdb"].p50 / 1e3, 1),
        "ratio": round(times["ours"].p50 / times["duckdb"].p50, 2),
        "same": same,
    }


def _fill(connection: Any, numbers: Any, nulls: Any, codes: Any, words: Sequence[str]) -> None:
    masked = {name: pa.array(values, mask=nulls[name]) for name, values in numbers.items()}
    texts = pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), pa.array(words)).cast(pa.string())
    connection.register("arrow", pa.table({**masked, "s0": texts}))
    connection.execute("CREATE TABLE history AS SELECT * FROM arrow")
