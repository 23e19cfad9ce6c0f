"""Other engines of rules behind one call: a row in, for every rule whether it holds out.

Each gets the form in which it is fastest with these rules: one compiled expression that lists all conditions, where
it has such a thing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from decision.schema import Value
from loadtest.bench.measure import installed
from loadtest.bench.workload import CEL, PYTHON, RULE_ENGINE, ZEN, Rule, texts

Scope = Mapping[str, Value]
Run = Callable[[], object]
Fired = Callable[[Any], list[bool]]
"""What of a rival's answer counts as a rule that holds."""


class Rival:
    """One engine with rules compiled and a row to run them on.

    Attributes:
        run: The call that is timed.
    """

    def __init__(self, run: Run, fired: Fired = list) -> None:
        self.run = run
        self._fired = fired

    def fired(self) -> list[bool]:
        """Which rules hold."""
        return self._fired(self.run())


def eval_each(rules: Sequence[Rule], scope: Scope) -> Rival:
    """CPython's `eval`, one code object a rule."""
    codes = [compile(text, "rule", "eval") for text in texts(rules, PYTHON)]
    names: dict[str, Any] = {"__builtins__": {}, **scope}
    return Rival(lambda: [eval(code, names) for code in codes])  # noqa: S307 - made above


def eval_list(rules: Sequence[Rule], scope: Scope) -> Rival:
    """CPython's `eval` of one code object that lists all rules."""
    code = compile(_listed(texts(rules, PYTHON)), "rules", "eval")
    names: dict[str, Any] = {"__builtins__": {}, **scope}
    return Rival(lambda: eval(code, names))  # noqa: S307 - made above


def zen_list(rules: Sequence[Rule], scope: Scope) -> Rival:
    """ZEN, one compiled expression that lists all rules."""
    import zen

    expression, names = zen.compile_expression(_listed(texts(rules, ZEN))), dict(scope)
    return Rival(lambda: expression.evaluate(names))


def zen_each(rules: Sequence[Rule], scope: Scope) -> Rival:
    """ZEN, one compiled expression a rule."""
    import zen

    expressions, names = [zen.compile_expression(text) for text in texts(rules, ZEN)], dict(scope)
    return Rival(lambda: [expression.evaluate(names) for expression in expressions])


def zen_table(rules: Sequence[Rule], scope: Scope) -> Rival:
    """ZEN's decision table with a row a rule and a cell a term; all rows that hold are collected."""
    import zen

    width = max(len(rule.terms(ZEN)) for rule in rules)
    columns = [f"c{i}" for i in range(width)]
    rows = [
        {"_id": f"r{place}", "o": str(place), **dict.fromkeys(columns, ""), **_cells(rule)}
        for place, rule in enumerate(rules)
    ]
    content = {
        "hitPolicy": "collect",
        "inputs": [{"id": column, "name": column, "type": "expression"} for column in columns],
        "outputs": [{"id": "o", "name": "rule", "field": "rule", "type": "expression"}],
        "rules": rows,
    }
    graph = {
        "nodes": [
            {"id": "in", "type": "inputNode", "name": "in"},
            {"id": "table", "type": "decisionTableNode", "name": "table", "content": content},
            {"id": "out", "type": "outputNode", "name": "out"},
        ],
        "edges": [
            {"id": "e0", "type": "edge", "sourceId": "in", "targetId": "table"},
            {"id": "e1", "type": "edge", "sourceId": "table", "targetId": "out"},
        ],
    }
    decision, names = zen.ZenEngine().create_decision(json.dumps(graph)), dict(scope)

    def fired(answer: Any) -> list[bool]:
        places = {item["rule"] for item in answer["result"]}
        return [place in places for place in range(len(rules))]

    return Rival(lambda: decision.evaluate(names), fired)


def _cells(rule: Rule) -> dict[str, str]:
    return {f"c{i}": term for i, term in enumerate(rule.terms(ZEN))}


def cel_list(rules: Sequence[Rule], scope: Scope) -> Rival:
    """CEL in Rust (`common-expression-language`), one program that lists all rules."""
    import cel

    program, names = cel.compile(_listed(texts(rules, CEL))), dict(scope)
    return Rival(lambda: program.execute(names))


def rule_engine_each(rules: Sequence[Rule], scope: Scope) -> Rival:
    """`rule-engine`, one rule each: its lists are slower."""
    import rule_engine

    compiled, names = [rule_engine.Rule(text) for text in texts(rules, RULE_ENGINE)], dict(scope)
    return Rival(lambda: [rule.matches(names) for rule in compiled])


def _listed(conditions: Sequence[str]) -> str:
    return f"[{', '.join(conditions)}]"


MAKERS: Final[dict[str, tuple[str, Callable[[Sequence[Rule], Scope], Rival]]]] = {
    "eval": ("builtins", eval_list),
    "eval_each": ("builtins", eval_each),
    "zen_table": ("zen", zen_table),
    "zen_expr": ("zen", zen_list),
    "zen_each": ("zen", zen_each),
    "cel": ("cel", cel_list),
    "rule_engine": ("rule_engine", rule_engine_each),
}
"""Rivals by their name in the results, with the module that each needs."""


def make_rivals(rules: Sequence[Rule], scope: Scope) -> dict[str, Rival]:
    """Those rivals that are installed."""
    return {name: make(rules, scope) for name, (module, make) in MAKERS.items() if installed(module)}


def absent() -> list[str]:
    """Rivals that are not installed."""
    return [name for name, (module, _) in MAKERS.items() if not installed(module)]
