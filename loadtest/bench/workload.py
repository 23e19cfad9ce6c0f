"""Rules of three conditions over 60 features, written in the languages of those that are measured."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from decision.schema import Catalog, Feature, JoinKey, Value, ValueType, View

NUMBERS, TEXTS, TIMES = 40, 15, 5
NOW_US: Final = 1_780_000_000_000_000
MINUTE_US: Final = 60_000_000
WORDS: Final = 400
NULLS: Final = 0.1

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


@dataclass(frozen=True, slots=True)
class Language:
    """How one of the measured writes conditions that are true exactly where ours are TRUE.

    `{name}` is the feature, `{op}` an operator of order, `{value}` a constant or constants in quotes as JSON has them.
    Where ours would be NULL, the others are kept from comparing a null, which most refuse.
    """

    both: str
    either: str
    order: str
    not_above: str
    equal: str
    among: str
    contains: str
    since: str


WAYPOST: Final = Language(
    both=" AND ",
    either="({} OR {})",
    order="v.{name} {op} {value}",
    not_above="NOT v.{name} > {value}",
    equal="v.{name} = {value}",
    among="v.{name} IN ({value})",
    contains='v.{name} LIKE "%{part}%"',
    since="v.{name} > now() - {minutes} minutes",
)
PYTHON: Final = Language(
    both=" and ",
    either="({} or {})",
    order="({name} is not None and {name} {op} {value})",
    not_above="({name} is not None and not {name} > {value})",
    equal="{name} == {value}",
    among="{name} in {{{value}}}",
    contains='({name} is not None and "{part}" in {name})',
    since="({name} is not None and {name} > now - {us})",
)
ZEN: Final = Language(
    both=" and ",
    either="({} or {})",
    order="({name} != null and {name} {op} {value})",
    not_above="({name} != null and not ({name} > {value}))",
    equal="{name} == {value}",
    among="{name} in [{value}]",
    contains='({name} != null and contains({name}, "{part}"))',
    since="({name} != null and {name} > now - {us})",
)
CEL: Final = Language(
    both=" && ",
    either="({} || {})",
    order="({name} != null && {name} {op} {value})",
    not_above="({name} != null && !({name} > {value}))",
    equal="{name} == {value}",
    among="{name} in [{value}]",
    contains='({name} != null && {name}.contains("{part}"))',
    since="({name} != null && {name} > now - {us})",
)
RULE_ENGINE: Final = Language(
    both=" and ",
    either="({} or {})",
    order="({name} != null and {name} {op} {value})",
    not_above="({name} != null and not ({name} > {value}))",
    equal="{name} == {value}",
    among="{name} in [{value}]",
    contains='({name} != null and "{part}" in {name})',
    since="({name} != null and {name} > now - {us})",
)


@dataclass(frozen=True, slots=True)
class Atom:
    """One comparison: the language's form and what fills it."""

    form: str
    fill: tuple[tuple[str, object], ...]

    def text(self, language: Language) -> str:
        form: str = getattr(language, self.form)
        return form.format(**dict(self.fill))


@dataclass(frozen=True, slots=True)
class Rule:
    """Three comparisons; `either` joins the last two by OR."""

    atoms: tuple[Atom, Atom, Atom]
    either: bool = False

    def terms(self, language: Language) -> list[str]:
        """What must all be true."""
        first, *others = (atom.text(language) for atom in self.atoms)
        return [first, language.either.format(*others)] if self.either else [first, *others]

    def text(self, language: Language) -> str:
        return language.both.join(self.terms(language))


def make_rules(count: int) -> list[Rule]:
    """Pairwise different conditions, a third of them with OR or NOT."""
    draw = random.Random(7)
    rules: dict[Rule, None] = {}
    while len(rules) < count:
        rules[_rule(draw)] = None
    return list(rules)


def _rule(draw: random.Random) -> Rule:
    a, b, c = (_atom(draw) for _ in range(3))
    if draw.random() < 2 / 3:
        return Rule((a, b, c))
    if draw.random() < 0.5:
        return Rule((a, b, c), either=True)
    return Rule((a, b, _atom_of("not_above", name=_number(draw), value=_limit(draw))))


def _atom(draw: random.Random) -> Atom:
    """60 % numbers, 20 % texts by = and IN, 10 % LIKE, 10 % time."""
    kind = draw.random()
    if kind < 0.6:
        op = draw.choice(["<", "<=", ">", ">="])
        return _atom_of("order", name=_number(draw), op=op, value=_limit(draw))
    name = f"s{draw.randrange(TEXTS)}"
    if kind < 0.7:
        return _atom_of("equal", name=name, value=_quoted(draw))
    if kind < 0.8:
        return _atom_of("among", name=name, value=", ".join(_quoted(draw) for _ in range(3)))
    if kind < 0.9:
        return _atom_of("contains", name=name, part=str(draw.randrange(WORDS)))
    minutes = draw.randrange(1, 2_000)
    name = f"t{draw.randrange(TIMES)}"
    return _atom_of("since", name=name, minutes=minutes, us=minutes * MINUTE_US)


def _atom_of(form: str, **fill: object) -> Atom:
    return Atom(form, tuple(fill.items()))


def _number(draw: random.Random) -> str:
    return f"n{draw.randrange(NUMBERS)}"


def _limit(draw: random.Random) -> str:
    return repr(round(draw.random() * 100, 4))


def _quoted(draw: random.Random) -> str:
    return f'"word {draw.randrange(WORDS)}"'


def make_row() -> dict[str, Value]:
    """A row with a tenth of its values missing."""
    draw = random.Random(3)
    row: dict[str, Value] = {f"n{i}": draw.random() * 100 for i in range(NUMBERS)}
    row |= {f"s{i}": f"word {draw.randrange(WORDS)}" for i in range(TEXTS)}
    row |= {f"t{i}": NOW_US - draw.randrange(2_000) * MINUTE_US for i in range(TIMES)}
    return {name: None if draw.random() < NULLS else value for name, value in row.items()}


def texts(rules: Sequence[Rule], language: Language) -> list[str]:
    """The rules in a language."""
    return [rule.text(language) for rule in rules]
