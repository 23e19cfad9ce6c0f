"""Segments: conditions on one entity, stored where the catalog says."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from decision.lang.binder import Binder
from decision.lang.calendar import UNITS_US
from decision.lang.findings import Code, nearest
from decision.lang.fold import simplify
from decision.lang.functions import segment_name
from decision.lang.names import Scope
from decision.lang.syntax import Expr, Span, references
from decision.lang.tree import Invoke, Node, SegmentDecl, operands
from decision.lang.world import Located, World, segment_views
from decision.policy import Segment
from decision.schema import DType, View

DWELL_US_MAX: Final = 366 * UNITS_US["day"]
CHAIN_NAMES_MAX: Final = 8
"""Names that the finding about a cycle lists."""


@dataclass
class SegmentBinder:
    """Binds segments in the order of their references, so that each knows where the ones it reads are stored.

    `built` ends up in that order too: what a segment reads comes before it. Nothing here recurses over segments: a
    chain of thousands is no deeper than one.
    """

    world: World
    built: dict[str, Segment] = field(default_factory=dict)
    _failed: set[str] = field(default_factory=set)
    _current: str = ""

    def build_all(self) -> None:
        """Bind every segment once."""
        for name in self._ordered():
            self._current = name
            segment = self._build(self.world.segments[name])
            if segment is None:
                self._failed.add(name)
            else:
                self.built[name] = segment

    @cached_property
    def _reads(self) -> dict[str, list[str]]:
        """Declared segments that each one reads."""
        segments = self.world.segments
        return {
            name: [read for read in segment_names(located.decl.condition) if read in segments]
            for name, located in segments.items()
        }

    def _ordered(self) -> list[str]:
        """Names with what they read before them, else in file order; in a cycle something comes too early."""
        order: dict[str, None] = {}
        seen: set[str] = set()
        for start in self._reads:
            pending = [start]
            while pending:
                name = pending[-1]
                unseen = [] if name in seen else [read for read in self._reads[name] if read not in seen]
                seen.add(name)
                if unseen:
                    pending += reversed(unseen)
                else:
                    order.setdefault(pending.pop())
        return list(order)

    def view(self, name: str, span: Span) -> str | None:
        """The view that stores a segment; None where there is none, which is reported once."""
        report = self.world.report
        if name in self.built:
            return self.built[name].view
        if name not in self.world.segments:
            message = f"there is no segment `{name}`"
            report.add(Code.UNKNOWN_SEGMENT, message, span, nearest(name, self.world.segments))
        elif name not in self._failed:
            report.add(Code.CYCLIC_SEGMENT, f"a segment is defined by itself: {self._cycle(name)}", span)
        return None

    def _cycle(self, name: str) -> str:
        """The shortest way from a segment by what it reads to the current one, and back to it."""
        ways: dict[str, tuple[str, ...]] = {name: (name,)}
        pending = [name]
        for at in pending:
            for read in self._reads[at]:
                if read not in ways:
                    ways[read] = (*ways[at][:CHAIN_NAMES_MAX], read)
                    pending.append(read)
        chain = [self._current, *ways.get(self._current, (name,))]
        shown = chain if len(chain) <= CHAIN_NAMES_MAX else [*chain[:CHAIN_NAMES_MAX], "…", self._current]
        return " → ".join(shown)

    def _build(self, located: Located[SegmentDecl]) -> Segment | None:
        scope = Scope(catalog=self.world.catalog, views_of=self.world.views_of, segment_view=self.view)
        condition = Binder(scope, located.place, self.world.report).condition(located.decl.condition)
        keys = None if condition is None else self._entity(condition, located)
        view = None if keys is None else self._storing_view(keys, located)
        dwell_us = self._dwell_us(located)
        if condition is None or keys is None or view is None or dwell_us is None:
            return None
        return Segment(
            name=located.name,
            condition=simplify(condition),
            view=view.name,
            join_keys=keys,
            dwell_us=dwell_us,
            description=located.decl.description,
            span=located.span,
        )

    def _dwell_us(self, located: Located[SegmentDecl]) -> int | None:
        """How long membership lasts at least; None where that makes no sense, which is reported."""
        dwell = located.decl.dwell
        if dwell is None:
            return 0
        if dwell.value_us is not None and 0 < dwell.value_us <= DWELL_US_MAX:
            return dwell.value_us
        message = f"a segment lasts at least some time, up to {DWELL_US_MAX // UNITS_US['day']} days"
        span = located.place.span(dwell.at)
        self.world.report.add(Code.BAD_ARGUMENT, message, span, "leave `at least` out for none")
        return None

    def _entity(self, condition: Expr, located: Located[SegmentDecl]) -> tuple[str, ...] | None:
        """The join keys that all views read by the condition share."""
        views = self.world.views_read(references(condition))
        if not views:
            message = f"`{located.name}` reads no feature, so it is about nobody"
            self.world.report.add(Code.MIXED_ENTITIES, message, located.span, "read a feature of the entity")
            return None
        other = next((view for view in views if view.key_names != views[0].key_names), None)
        if other is None and views[0].join_keys:
            return views[0].key_names
        message = f"`{located.name}` reads {_entity_text(views[0])}" + (
            f" and {_entity_text(other)}" if other else ""
        )
        hint = "a segment reads features of one entity; use a rule"
        self.world.report.add(Code.MIXED_ENTITIES, message, located.span, hint)
        return None

    def _storing_view(self, keys: tuple[str, ...], located: Located[SegmentDecl]) -> View | None:
        views = [view for view in segment_views(self.world.catalog) if view.key_names == keys]
        field_text = f'Field(name="{located.name}", dtype=Bool)'
        for view in views:
            feature = view.feature_by_name.get(located.name)
            if feature is not None and feature.dtype is DType.BOOL:
                return view
        if views:
            message = f"the view `{views[0].name}` has no true-or-false feature `{located.name}` to store membership"
            hint = f"add {field_text} to `{views[0].name}`"
        else:
            message = f"no view stores segments of {', '.join(keys)}"
            hint = f'add a stream view keyed so, with the tag "waypost.role": "segments" and {field_text}'
        self.world.report.add(Code.MISSING_SEGMENT_FIELD, message, located.span, hint)
        return None


def segment_names(node: Node) -> list[str]:
    """Names that `in_segment` is asked about anywhere in a condition."""
    names: list[str] = []
    pending = [node]
    while pending:
        at = pending.pop()
        if isinstance(at, Invoke) and at.name.text.lower() == "in_segment" and len(at.args) == 1:
            names += filter(None, [segment_name(at.args[0])])
        pending.extend(reversed(operands(at)))
    return names


def _entity_text(view: View) -> str:
    keys = ", ".join(view.key_names)
    return f"`{view.name}` (keyed by {keys})" if keys else f"`{view.name}` (of no entity)"
