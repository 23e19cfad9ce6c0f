"""On-demand views: functions of stored features and of the request, run when they are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import structlog

from online.errors import ValueEncodeError
from server.budget import CURRENT
from server.errors import ConditionError
from server.feast.definitions import Function, OnDemandView
from server.feast.encoding import encode
from server.feast.selection import Computation

PANDAS_WORKERS = 2
MAX_WAITING = 64
"""Calls of pandas functions that may wait for a worker; beyond it they are refused at once."""
_log = structlog.get_logger("server")

Column = list[Any]


class Transformer:
    """Runs on-demand functions: python ones at once, pandas ones on threads of their own, off the event loop."""

    def __init__(self, workers: int = PANDAS_WORKERS, max_waiting: int = MAX_WAITING) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="on-demand")
        self._max_open = workers + max_waiting
        self._open = 0

    async def compute(
        self, computation: Computation, columns: Mapping[str, Column], row_count: int
    ) -> list[list[bytes]]:
        """The stored form of each asked feature's values.

        Args:
            computation: What to compute.
            columns: Its inputs: join keys, request data and source features, one list each.
            row_count: Length of those lists.

        Raises:
            ConditionError: The function failed, or returned something else than its schema says.
            BudgetSpentError: There was no worker, or no answer, in time.
        """
        view = computation.view
        if view.mode == "python":
            results = _checked(view, _call_python, view, columns, row_count)
        else:
            results = await self._in_pool(view, columns)
        return [
            _encoded(computation, index, results, row_count) for index in range(len(computation.features))
        ]

    def close(self) -> None:
        """End the threads; a function that is running is waited for."""
        self._pool.shutdown(cancel_futures=True)

    async def _in_pool(self, view: OnDemandView, columns: Mapping[str, Column]) -> Mapping[str, Any]:
        budget = CURRENT.get()
        if self._open >= self._max_open:
            raise budget.spent_error(f"on-demand view {view.name}")
        self._open += 1
        call = asyncio.get_running_loop().run_in_executor(
            self._pool, _checked, view, _call_pandas, view, columns
        )
        call.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(call, budget.left_s())
        except TimeoutError:
            raise budget.spent_error(f"on-demand view {view.name}") from None

    def _done(self, call: asyncio.Future[Any]) -> None:
        self._open -= 1
        if not call.cancelled():
            call.exception()  # seen here where the caller has gone


def _checked(view: OnDemandView, function: Any, *arguments: Any) -> Mapping[str, Any]:
    try:
        results: Mapping[str, Any] = function(*arguments)
    except Exception as error:
        _log.exception("on_demand.failed", view=view.name)
        message = (
            f"on-demand view {view.name!r} failed with {type(error).__name__}: the server's log has the rest"
        )
        raise ConditionError("ON_DEMAND_FAILED", message, {"view": view.name}) from error
    return results


def _call_python(view: OnDemandView, columns: Mapping[str, Column], row_count: int) -> Mapping[str, Any]:
    function = _function(view)
    if not view.singleton:
        return dict(function(dict(columns)))
    rows = [function({name: column[row] for name, column in columns.items()}) for row in range(row_count)]
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def _call_pandas(view: OnDemandView, columns: Mapping[str, Column]) -> Mapping[str, Any]:
    frame = pa.Table.from_pydict({name: _for_arrow(column) for name, column in columns.items()}).to_pandas()
    result = _function(view)(frame)
    return {str(name): result[name].tolist() for name in result.columns}


def _function(view: OnDemandView) -> Function:
    if view.function is None:
        raise TypeError("refused before it is computed")
    return view.function


def _for_arrow(column: Column) -> Column:
    """Sets as lists and UUIDs as text, as Feast puts them into a frame."""
    return [_arrow_value(value) for value in column]


def _arrow_value(value: Any) -> Any:
    if isinstance(value, set | frozenset | list):
        return [_arrow_value(item) for item in value]
    return str(value) if type(value).__name__ == "UUID" else value


def _encoded(computation: Computation, index: int, results: Mapping[str, Any], row_count: int) -> list[bytes]:
    view, feature = computation.view, computation.features[index]
    for name in (feature.name, computation.prefix + feature.name):
        if name in results:
            values = _as_list(results[name], row_count)
            break
    else:
        raise _unlike(view, f"returned no {feature.name!r}")
    if len(values) != row_count:
        raise _unlike(view, f"returned {len(values)} values of {feature.name!r} for {row_count} rows")
    try:
        return [encode(feature.value_type, value) for value in values]
    except ValueEncodeError as error:
        raise _unlike(view, f"returned a {feature.name!r} that does not fit its schema: {error}") from error


def _as_list(values: Any, row_count: int) -> Sequence[Any]:
    if isinstance(values, list | tuple):
        return values
    return values.tolist() if hasattr(values, "tolist") else [values] * min(row_count, 1)


def _unlike(view: OnDemandView, what: str) -> ConditionError:
    return ConditionError("ON_DEMAND_FAILED", f"on-demand view {view.name!r} {what}", {"view": view.name})
