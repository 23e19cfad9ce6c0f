"""Segments: conditions on one entity, stored where the catalog says."""

from __future__ import annotations

from dataclasses import dataclass, field

from decision.lang.binder import Binder
from decision.lang.findings import Code, nearest
from decision.lang.fold import simplify
from decision.lang.names import Scope
from decision.lang.syntax import Expr, Span, references
from decision.lang.tree import SegmentDecl
from decision.lang.world import Located, World, segment_views
from decision.policy import Segment
from decision.schema import DType, View


@dataclass
class SegmentBinder:
    """Binds segments in the order of their references, so that each knows where the ones it reads are stored.

    `built` ends up in that order too: what a segment reads comes before it.
    """

    world: World
    built: dict[str, Segment] = field(default_factory=dict)
    _failed: set[str] = field(default_factory=set)
    _open: list[str] = field(default_factory=list)

    def view(self, name: str, span: Span) -> str | None:
        """The view that stores a segment; None, reported once, where there is none."""
        declared = self.world.segments.get(name)
        if declared is None:
            message = f"there is no segment `{name}`"
            self.world.report.add(Code.UNKNOWN_SEGMENT, message, span, nearest(name, self.world.segments))
            return None
        if name in self._open:
            chain = " → ".join([*self._open[self._open.index(name) :], name])
            self.world.report.add(Code.CYCLIC_SEGMENT, f"a segment is defined by itself: {chain}", span)
            return None
        segment = self.build(declared)
        return None if segment is None else segment.view

    def build(self, located: Located[SegmentDecl]) -> Segment | None:
        """The segment, bound once."""
        name = located.name
        if name in self.built or name in self._failed:
            return self.built.get(name)
        self._open.append(name)
        segment = self._build(located)
        self._open.pop()
        if segment is None:
            self._failed.add(name)
        else:
            self.built[name] = segment
        return segment

    def _build(self, located: Located[SegmentDecl]) -> Segment | None:
        scope = Scope(catalog=self.world.catalog, views_of=self.world.views_of, segment_view=self.view)
        condition = Binder(scope, located.place, self.world.report).condition(located.decl.condition)
        keys = None if condition is None else self._entity(condition, located)
        view = None if keys is None else self._storing_view(keys, located)
        if condition is None or keys is None or view is None:
            return None
        return Segment(
            name=located.name,
            condition=simplify(condition),
            view=view.name,
            join_keys=keys,
            description=located.decl.description,
            span=located.span,
        )

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


def _entity_text(view: View) -> str:
    keys = ", ".join(view.key_names)
    return f"`{view.name}` (keyed by {keys})" if keys else f"`{view.name}` (of no entity)"
