"""Explains decisions beside serving: one at a time, on a thread of its own, so that those who decide do not wait."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from decision.bundle import Bundle, PlacementPlan
from decision.errors import nearest
from server import decision_files
from server.bounds import check_count, check_names, check_size
from server.budget import Budget
from server.bundles import BundleKeeper, BundleMissingError, kept_bundle
from server.deciding import loaded_labellers, loaded_model
from server.decision_codec import models_of
from server.errors import ConditionError, InvalidRequestError, UnknownResourceError
from server.explaining import WHY_NOT_MAX, explain_record
from server.models import ModelError
from server.replay import ReplayError
from waypost.decision.v1 import decision_pb2

ID_CHARS_MAX: Final = 100
BUNDLES_KEPT: Final = 2
"""Bundles of the past that stay compiled."""


class Explainer:
    """Puts records into words.

    Args:
        bundles: What decides now.
        decisions_dir: The decision log.
        bundles_dir: Bundles that served.
        models_dir: The model registry.
    """

    def __init__(
        self, bundles: BundleKeeper, decisions_dir: Path, bundles_dir: Path, models_dir: Path
    ) -> None:
        self._bundles = bundles
        self._decisions_dir = decisions_dir
        self._bundles_dir = bundles_dir
        self._models_dir = models_dir
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="explain")
        self._past: OrderedDict[tuple[str, tuple[str, ...]], Bundle] = OrderedDict()

    async def logged(
        self, decision_id: str, offers: Sequence[str], budget: Budget
    ) -> decision_pb2.ExplainResponse:
        """Explain a decision of the log.

        Raises:
            UnknownResourceError: No such decision, bundle or model is kept here.
            ConditionError: Another version of the engine decided.
            InvalidRequestError: The policy has no such offer.
            BudgetSpentError: It took too long.
        """
        check_size("decision_id", len(decision_id), ID_CHARS_MAX)
        return await self._run(lambda: self._explain(self._find(decision_id), offers), budget)

    async def decided(
        self, record: decision_pb2.DecisionRecord, bundle: Bundle, offers: Sequence[str], budget: Budget
    ) -> decision_pb2.ExplainResponse:
        """Explain a decision that was just made; raises as `logged`."""
        return await self._run(lambda: _explained(record, bundle, offers), budget)

    def close(self) -> None:
        """Give up what waits, and let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(
        self, work: Callable[[], decision_pb2.ExplainResponse], budget: Budget
    ) -> decision_pb2.ExplainResponse:
        loop = asyncio.get_running_loop()
        try:
            return await asyncio.wait_for(loop.run_in_executor(self._thread, work), budget.left_s())
        except TimeoutError:
            raise budget.spent_error("explanation") from None

    def _find(self, decision_id: str) -> decision_pb2.DecisionRecord:
        record = decision_files.find(self._decisions_dir, decision_id)
        if record is None:
            message = f"no decision {decision_id!r} in the log here; one is readable 100 ms after its answer"
            raise UnknownResourceError("UNKNOWN_DECISION", message, "decision", decision_id)
        return record

    def _explain(
        self, record: decision_pb2.DecisionRecord, offers: Sequence[str]
    ) -> decision_pb2.ExplainResponse:
        return _explained(record, self._bundle(record), offers)

    def _bundle(self, record: decision_pb2.DecisionRecord) -> Bundle:
        """The bundle and models that decided: the serving one, one of the last asked for, or compiled anew."""
        now = self._bundles.current.bundle
        if now.version == record.bundle_version:
            plan = now.plans.get(record.request.placement)
            if plan is not None and _loaded(plan) == models_of(record):
                return now
        key = record.bundle_version, models_of(record)
        if key not in self._past:
            self._past[key] = self._kept(*key)
        self._past.move_to_end(key)
        while len(self._past) > BUNDLES_KEPT:
            self._past.popitem(last=False)
        return self._past[key]

    def _kept(self, version: str, models: tuple[str, ...]) -> Bundle:
        try:
            return kept_bundle(self._bundles_dir, self._models_dir, version, models)
        except BundleMissingError as error:
            raise UnknownResourceError("BUNDLE_NOT_KEPT", str(error), "bundle", version) from error
        except ModelError as error:
            raise UnknownResourceError("BUNDLE_NOT_KEPT", str(error), "model", ", ".join(models)) from error


def _loaded(plan: PlacementPlan) -> tuple[str, ...]:
    return (*filter(None, [loaded_model(plan)]), *loaded_labellers(plan))


def check_offers(offers: Sequence[str], limit: int) -> None:
    """Refuse too many offers, or names that are too long."""
    check_count("why_not", len(offers), WHY_NOT_MAX)
    check_names("why_not", offers, limit)


def _explained(
    record: decision_pb2.DecisionRecord, bundle: Bundle, offers: Sequence[str]
) -> decision_pb2.ExplainResponse:
    known = [offer.name for offer in bundle.policy.offers]
    for index, offer in enumerate(offers):
        if offer not in known:
            suggestion = nearest(offer, known)
            hint = f"; did you mean {suggestion!r}?" if suggestion else ""
            message = f"no offer {offer!r} in the policy{hint}"
            raise InvalidRequestError.of("UNKNOWN_CANDIDATE", f"why_not[{index}]", message)
    try:
        return explain_record(record, bundle, offers)
    except ReplayError as error:
        raise ConditionError("ENGINE_MISMATCH", str(error)) from error
