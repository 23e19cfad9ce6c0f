"""What a name in a condition may stand for, and which one it does."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from decision.lang.findings import Code, nearest
from decision.lang.report import Report
from decision.lang.syntax import Ref, Span
from decision.schema import Catalog, DType, View

CUSTOMER: Final = "customer"
"""The context name of the customer's key as text; every placement has it."""

_LABEL: Final = ("label(", ")")

NAMESPACES: Final = ("context", "offer")
"""First parts of names that no view may have if rules are to read it."""


def feature_index(catalog: Catalog) -> dict[str, tuple[str, ...]]:
    """Views by the feature names they hold."""
    index: dict[str, tuple[str, ...]] = {}
    for view in catalog.views:
        for feature in view.features:
            index[feature.name] = (*index.get(feature.name, ()), view.name)
    return index


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The names that a condition can read.

    Attributes:
        views_of: `feature_index` of the catalog, shared between scopes.
        context: Declared request context; None where there is no request, as in a segment.
        attributes: Offers' attributes; None where there is no offer.
        labels: Labels that each segmentation model tells; None where there is no request, as in a segment.
        segment_view: The view that stores a segment of that name, None where it is unknown (and then reported).
    """

    catalog: Catalog
    views_of: Mapping[str, tuple[str, ...]]
    context: Mapping[str, DType] | None = None
    attributes: Mapping[str, DType] | None = None
    labels: Mapping[str, tuple[str, ...]] | None = None
    segment_view: Callable[[str, Span], str | None] = field(default=lambda _name, _span: None)

    def resolve(self, parts: tuple[str, ...], span: Span, report: Report) -> Ref | None:
        """The value that a name stands for, or None, and then the report says why."""
        if len(parts) == 1:
            return self._bare(parts[0], span, report)
        if len(parts) > 2:
            message = f"`{'.'.join(parts)}` has too many parts"
            report.add(Code.UNKNOWN_FEATURE, message, span, "a feature is written view.feature")
            return None
        first, name = parts
        if first in NAMESPACES:
            return self._namespaced(first, name, span, report)
        return self._feature(first, name, span, report)

    def _bare(self, name: str, span: Span, report: Report) -> Ref | None:
        views = self.views_of.get(name, ())
        in_context = self.context is not None and name in self.context
        if len(views) + in_context > 1:
            meanings = [f"context.{name}"] * in_context + [f"{view}.{name}" for view in views]
            message = f"`{name}` may mean {' or '.join(meanings)}"
            report.add(Code.AMBIGUOUS_NAME, message, span, f"write {meanings[0]}")
            return None
        if in_context:
            return self._namespaced("context", name, span, report)
        if views:
            return self._feature(views[0], name, span, report)
        known = {*self.views_of, *(self.context or ())}
        report.add(Code.UNKNOWN_FEATURE, f"nothing is called `{name}`", span, self._hint(name, known))
        return None

    def _hint(self, name: str, known: set[str]) -> str:
        if self.attributes is not None and name in self.attributes:
            return f"write offer.{name}"
        return nearest(name, known) or "use view.feature, or declare it as context of the placement"

    def _namespaced(self, first: str, name: str, span: Span, report: Report) -> Ref | None:
        names = self.context if first == "context" else self.attributes
        if first in self.catalog.view_by_name:
            message = f"the view `{first}` is hidden by the names {first}.…"
            report.add(Code.AMBIGUOUS_NAME, message, span, "give the view another name")
            return None
        if names is None:
            message = f"a segment cannot read {first}.{name}: it is about one entity alone"
            report.add(Code.MIXED_ENTITIES, message, span, "use a rule")
            return None
        if name not in names:
            what = "context of this placement" if first == "context" else "attribute of any offer"
            report.add(Code.UNKNOWN_FEATURE, f"`{name}` is no {what}", span, nearest(name, names))
            return None
        return Ref(name=f"{first}.{name}", dtype=names[name], span=span)

    def _feature(self, view_name: str, name: str, span: Span, report: Report) -> Ref | None:
        view = self.catalog.view_by_name.get(view_name)
        if view is None:
            known = self.catalog.view_by_name
            report.add(
                Code.UNKNOWN_FEATURE, f"there is no view `{view_name}`", span, nearest(view_name, known)
            )
            return None
        feature = next((item for item in view.features if item.name == name), None)
        if feature is None:
            hint = self._elsewhere(view, name)
            report.add(Code.UNKNOWN_FEATURE, f"the view `{view_name}` has no feature `{name}`", span, hint)
            return None
        return self._readable(view, name, feature.dtype, span, report)

    def _elsewhere(self, view: View, name: str) -> str:
        views = self.views_of.get(name, ())
        return nearest(name, view.feature_by_name) or (f"did you mean `{views[0]}.{name}`?" if views else "")

    def _readable(self, view: View, name: str, dtype: DType | None, span: Span, report: Report) -> Ref | None:
        if view.on_demand:
            message = f"`{view.name}` is computed on demand and cannot be read by rules"
            report.add(Code.ON_DEMAND_FEATURE, message, span, "compute it in a stream or batch view")
            return None
        if dtype is None:
            report.add(Code.TYPE_MISMATCH, f"`{view.name}.{name}` is bytes, which rules cannot read", span)
            return None
        return Ref(name=f"{view.name}.{name}", dtype=dtype, span=span)


@functools.lru_cache(maxsize=32_768)
def view_of(name: str) -> str | None:
    """The view of a canonical name, or None for context, offer attributes and labels."""
    first = name.split(".", 1)[0]
    return None if first in NAMESPACES or labelled(name) else first


def label_name(model: str) -> str:
    """The canonical name of a segmentation model's label, which is how a policy writes it."""
    return model.join(_LABEL)


def labelled(name: str) -> str | None:
    """The model whose label a canonical name is, or None."""
    start, end = _LABEL
    found = name.startswith(start) and name.endswith(end)
    return name.removeprefix(start).removesuffix(end) if found else None
