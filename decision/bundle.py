"""The bundle: catalog, policy and models as one immutable, content-addressed whole that decisions are made with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from decision.collector import CollectorPaused
from decision.errors import UnknownPlacementError, nearest
from decision.labelling import LabelHandle, Model
from decision.plan import PlacementPlan
from decision.planner import Planner
from decision.policy import Policy
from decision.schema import Catalog
from decision.scoring import ModelHandle

__all__ = ["Bundle", "LabelHandle", "Model", "ModelHandle", "PlacementPlan"]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Everything that decides, prepared.

    Attributes:
        models: Loaded models by name.
        version: SHA-256 over catalog, policy sources and customer key, in hex. Models carry their own versions.
    """

    catalog: Catalog
    policy: Policy
    models: Mapping[str, Model]
    customer_key: str
    version: str
    plans: Mapping[str, PlacementPlan]

    @classmethod
    @CollectorPaused()
    def build(
        cls, catalog: Catalog, policy: Policy, models: Mapping[str, Model], customer_key: str
    ) -> Bundle:
        """Prepare every placement.

        Args:
            catalog: The repo's definitions.
            policy: A policy bound to that catalog.
            models: Loaded models by the names that placements and conditions use. A placement whose model, or one of
                whose labels', is missing still decides, degraded.
            customer_key: Name of the join key that a request's customer id is.

        Raises:
            BundleError: If the parts do not fit together.
        """
        planner = Planner(catalog=catalog, policy=policy, models=models, customer_key=customer_key)
        return cls(
            catalog=catalog,
            policy=policy,
            models=MappingProxyType(dict(models)),
            customer_key=customer_key,
            version=_version(catalog, policy, customer_key),
            plans=MappingProxyType(
                {placement.name: planner.plan(placement) for placement in policy.placements}
            ),
        )

    def placement(self, name: str) -> PlacementPlan:
        """What to read and run for a placement; UnknownPlacementError where there is none of that name."""
        plan = self.plans.get(name)
        if plan is None:
            raise UnknownPlacementError("placement", f"no placement {name!r}", nearest(name, self.plans))
        return plan


def _version(catalog: Catalog, policy: Policy, customer_key: str) -> str:
    parts = (catalog.content_hash, policy.source_hash, customer_key)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
