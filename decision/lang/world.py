"""What the declarations of a policy know of each other while they are compiled."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Generic, TypeVar

from decision.lang.findings import Code, nearest
from decision.lang.names import feature_index, view_of
from decision.lang.report import Place, Report
from decision.lang.syntax import Span
from decision.lang.tree import CapDecl, Decl, OfferDecl, PlacementDecl, RuleDecl, SegmentDecl, Word
from decision.schema import Catalog, DType, View

SEGMENT_ROLE: Final = "segments"
"""Value of the view tag `waypost.role` that marks the view in which segment membership is stored."""

D = TypeVar("D", bound=Decl)


@dataclass(frozen=True, slots=True)
class Located(Generic[D]):
    """A declaration and its place."""

    decl: D
    place: Place

    @property
    def name(self) -> str:
        return self.decl.name.text

    @property
    def span(self) -> Span:
        """The place of the name, which stands for the declaration in findings."""
        return self.place.span(self.decl.name.at)


@dataclass(kw_only=True)
class World:
    """Everything that a declaration may refer to; filled kind by kind in the order of `compiler.STEPS`."""

    catalog: Catalog
    models: frozenset[str] | None
    labels: Mapping[str, tuple[str, ...]]
    customer_key: str | None
    report: Report
    segments: dict[str, Located[SegmentDecl]] = field(default_factory=dict)
    placements: dict[str, Located[PlacementDecl]] = field(default_factory=dict)
    offers: dict[str, Located[OfferDecl]] = field(default_factory=dict)
    caps: dict[str, Located[CapDecl]] = field(default_factory=dict)
    rules: dict[str, Located[RuleDecl]] = field(default_factory=dict)
    contexts: dict[str, Mapping[str, DType]] = field(default_factory=dict)
    attributes: dict[str, DType] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    offer_keys: set[str] = field(default_factory=set)
    segment_view: Callable[[str, Span], str | None] = lambda _name, _span: None
    segment_stores: Mapping[str, str] = field(default_factory=dict)
    """Views that store the segments, once all are bound."""

    @cached_property
    def views_of(self) -> dict[str, tuple[str, ...]]:
        return feature_index(self.catalog)

    @cached_property
    def names_hash(self) -> str:
        """A hash of everything that a rule's names can stand for besides its placement's context."""
        parts = (
            self.catalog.content_hash,
            sorted(self.attributes.items()),
            sorted(self.segment_stores.items()),
            sorted(self.labels.items()),
        )
        return hashlib.sha256(repr(parts).encode(errors="surrogatepass")).hexdigest()

    @cached_property
    def join_keys(self) -> dict[str, View]:
        """A view for each join key of the project."""
        return {key.name: view for view in self.catalog.views for key in view.join_keys}

    def views_read(self, references: Iterable[str]) -> list[View]:
        """The views behind canonical names, without repeats."""
        names = dict.fromkeys(filter(None, map(view_of, sorted(references))))
        return [self.catalog.view_by_name[name] for name in names]

    @cached_property
    def candidate_keys(self) -> dict[str, tuple[str, ...]]:
        """By view its join keys that are not the customer's, so an offer has to declare them."""
        return {
            view.name: tuple(key for key in view.key_names if key != self.customer_key)
            for view in self.catalog.views
        }

    def keys_of(self, name: str) -> tuple[str, ...]:
        """`candidate_keys` of the view behind a canonical name; none where there is no view."""
        view = view_of(name)
        return () if view is None else self.candidate_keys[view]

    def known(self, names: Mapping[str, object], word: Word, place: Place, code: Code, what: str) -> bool:
        """Whether a name is declared; reports where not."""
        if word.text in names:
            return True
        span = place.span(word.at)
        self.report.add(code, f"there is no {what} `{word.text}`", span, nearest(word.text, names))
        return False

    def offer_known(self, word: Word, place: Place) -> bool:
        return self.known(self.offers, word, place, Code.UNKNOWN_OFFER, "offer")

    def tag_known(self, word: Word, place: Place) -> bool:
        """Whether an offer has the tag; one that none has is a warning and may stay."""
        return self.known(dict.fromkeys(self.tags), word, place, Code.UNKNOWN_TAG, "offer tagged")


def segment_views(catalog: Catalog) -> list[View]:
    """Views that store segment membership."""
    return [view for view in catalog.views if view.tag("waypost.role") == SEGMENT_ROLE]


def default_customer_key(catalog: Catalog) -> str | None:
    """The join key of the first segments view, else of the first view with a single key."""
    candidates = [*segment_views(catalog), *catalog.views]
    return next((view.key_names[0] for view in candidates if len(view.join_keys) == 1), None)
