"""Wrong engines, one at a time: what the test of whole decisions must tell from the right one.

A mutant rewrites the text of one of the engine's functions. What is compiled runs as plain Python then, as do the
kernels that lead to it.
"""

from __future__ import annotations
import __future__

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from decision import assess, engine, kernels, planner, reasons, tables, weigh
from decision.planner import Planner
from decision.scoring import ScoringPlan


@dataclass(frozen=True)
class Mutant:
    """One function's text with something else in place of all that is `old` in it.

    Attributes:
        home: The module or class that the function is found in.
        through: The kernels that lead to the function, the one that is called from Python last.
        plans: Whether the bundle is built with it.
    """

    home: Any
    function: str
    old: str
    new: str
    through: tuple[str, ...] = ()
    plans: bool = False


_SETTLED: Final = "not flags[row] & (EXCLUDED | CAPPED) and flags[row] & (FITS | INCLUDED)"

MUTANTS: Final[dict[str, Mutant]] = {
    # rules
    "ELSE does not act on NULL": Mutant(
        kernels,
        "run_rules",
        "elif (request_truth[place, 0] == TRUE) == wanted",
        "elif request_truth[place, 0] == 2 * wanted",
    ),
    "ELSE does not act on a candidate's NULL": Mutant(
        kernels,
        "_hit_each",
        "(truth[place, row] == TRUE) == wanted",
        "truth[place, row] == 2 * wanted",
        ("run_rules",),
    ),
    "ELSE never acts": Mutant(planner.Planner, "_rule", "otherwise=acts[split:]", "otherwise=()", plans=True),
    "a rule acts at its end": Mutant(kernels, "run_rules", "now_us < rules", "now_us <= rules"),
    "a rule does not act at its beginning": Mutant(
        kernels, "run_rules", "rules[rule, 2] <= now_us", "rules[rule, 2] < now_us"
    ),
    "a tag by name is for every offer": Mutant(
        planner, "_selects", "selector.tag is None or selector.tag in offer.tags", "True", plans=True
    ),
    "a candidate that does not compete tags the decision": Mutant(
        kernels, "run_rules", " * uint8(flags[row] & COMPETES != 0)", ""
    ),
    "exclude is for all offers": Mutant(
        kernels,
        "run_rules",
        "flags[row] |= mine[row] * bit",
        "flags[row] |= (mine.max() if bit == EXCLUDED else mine[row]) * bit",
    ),
    # eligibility and caps
    "caps are ignored": Mutant(kernels, "settle", "(EXCLUDED | CAPPED)", "EXCLUDED"),
    "include overrides caps": Mutant(
        kernels, "settle", _SETTLED, "not flags[row] & EXCLUDED and flags[row] & INCLUDED or " + _SETTLED
    ),
    "include overrides exclude": Mutant(
        kernels, "settle", _SETTLED, "not flags[row] & CAPPED and flags[row] & INCLUDED or " + _SETTLED
    ),
    "show overrides an offer's own condition": Mutant(
        kernels, "settle", "(FITS | INCLUDED)", "(FITS | INCLUDED | SHOWN)"
    ),
    "include does not override an offer's own condition": Mutant(
        kernels, "settle", "(FITS | INCLUDED)", "FITS"
    ),
    "an offer's own condition holds if NULL": Mutant(
        kernels, "settle", "candidate_truth[place, row] == TRUE", "candidate_truth[place, row] > 0"
    ),
    "a cap lets one more through": Mutant(kernels, "settle", ">= caps[cap, 3]", "> caps[cap, 3]"),
    "a counter that is NULL reaches nothing": Mutant(
        kernels, "settle", "(0.0 if math.isnan(counted) else counted)", "counted"
    ),
    "caps of other placements count": Mutant(planner, "_is_on", "cap.placement is None", "True", plans=True),
    "a cap of some is for all": Mutant(
        Planner,
        "_cap",
        "_targets(cap.selector or Selector(), offers)",
        "_targets(Selector(), offers)",
        plans=True,
    ),
    "what is stale is NULL": Mutant(kernels, "number_at", "status != STALE", "True", ("settle",)),
    "candidates that are asked for come on top": Mutant(
        assess,
        "_requested",
        "flags = np.zeros(len(plan.offers), np.uint8)",
        "flags = plan.listed_flags.copy()",
    ),
    # scores
    "boosts are added": Mutant(
        kernels,
        "weigh_scores",
        "products[row] *= factor if hits[act, row] else 1.0",
        "products[row] += factor * hits[act, row]",
    ),
    "only boosts count that are not below 1": Mutant(
        kernels, "weigh_scores", "if factor != 1.0", "if factor > 1.0"
    ),
    "weights do not count": Mutant(kernels, "weigh_scores", " * weights[offer]", ""),
    "boosts multiply from the last": Mutant(
        kernels, "weigh_scores", "range(factors.shape[0])", "range(factors.shape[0] - 1, -1, -1)"
    ),
    "scores may be infinite": Mutant(kernels, "weigh_scores", "if not math.isfinite(score)", "if False"),
    "the minimum holds where nothing scored": Mutant(
        weigh, "_terms", "placement.minimum_score if whole else None", "placement.minimum_score"
    ),
    "exploration goes on where nothing scored": Mutant(
        weigh, "_terms", "placement.explore if whole else Explore()", "placement.explore"
    ),
    "what is not finite scores": Mutant(
        ScoringPlan, "predict", "if not kernels.all_finite(predictions)", "if False"
    ),
    "the minimum itself is too little": Mutant(
        kernels, "arbitrate", "scores[row] < minimum", "scores[row] <= minimum"
    ),
    # one order
    "a contested pin goes to the later rule": Mutant(
        Planner, "_rule", "(-rule.priority, order, number)", "(-rule.priority, -order, number)", plans=True
    ),
    "a contested pin goes to the lowest priority": Mutant(
        Planner, "_rule", "(-rule.priority, order, number)", "(rule.priority, order, number)", plans=True
    ),
    "a pin that lost is out": Mutant(
        kernels, "arbitrate", "if contested:\n", "if contested:\n            free[row] = False\n"
    ),
    "pins stay behind a gap": Mutant(kernels, "arbitrate", "if end == position[g]:", "if True:"),
    "pins count from 0": Mutant(kernels, "arbitrate", "end < position[g] - 1", "end < position[g]"),
    "a tag has room for one more": Mutant(
        kernels, "_full", "taken[tag] >= limits[tag]", "taken[tag] > limits[tag]", ("_admit", "arbitrate")
    ),
    "pins take no room of their tags": Mutant(
        kernels,
        "arbitrate",
        "if _admit(limits, tags, taken, offers[holder[g]], holder[g], crowded):",
        "if _full(limits, tags, taken, offers[holder[g]]) < 0:",
    ),
    "what rules show goes by file, whatever their priority": Mutant(
        tables, "tabulate", "for number in ranked", "for number in range(len(acts))", plans=True
    ),
    "equal scores go by file": Mutant(
        tables, "tabulate", "for name in sorted(offers)]", "for name in offers]", plans=True
    ),
    "the worst comes first": Mutant(
        kernels, "_sort_descending", "np.argsort(-worth", "np.argsort(worth", ("arbitrate",)
    ),
    # exploration
    "all are explored": Mutant(kernels, "explore", "k = min(top_k, count)", "k = count", ("arbitrate",)),
    "epsilon leaves out the best": Mutant(
        kernels, "explore", "chance[0] += 1.0", "chance[0] = 1.0", ("arbitrate",)
    ),
    "a coin falls otherwise": Mutant(
        kernels,
        "explore",
        "draw(seed, uint64(0), uint64(COIN)) < parameter",
        "draw(seed, uint64(0), uint64(COIN)) > parameter",
        ("arbitrate",),
    ),
    "the temperature cools": Mutant(
        kernels,
        "explore",
        "(scores[i] - scores[0]) / parameter",
        "(scores[i] - scores[0]) * parameter",
        ("arbitrate",),
    ),
    "draws hang on places": Mutant(
        tables, "tabulate", "draw_key(name) for name in offers", "place[name] for name in offers", plans=True
    ),
    "theta does not multiply what the prediction does": Mutant(
        kernels, "explore", "drawn[i] * factors[i]", "drawn[i]", ("arbitrate",)
    ),
    "a single offer is not drawn for": Mutant(
        kernels, "explore", "k < (1 if kind == THOMPSON else 2)", "k < 2", ("arbitrate",)
    ),
    "negative counts count": Mutant(kernels, "read_shapes", "counted > 0.0", "counted == counted"),
    "a pin at the first place leaves propensities as they are": Mutant(
        kernels,
        "arbitrate",
        "first_is_scored = count > 0 and merged[0] == scored[order[0]]",
        "first_is_scored = count > 0",
    ),
    # the answer
    "the fallback may be excluded": Mutant(engine, "_fallback", "& kernels.EXCLUDED", "& 0"),
    "the fallback is never cut": Mutant(engine, "_fallback", "names[:limit]", "names"),
    "the customer is known by weather": Mutant(
        engine,
        "_unknown_customer",
        "plan.customer_keyed_views & found.newest_us.keys()",
        "found.newest_us.keys()",
    ),
    "categories that the model never saw are not told": Mutant(
        engine, "_degradations", "*weighing.scoring.unseen,", ""
    ),
    "a moved pin is not told": Mutant(reasons, "_rule", "elif isinstance(act.action, Pin)", "elif False"),
    "include for nothing is not told": Mutant(
        reasons, "_rule", "if isinstance(act.action, Include)", "if False"
    ),
    "segments are read by rules of others": Mutant(
        reasons, "_segments", "if weighing.rows.is_in(segment)", "if True"
    ),
}
"""Name: the mutant."""


def rewritten(mutant: Mutant) -> tuple[str, Callable[..., Any]]:
    """The name of the function that Python calls, and what stands in for it."""
    names = [mutant.function, *mutant.through]
    scope = dict(vars(sys.modules[_function(mutant.home, names[0]).__module__]))
    for name in names:
        function = _function(mutant.home, name)
        text = textwrap.dedent(inspect.getsource(function))
        if name == mutant.function:
            assert mutant.old in text, f"{name} no longer says {mutant.old!r}"
            text = text.replace(mutant.old, mutant.new)
        tree = ast.parse(text)
        definition = tree.body[0]
        assert isinstance(definition, ast.FunctionDef)
        definition.decorator_list = []
        flag = __future__.annotations.compiler_flag
        exec(compile(tree, f"<{name}>", "exec", flag, dont_inherit=True), scope)  # noqa: S102
    return names[-1], scope[names[-1]]


def _function(home: Any, name: str) -> Any:
    found = vars(home)[name]
    return getattr(found, "py_func", found)


@contextmanager
def in_place(mutant: Mutant) -> Iterator[None]:
    """The engine with the mutant, wherever its modules name the function."""
    name, function = rewritten(mutant)
    true = vars(mutant.home)[name]
    modules = [module for key, module in sys.modules.items() if key.partition(".")[0] == "decision"]
    homes = [home for home in {mutant.home, *modules} if vars(home).get(name) is true]
    for home in homes:
        setattr(home, name, function)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        for home in homes:
            setattr(home, name, true)
