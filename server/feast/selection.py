"""What a request asks for, resolved against the definitions and compiled once for all requests that ask the same."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from decision.schema import Feature, FeatureRef, JoinKey
from online.errors import OnlineStoreError
from online.read import ReadPlan
from server.errors import ConditionError, InvalidRequestError, UnknownResourceError
from server.feast.definitions import Definitions, OnDemandView, Projection, ServedView
from server.feast.naming import split_ref, version_key
from server.feast.protos import GetOnlineFeaturesResponse

MAX_PLANS = 1_024


class Asked(NamedTuple):
    """The part of a request that its plan depends on.

    Attributes:
        service: A feature service, or empty where features are listed.
        features: `view:feature` or `view@vN:feature`.
        full_names: Whether response columns are called `view__feature`.
        view_versions: Whether the response says the version of each view.
    """

    service: str = ""
    features: tuple[str, ...] = ()
    full_names: bool = False
    view_versions: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """Views that are looked up by the same columns of the request.

    Attributes:
        columns: Each join key, and the request's column that holds it.
    """

    plan: ReadPlan
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Where a stored feature stands: column `column` of read `read`."""

    read: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A stored feature that an on-demand view takes, under both names that Feast gives it."""

    names: tuple[str, str]
    cell: Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Computation:
    """An on-demand view to compute.

    Attributes:
        features: What is asked of it.
        prefix: What its columns may be prefixed with.
    """

    view: OnDemandView
    inputs: tuple[Input, ...]
    features: tuple[Feature, ...]
    prefix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A response column: a stored feature, or feature `computed[1]` of computation `computed[0]`."""

    name: str
    cell: Cell | None
    computed: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerPlan:
    """How one kind of request is answered.

    Attributes:
        keys: Entity columns, first in the response.
        key_names: Their names, each under itself.
        entity_columns: The column that each entity name stands for.
        request: Columns that on-demand views take from the request.
        straight: Whether the response's features are those of the one read, in its order.
        width: How many features are read or computed for each row.
        head: The response's metadata, serialized.
    """

    keys: tuple[JoinKey, ...]
    key_names: Mapping[str, str]
    entity_columns: dict[str, str]
    reads: tuple[Read, ...]
    computations: tuple[Computation, ...]
    request: tuple[Feature, ...]
    outputs: tuple[Output, ...]
    straight: bool
    width: int
    head: bytes


class PlanBook:
    """The plans of one set of definitions; the oldest is forgotten beyond `MAX_PLANS`."""

    def __init__(self, definitions: Definitions) -> None:
        self.definitions = definitions
        self._plans: dict[Asked, AnswerPlan] = {}

    def known(self, asked: Asked) -> AnswerPlan | None:
        """The plan of a request that was asked before."""
        return self._plans.get(asked)

    def plan(self, asked: Asked) -> AnswerPlan:
        """The plan of a request.

        Raises:
            UnknownResourceError: The service, view, version or feature is not defined.
            InvalidRequestError: A reference is malformed, names collide, or views cannot be read together.
            ConditionError: A view is disabled or does not serve in its state.
        """
        plan = self._plans.get(asked)
        if plan is None:
            plan = _Compiling(self.definitions, asked).plan()
            if len(self._plans) >= MAX_PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[asked] = plan
        return plan


@dataclass(slots=True)
class _Group:
    """Features that are looked up by the same columns, while they are collected."""

    columns: tuple[tuple[str, str], ...]
    places: dict[FeatureRef, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Computing:
    """An on-demand view, while what is asked of it is collected."""

    place: int
    view: OnDemandView
    inputs: tuple[Input, ...]
    features: list[Feature] = field(default_factory=list)


class _Compiling:
    """The making of one plan."""

    def __init__(self, definitions: Definitions, asked: Asked) -> None:
        self._definitions = definitions
        self._asked = asked
        self._field = "feature_service" if asked.service else "features"
        self._groups: dict[tuple[tuple[str, str], ...], _Group] = {}
        self._keys: dict[str, JoinKey] = {}
        self._entities: dict[str, str] = {}
        self._request: dict[str, Feature] = {}
        self._computed: dict[str, _Computing] = {}
        self._outputs: list[Output] = []
        self._versions: dict[str, int] = {}

    def plan(self) -> AnswerPlan:
        for projection in self._projections():
            for name in projection.features:
                self._take(projection, name)
        self._refuse_collisions()
        reads = tuple(self._read(group) for group in self._groups.values())
        wanted = [output.cell.column for output in self._outputs if output.cell is not None]
        straight = (
            len(reads) == 1
            and len(wanted) == len(self._outputs)
            and wanted == list(range(len(reads[0].plan.refs)))
        )
        computations = self._computations()
        return AnswerPlan(
            keys=tuple(self._keys.values()),
            key_names={name: name for name in self._keys},
            entity_columns=self._entities,
            reads=reads,
            computations=computations,
            request=tuple(self._request.values()),
            outputs=tuple(self._outputs),
            straight=straight,
            width=sum(len(read.plan.refs) for read in reads)
            + sum(len(item.features) for item in computations),
            head=self._head(),
        )

    def _projections(self) -> Iterable[Projection]:
        if not self._asked.service:
            return [self._listed(index, ref) for index, ref in enumerate(self._asked.features)]
        projections = self._definitions.services.get(self._asked.service)
        if projections is None:
            hint = _hint(self._asked.service, self._definitions.services)
            raise UnknownResourceError(
                "UNKNOWN_FEATURE_SERVICE",
                f"no feature service {self._asked.service!r}{hint}",
                "feature_service",
                self._asked.service,
            )
        return projections

    def _listed(self, index: int, ref: str) -> Projection:
        if ":" not in ref:
            description = f"{ref!r} is not of the form view:feature or view@vN:feature"
            raise InvalidRequestError.of("FIELD_TYPE_MISMATCH", f"features[{index}]", description)
        name, number, feature = split_ref(ref)
        if number is not None and not self._definitions.versioned:
            description = (
                f"{ref!r} names a version, and versions are off: set "
                "registry.enable_online_feature_view_versioning in feature_store.yaml"
            )
            raise InvalidRequestError.of("FEATURE_NOT_READABLE", f"features[{index}]", description)
        key = version_key(name, number)
        return Projection(view=key, alias=key, features=(feature,))

    def _take(self, projection: Projection, name: str) -> None:
        feature = self._definitions.feature(projection.view, name)
        if feature is None:
            raise self._unknown(projection.view, name)
        title = f"{projection.alias}__{name}" if self._asked.full_names else name
        served = self._definitions.views.get(projection.view)
        if served is not None:
            _refuse_unserved(served)
            self._note_version(projection.alias, served.version)
            self._outputs.append(Output(name=title, cell=self._cell(served, projection, name)))
        else:
            view = self._definitions.on_demand[projection.view]
            _refuse_unserved(view)
            self._note_version(projection.alias, view.version)
            place = self._compute(projection, view, feature)
            self._outputs.append(Output(name=title, cell=None, computed=place))

    def _note_version(self, alias: str, version: int) -> None:
        self._versions.setdefault(alias.partition("@")[0], version)

    def _unknown(self, view: str, feature: str) -> UnknownResourceError:
        definitions = self._definitions
        known = [*definitions.views, *definitions.on_demand]
        if view in known:
            names = definitions.feature_names(view)
            message = f"view {view!r} has no feature {feature!r}{_hint(feature, names)}"
        else:
            message = f"no view {view!r}{_hint(view, known)}"
        return UnknownResourceError("UNKNOWN_FEATURE", message, "feature", f"{view}:{feature}")

    def _cell(self, served: ServedView, projection: Projection, name: str) -> Cell:
        renamed = dict(projection.columns)
        columns = tuple((key.name, renamed.get(key.name, key.name)) for key in served.view.join_keys)
        aliased = tuple(sorted(pair for pair in columns if pair[0] != pair[1]))
        group = self._groups.setdefault(aliased, _Group(aliased))
        for key, (_, column) in zip(served.view.join_keys, columns, strict=True):
            self._need_key(column, key)
        for entity, key_name in served.entities:
            column = renamed.get(key_name, key_name)
            if entity != column:
                self._entities.setdefault(entity, column)
        ref = FeatureRef(view=served.view.name, feature=name)
        column_index = group.places.setdefault(ref, len(group.places))
        return Cell(read=list(self._groups).index(aliased), column=column_index)

    def _need_key(self, column: str, key: JoinKey) -> None:
        known = self._keys.setdefault(column, JoinKey(name=column, value_type=key.value_type))
        if known.value_type != key.value_type:
            description = (
                f"{column!r} would have to be {known.value_type.name} for one view and {key.value_type.name} "
                "for another: ask for them apart"
            )
            raise InvalidRequestError.of("FEATURE_NOT_READABLE", self._field, description)

    def _compute(self, projection: Projection, view: OnDemandView, feature: Feature) -> tuple[int, int]:
        computing = self._computed.get(projection.alias)
        if computing is None:
            for item in view.request:
                self._request.setdefault(item.name, item)
            computing = _Computing(len(self._computed), view, tuple(self._inputs_of(view)))
            self._computed[projection.alias] = computing
        computing.features.append(feature)
        return computing.place, len(computing.features) - 1

    def _inputs_of(self, view: OnDemandView) -> Iterable[Input]:
        for source in view.sources:
            served = self._definitions.views.get(source.view)
            if served is None:
                description = f"{view.name!r} reads {source.view!r}, which is not stored"
                raise InvalidRequestError.of("FEATURE_NOT_READABLE", self._field, description)
            _refuse_unserved(served)
            for name in source.features:
                if name not in served.view.feature_by_name:
                    raise self._unknown(source.view, name)
                names = (name, f"{source.view.partition('@')[0]}__{name}")
                yield Input(names=names, cell=self._cell(served, source, name))

    def _computations(self) -> tuple[Computation, ...]:
        return tuple(
            Computation(
                view=item.view, inputs=item.inputs, features=tuple(item.features), prefix=f"{alias}__"
            )
            for alias, item in self._computed.items()
        )

    def _refuse_collisions(self) -> None:
        seen: set[str] = set()
        for output in self._outputs:
            if output.name in seen:
                hint = "ask for each once" if self._asked.full_names else "set full_feature_names"
                description = f"two features would be called {output.name!r} in the response: {hint}"
                raise InvalidRequestError.of("FEATURE_NAMES_COLLIDE", self._field, description)
            seen.add(output.name)

    def _read(self, group: _Group) -> Read:
        try:
            plan = ReadPlan.compile(self._definitions.catalog, tuple(group.places), as_stored=True)
        except OnlineStoreError as error:
            raise InvalidRequestError.of("FEATURE_NOT_READABLE", self._field, str(error)) from error
        renamed = dict(group.columns)
        names = sorted({key.name for part in plan.groups for key in part.keys.join_keys})
        return Read(plan=plan, columns=tuple((name, renamed.get(name, name)) for name in names))

    def _head(self) -> bytes:
        response = GetOnlineFeaturesResponse()
        names = response.metadata.feature_names.val
        names.extend(self._keys)
        names.extend(output.name for output in self._outputs)
        if self._asked.view_versions:
            for name, version in self._versions.items():
                response.metadata.feature_view_metadata.add(name=name, version=version)
        head: bytes = response.SerializeToString()
        return head


def _refuse_unserved(view: ServedView | OnDemandView) -> None:
    if view.refusal is not None:
        raise ConditionError("VIEW_NOT_SERVING", view.refusal)


def _hint(name: str, known: Sequence[str] | Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
