"""From policy texts to a checked policy, or to findings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from decision.collector import CollectorPaused
from decision.lang.binder import Binder
from decision.lang.bound import KEPT
from decision.lang.checks import check, is_sound
from decision.lang.domains import natural
from decision.lang.findings import Code, Finding, Severity, render
from decision.lang.fold import simplify
from decision.lang.limits import (
    DECLARATIONS_MAX,
    SOURCE_CHARS_MAX,
    SOURCES_MAX,
    SYNTAX_ERROR_CHARS_MAX,
    SYNTAX_ERRORS_MAX,
)
from decision.lang.logic import alternatives, can_fail, can_hold
from decision.lang.names import CUSTOMER, Scope, feature_index, view_of
from decision.lang.offers import build_offer, gather_offers
from decision.lang.parser import Failure, Piece, parse_declaration, parse_expression, parse_preamble, pieces
from decision.lang.placements import build_placement, gather_contexts
from decision.lang.report import Place, Report
from decision.lang.rules import build_cap, build_rule
from decision.lang.segments import SegmentBinder
from decision.lang.syntax import Expr, Span
from decision.lang.tree import CapDecl, Decl, OfferDecl, PlacementDecl, RuleDecl, SegmentDecl
from decision.lang.world import D, Located, World, default_customer_key
from decision.policy import Policy
from decision.schema import Catalog, DType

__all__ = ["Compiled", "Finding", "Severity", "compile_expression", "compile_policy", "render"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """The policy, or None if any finding is an error; warnings come beside a policy."""

    policy: Policy | None
    findings: tuple[Finding, ...]


@CollectorPaused()
def compile_policy(
    sources: Mapping[str, str],
    catalog: Catalog,
    models: frozenset[str] | None = None,
    *,
    labels: Mapping[str, tuple[str, ...]] | None = None,
    customer_key: str | None = None,
) -> Compiled:
    """Compile policy texts as one whole.

    Never raises for bad input: whatever is wrong is a finding, all of them at once.

    Args:
        sources: Text by file name. Order is file name order, so that the policy does not depend on the mapping's.
        catalog: What the feature repo defines.
        models: Names of the models that placements may name; None leaves them unchecked.
        labels: The segmentation models that `label` may name, with the labels that each tells; None is none.
        customer_key: The customer's join key; by default that of the first segments view, else of the first view with
            a single key.
    """
    report = Report()
    world = World(
        catalog=catalog,
        models=models,
        labels=labels or {},
        customer_key=customer_key or default_customer_key(catalog),
        report=report,
    )
    if _within_bounds(sources, report):
        _declare_all(world, sources)
    policy = _build(world, source_hash(sources))
    report.extend(check(policy, whole=not report.failed))
    return Compiled(policy=None if report.failed else policy, findings=report.findings())


def forget() -> None:
    """Keep nothing of what was compiled so far, as in a new process; for measurements and tests of what is kept."""
    for kept in (parse_declaration, view_of, natural, alternatives, can_hold, can_fail, is_sound):
        kept.cache_clear()
    KEPT.clear()


def source_hash(sources: Mapping[str, str]) -> str:
    """SHA-256 over names and texts in order of name, in hex; lengths keep them apart."""
    digest = hashlib.sha256()
    for file, text in sorted(sources.items()):
        for part in (file, text):
            data = part.encode(errors="surrogatepass")
            digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def _within_bounds(sources: Mapping[str, str], report: Report) -> bool:
    size = sum(map(len, sources.values()))
    if size <= SOURCE_CHARS_MAX and len(sources) <= SOURCES_MAX:
        return True
    span = Span(min(sources), 1, 1, 1, 2)
    message = f"a policy has at most {SOURCE_CHARS_MAX} characters in {SOURCES_MAX} files"
    report.add(Code.BOUND_EXCEEDED, message, span, "split the policy")
    return False


def _declare_all(world: World, sources: Mapping[str, str]) -> None:
    declared_count = failed_count = failed_chars = 0
    for place, piece in _pieces(sources):
        declared_count += piece.declares
        broken = failed_count > SYNTAX_ERRORS_MAX or failed_chars > SYNTAX_ERROR_CHARS_MAX
        if broken or declared_count > DECLARATIONS_MAX:
            message = f"reading ends here: {failed_count} syntax errors, {declared_count} declarations"
            world.report.add(Code.BOUND_EXCEEDED, message, place.span((0, 1)), "mend what is above")
            return
        if not _declare_piece(world, place, piece):
            failed_count += 1
            failed_chars += len(piece.text)


def _pieces(sources: Mapping[str, str]) -> Iterator[tuple[Place, Piece]]:
    for file in sorted(sources):
        lines = 0
        for piece in pieces(sources[file]):
            yield Place(file, piece.text, lines), piece
            lines += piece.text.count("\n")


def _declare_piece(world: World, place: Place, piece: Piece) -> bool:
    """Add a declaration to the world; false if it does not parse."""
    parsed = parse_declaration(piece.text) if piece.declares else parse_preamble(piece.text)
    if isinstance(parsed, Failure):
        world.report.add(parsed.code, parsed.message, place.span(parsed.at), parsed.suggestion)
        return False
    if parsed is not None:
        _declare(world, parsed, place)
    return True


def _declare(world: World, decl: Decl, place: Place) -> None:
    match decl:
        case SegmentDecl():
            _enter(world, world.segments, Located(decl, place), "segment")
        case PlacementDecl():
            _enter(world, world.placements, Located(decl, place), "placement")
        case OfferDecl():
            _enter(world, world.offers, Located(decl, place), "offer")
        case CapDecl():
            _enter(world, world.caps, Located(decl, place), "cap")
        case RuleDecl():
            _enter(world, world.rules, Located(decl, place), "rule")


def _enter(world: World, names: dict[str, Located[D]], located: Located[D], what: str) -> None:
    first = names.setdefault(located.name, located)
    if first is not located:
        message = f"the {what} `{located.name}` is there already, at {first.span}"
        world.report.add(Code.DUPLICATE_NAME, message, located.span, "give one of them another name")


def _build(world: World, text_hash: str) -> Policy:
    gather_offers(world)
    gather_contexts(world)
    segments = SegmentBinder(world)
    world.segment_view = segments.view
    segments.build_all()
    world.segment_stores = {name: segment.view for name, segment in segments.built.items()}
    offers = tuple(build_offer(world, offer) for offer in world.offers.values())
    placements = tuple(build_placement(world, placement) for placement in world.placements.values())
    rules = (build_rule(world, rule) for rule in world.rules.values())
    caps = (build_cap(world, cap) for cap in world.caps.values())
    return Policy(
        segments=tuple(segments.built.values()),
        rules=tuple(rule for rule in rules if rule is not None),
        offers=offers,
        placements=placements,
        caps=tuple(cap for cap in caps if cap is not None),
        source_hash=text_hash,
    )


EXPRESSION_FILE: Final = "expression"


def compile_expression(
    text: str,
    catalog: Catalog,
    context: Mapping[str, DType] | None = None,
    labels: Mapping[str, tuple[str, ...]] | None = None,
) -> tuple[Expr | None, tuple[Finding, ...]]:
    """Compile one expression by itself, of any type, over features, the given request context and labels."""
    report, place = Report(), Place(EXPRESSION_FILE, text)
    parsed = parse_expression(text)
    if isinstance(parsed, Failure):
        report.add(parsed.code, parsed.message, place.span(parsed.at), parsed.suggestion)
        return None, report.findings()
    names = {CUSTOMER: DType.STRING, **(context or {})}
    scope = Scope(catalog=catalog, views_of=feature_index(catalog), context=names, labels=labels or {})
    bound = Binder(scope, place, report).bind(parsed)
    return (None if bound is None else simplify(bound)), report.findings()
