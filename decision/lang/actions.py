"""The actions of rules: their arguments, and what each becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from decision.lang.findings import Code, nearest
from decision.lang.placements import LIMIT_MAX, select, whole_number
from decision.lang.report import Place
from decision.lang.tree import ActionCall, Constant, Target, Word
from decision.lang.world import World
from decision.policy import Action, Boost, Exclude, Include, Pin, Selector, Show, TagDecision

FACTOR_MAX: Final = 1_000_000.0


@dataclass(frozen=True, slots=True)
class Acting:
    """One action to be built; `per_candidate` is None where the condition is wrong, so that nobody knows."""

    world: World
    place: Place
    call: ActionCall
    per_candidate: bool | None

    @property
    def words(self) -> list[Word]:
        return [arg for arg in self.call.args if isinstance(arg, Word)]

    @property
    def numbers(self) -> list[Constant]:
        return [arg for arg in self.call.args if isinstance(arg, Constant)]

    @property
    def targets(self) -> list[Target]:
        """Offers by name and by tag."""
        return [Target(arg, is_tag=False) if isinstance(arg, Word) else arg for arg in self._named]

    @property
    def _named(self) -> list[Word | Target]:
        return [arg for arg in self.call.args if not isinstance(arg, Constant)]

    def fail(self, message: str, suggestion: str) -> None:
        """Report a mistake."""
        self.world.report.add(Code.BAD_ARGUMENT, message, self.place.span(self.call.at), suggestion)

    def offer_known(self) -> bool:
        return self.world.offer_known(self.words[0], self.place)

    def shaped(self, words: int, numbers: int, form: str) -> bool:
        """Whether the arguments are so many offers by name and so many numbers; reports where not."""
        if len(self.words) == words and len(self.numbers) == numbers == len(self.call.args) - words:
            return True
        self.fail(f"{self.call.name.text} is written {form}", f"write {form}")
        return False


def build_action(acting: Acting) -> Action | None:
    """The action, or None where it is wrong and reported."""
    name = acting.call.name
    build = ACTIONS.get(name.text.lower())
    if build is None:
        hint = nearest(name.text, ACTIONS) or f"actions are {', '.join(ACTIONS)}"
        message = f"there is no action `{name.text}`"
        acting.world.report.add(Code.UNKNOWN_ACTION, message, acting.place.span(name.at), hint)
        return None
    return build(acting)


def _show(acting: Acting) -> Action | None:
    if not acting.shaped(1, 0, 'display_recommendation("offer")') or not acting.offer_known():
        return None
    return Show(offer=acting.words[0].text)


def _pin(acting: Acting) -> Action | None:
    if not acting.shaped(1, 1, 'pin("offer", 1)') or not acting.offer_known():
        return None
    position = whole_number(acting.world, acting.place, acting.numbers[0], LIMIT_MAX, "a position")
    return Pin(offer=acting.words[0].text, position=position)


def _tag(acting: Acting) -> Action | None:
    return TagDecision(name=acting.words[0].text) if acting.shaped(1, 0, 'tag("name")') else None


def _boost(acting: Acting) -> Action | None:
    return _weigh(acting, 1.0, FACTOR_MAX, 'boost("offer", 1.5)')


def _bury(acting: Acting) -> Action | None:
    return _weigh(acting, 0.0, 1.0, 'bury("offer", 0.5)')


def _weigh(acting: Acting, least: float, most: float, form: str) -> Action | None:
    selector = _selector(acting, form)
    factor = float(acting.numbers[0].value) if len(acting.numbers) == 1 else 0.0  # type: ignore[arg-type]
    if not least <= factor <= most or factor == 0:
        name = acting.call.name.text
        acting.fail(f"{name} takes one factor {_range_text(least, most)}", f"write {form}")
        return None
    return None if selector is None else Boost(selector=selector, factor=factor)


def _range_text(least: float, most: float) -> str:
    return f"from {least:,.0f} to {most:,.0f}" if least > 0 else f"above 0 and at most {most:,.0f}"


def _include(acting: Acting) -> Action | None:
    selector = _without_number(acting, 'include("offer")')
    return None if selector is None else Include(selector=selector)


def _exclude(acting: Acting) -> Action | None:
    selector = _without_number(acting, 'exclude("offer")')
    return None if selector is None else Exclude(selector=selector)


def _without_number(acting: Acting, form: str) -> Selector | None:
    if not acting.numbers:
        return _selector(acting, form)
    acting.fail("too many arguments", f"write {form}")
    return None


def _selector(acting: Acting, form: str) -> Selector | None:
    """The offers meant: by name, by tag, or the candidate itself where the rule reads it."""
    if len(acting.targets) == 1:
        return select(acting.world, acting.place, acting.targets[0])
    if not acting.targets and acting.per_candidate is not False:
        return Selector()
    if acting.targets:
        acting.fail("one offer or tag at a time", f"write {form}, and another action for the next")
    else:
        hint = f"write {form}; only a rule that reads the candidate may leave it out"
        acting.fail("which offer is not said", hint)
    return None


ACTIONS: Final[dict[str, Callable[[Acting], Action | None]]] = {
    "display_recommendation": _show,
    "show": _show,
    "boost": _boost,
    "bury": _bury,
    "include": _include,
    "exclude": _exclude,
    "pin": _pin,
    "tag": _tag,
}
