"""The answer to a Feast client: one round trip to the store, and a response made of the bytes that lie there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from decision.schema import Scalar, Status, ValueType
from online.errors import KeyEncodingError, ReadTooLargeError, ValueEncodeError
from online.read import Columns, KeyColumns, OnlineReader, PlanReplies
from online.values import NULL_INSTANT, encoder
from server.bounds import check_count, check_names, check_size
from server.budget import CURRENT
from server.clock import Clock
from server.config import FeastAnswers, Limits
from server.errors import ConditionError, InvalidRequestError, StoreUnavailableError
from server.feast import vectors
from server.feast.encoding import encode
from server.feast.entities import Given, entity_column
from server.feast.on_demand import Transformer
from server.feast.plain import python_of
from server.feast.protos import FieldStatus, GetOnlineFeaturesResponse, Value
from server.feast.selection import AnswerPlan, Asked, Cell, Computation, PlanBook

RETRY_AFTER_S = 1.0
_CODES = {
    FeastAnswers.PROTO: {
        Status.PRESENT: FieldStatus.PRESENT,
        Status.NULL: FieldStatus.NULL_VALUE,
        Status.NOT_FOUND: FieldStatus.NOT_FOUND,
        Status.STALE: FieldStatus.OUTSIDE_MAX_AGE,
        Status.TIMEOUT: FieldStatus.INVALID,
    },
    FeastAnswers.PYTHON: {
        Status.PRESENT: FieldStatus.PRESENT,
        Status.NULL: FieldStatus.PRESENT,
        Status.NOT_FOUND: FieldStatus.PRESENT,
        Status.STALE: FieldStatus.PRESENT,
        Status.TIMEOUT: FieldStatus.INVALID,
    },
}


class OnlineFeatures:
    """Answers `GetOnlineFeatures` of Feast's API, whichever door it came through.

    Args:
        book: The plans of the definitions that serve now; asked once per request, so that none sees two of them.
        answers: Statuses as the proto defines them, or as Feast's Python server sends them.
    """

    def __init__(
        self,
        book: Callable[[], PlanBook],
        reader: OnlineReader,
        clock: Clock,
        limits: Limits,
        transformer: Transformer,
        answers: FeastAnswers,
    ) -> None:
        self._book = book
        self._reader = reader
        self._clock = clock
        self._limits = limits
        self._transformer = transformer
        self._honest = answers is FeastAnswers.PROTO
        self._codes = np.zeros(max(Status) + 1, np.uint8)
        for status, code in _CODES[answers].items():
            self._codes[status] = code
        self._carries = np.zeros(max(Status) + 1, np.uint8)
        self._carries[[Status.PRESENT, Status.STALE]] = 1

    async def answer(self, asked: Asked, entities: Given, context: Given | None = None) -> bytes:
        """A serialized `feast.serving.GetOnlineFeaturesResponse`.

        Args:
            asked: Features and how they are to be called.
            entities: Join keys; request data of on-demand views may be among them, as Feast's SDK sends it.
            context: Request data.

        Raises:
            RequestError: What is asked for is not there, not given as it should be, or cannot be had in time.
        """
        plan = self._plan(asked)
        given = _named(plan, entities)
        row_count = self._row_count(plan, entities, given)
        columns = [entity_column(entities, given[key.name], key) for key in plan.keys]
        keys = {key.name: column.values for key, column in zip(plan.keys, columns, strict=True)}
        inputs = _shared_inputs(plan, keys, (context, entities), row_count)
        answers = await self._fetch(plan, keys, row_count)
        parts: list[bytes | memoryview] = [plan.head]
        present = vectors.PRESENT * row_count
        parts += [vectors.vector_of(column.serialized, present) for column in columns]
        if plan.straight:
            parts.append(self._straight_vectors(answers[0]))
            return b"".join(parts)
        read = [item.columns() for item in answers]
        stored = [vectors.split(self._vectors(item)) for item in read]
        computed = [
            await self._transformer.compute(item, inputs | _stored_inputs(item, read), row_count)
            for item in plan.computations
        ]
        for output in plan.outputs:
            if output.cell is not None:
                parts.append(stored[output.cell.read][output.cell.column])
            elif output.computed is not None:
                place, index = output.computed
                parts.append(self._computed_vector(computed[place][index]))
        return b"".join(parts)

    def _plan(self, asked: Asked) -> AnswerPlan:
        """The plan of a request; what has one has been checked."""
        book = self._book()
        plan = book.known(asked)
        if plan is None:
            self._check(asked)
            plan = book.plan(asked)
        return plan

    def _check(self, asked: Asked) -> None:
        limits = self._limits
        if not asked.service and not asked.features:
            raise InvalidRequestError.of(
                "REQUIRED_FIELD_MISSING", "features", "name a feature service or features"
            )
        check_count("features", len(asked.features), limits.max_features)
        check_size("feature_service", len(asked.service), limits.max_text_bytes)
        check_names("features", asked.features, limits.max_text_bytes)

    def _row_count(self, plan: AnswerPlan, entities: Given, given: Mapping[str, str]) -> int:
        names = [*(given.values() or entities.names())]
        row_count = entities.count(names[0]) if names else 1
        for name in names[1:]:
            count = entities.count(name)
            if count != row_count:
                description = f"has {count} values where another column has {row_count}: send one per row"
                raise InvalidRequestError.of("FIELD_OUT_OF_RANGE", entities.place(name), description)
        check_count("entities", row_count, self._limits.max_entities)
        check_count("features × entities", row_count * plan.width, self._limits.max_cells)
        return row_count

    async def _fetch(
        self, plan: AnswerPlan, keys: dict[str, list[Scalar]], row_count: int
    ) -> Sequence[PlanReplies]:
        if not plan.reads:
            return []
        requests = []
        for read in plan.reads:
            columns = {name: keys[column] for name, column in read.columns}
            requests.append((read.plan, KeyColumns(columns, row_count)))
        try:
            answers = await self._reader.replies(requests, self._clock.now_us(), CURRENT.get().for_store_s())
            for item in answers:
                item.check_size()
        except KeyEncodingError as error:
            raise InvalidRequestError.of("FIELD_TYPE_MISMATCH", "entities", str(error)) from error
        except ReadTooLargeError as error:
            raise InvalidRequestError.of("FIELD_OUT_OF_RANGE", "entities", str(error)) from error
        if all(item.unanswered for item in answers):
            raise StoreUnavailableError("the online store gave no answer in time", RETRY_AFTER_S)
        return answers

    def _straight_vectors(self, replies: PlanReplies) -> memoryview:
        """Serialize replies without reading them where all their values are seen to be messages."""
        found = replies.feature_vectors(self._codes, self._carries)
        return self._vectors(replies.columns()) if found is None else found

    def _vectors(self, columns: Columns) -> memoryview:
        """Serialize what was read; a stored value that is no message must not make all of the response unreadable."""
        if columns.doubtful:
            self._settle_doubtful(columns)
        return columns.feature_vectors(self._codes, self._carries)

    def _settle_doubtful(self, columns: Columns) -> None:
        """Leave out stored values that are no messages, and missing instants, which Feast's own servers send."""
        data, starts = columns.stored
        cells = []
        for column, row in columns.doubtful:
            start = starts[column, row]
            cells.append(data[start : start + columns.lengths[column, row]].tobytes())
        are_messages = _are_messages(cells)
        for (column, row), cell in zip(columns.doubtful, cells, strict=True):
            if self._honest and cell == NULL_INSTANT:
                columns.leave_null(column, row)
            elif not are_messages and not _are_messages([cell]):
                columns.drop(column, row)

    def _computed_vector(self, values: list[bytes]) -> bytes:
        statuses = b"".join(
            vectors.PRESENT if value or not self._honest else vectors.NULL_VALUE for value in values
        )
        return vectors.vector(values, statuses)


def _named(plan: AnswerPlan, entities: Given) -> Mapping[str, str]:
    """The request's name of each entity column: the join key, or the entity that it belongs to."""
    sent = set(entities.names())
    if sent.issuperset(plan.key_names):
        return plan.key_names
    by_column = {column: entity for entity, column in plan.entity_columns.items() if entity in sent}
    named = {}
    for key in plan.keys:
        name = key.name if key.name in sent else by_column.get(key.name)
        if name is None:
            description = f"is missing: these features need {[item.name for item in plan.keys]}"
            raise InvalidRequestError.of("REQUIRED_FIELD_MISSING", entities.place(key.name), description)
        named[key.name] = name
    return named


def _shared_inputs(
    plan: AnswerPlan, keys: Mapping[str, Sequence[Scalar]], sources: Sequence[Given | None], row_count: int
) -> dict[str, list[Any]]:
    """What every on-demand view of a request takes: its join keys and request data."""
    if not plan.computations:
        return {}
    shared = {name: _python_keys(plan, name, column) for name, column in keys.items()}
    for item in plan.request:
        shared[item.name] = _request_column(item.name, item.value_type, [*filter(None, sources)], row_count)
    return shared


def _python_keys(plan: AnswerPlan, name: str, column: Sequence[Scalar]) -> list[Any]:
    """Join keys as on-demand functions take them: instants as datetimes."""
    encode_key = encoder(_key_type(plan, name))
    try:
        return [python_of(Value.FromString(encode_key(value))) for value in column]
    except ValueEncodeError as error:
        raise InvalidRequestError.of("FIELD_TYPE_MISMATCH", f"entities.{name}", str(error)) from error


def _key_type(plan: AnswerPlan, name: str) -> ValueType:
    return next(key.value_type for key in plan.keys if key.name == name)


def _request_column(name: str, value_type: ValueType, sources: Sequence[Given], row_count: int) -> list[Any]:
    for given in sources:
        if name not in given.names():
            continue
        count = given.count(name)
        if count != row_count:
            description = f"has {count} values for {row_count} rows: send one per row"
            raise InvalidRequestError.of("FIELD_OUT_OF_RANGE", given.place(name), description)
        try:
            values = given.values(name)
            return [python_of(Value.FromString(encode(value_type, value))) for value in values]
        except ValueEncodeError as error:
            raise InvalidRequestError.of("FIELD_TYPE_MISMATCH", given.place(name), str(error)) from error
    description = f"is missing: an on-demand view takes it from the request as {value_type.name}"
    raise InvalidRequestError.of("REQUIRED_FIELD_MISSING", f"request_context.{name}", description)


def _stored_inputs(computation: Computation, answers: Sequence[Columns]) -> dict[str, list[Any]]:
    inputs: dict[str, list[Any]] = {}
    for item in computation.inputs:
        try:
            column = _python_column(answers[item.cell.read], item.cell)
        except ValueEncodeError as error:
            name = computation.view.name
            message = (
                f"what is stored of {item.names[0]!r} cannot be given to on-demand view {name!r}: {error}"
            )
            raise ConditionError("ON_DEMAND_FAILED", message, {"view": name}) from error
        inputs |= dict.fromkeys(item.names, column)
    return inputs


def _python_column(columns: Columns, cell: Cell) -> list[Any]:
    """A stored column as on-demand functions take it."""
    return [python_of(Value.FromString(data)) if data else None for data in _stored(columns, cell.column)]


def _stored(columns: Columns, column: int) -> list[bytes]:
    """The stored values of one column; no bytes where there is none."""
    data, starts = columns.stored
    return [
        data[start : start + length].tobytes() if length > 0 else b""
        for start, length in zip(starts[column].tolist(), columns.lengths[column].tolist(), strict=True)
    ]


def _are_messages(cells: Sequence[bytes]) -> bool:
    """Whether values can be read as they are to be sent: how deep one may be nested counts from the whole response."""
    try:
        GetOnlineFeaturesResponse.FromString(vectors.vector(cells, b""))
    except DecodeError:
        return False
    return True
