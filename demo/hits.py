"""How often what is ranked first is what the customer then buys, for the decision and for two baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

TOP_K = 5


@dataclass(slots=True)
class Hits:
    """Of one way to rank: visits seen, and how many of the top categories were bought."""

    visits: int = 0
    first: int = 0
    any_of_top: int = 0
    bought_of_top: int = 0

    def add(self, ranked: Sequence[str], bought: frozenset[str]) -> None:
        """Count one visit."""
        top = ranked[:TOP_K]
        found = sum(category in bought for category in top)
        self.visits += 1
        self.first += bool(top) and top[0] in bought
        self.any_of_top += found > 0
        self.bought_of_top += found

    def rates(self) -> dict[str, float]:
        """Share of visits whose first category was bought, any of the top was, and precision of the top."""
        visits = max(self.visits, 1)
        return {
            "first": self.first / visits,
            "any_of_top": self.any_of_top / visits,
            "precision": self.bought_of_top / (visits * TOP_K),
        }


@dataclass(slots=True)
class Baselines:
    """The two honest ways to rank without Waypost, over the same candidates.

    Attributes:
        popular: Categories by purchases of all customers in the 30 days before the live part.
        recent: By customer: category → time of the last purchase, kept up to date by `buy`.
    """

    popular: list[str]
    recent: dict[str, dict[str, int]] = field(default_factory=dict)

    @staticmethod
    def of(history: pd.DataFrame, candidates: frozenset[str], until: pd.Timestamp) -> Baselines:
        """Count over the history; only `candidates` compete."""
        bought = history.loc[history["product_category"].isin(candidates)]
        late = bought.loc[bought["event_time"] >= until - pd.Timedelta(days=30)]
        baselines = Baselines(popular=late["product_category"].value_counts().index.tolist())
        newest = bought.groupby(["customer_id", "product_category"], sort=False)["event_time"].max()
        for (customer_id, category), moment in newest.items():
            baselines.recent.setdefault(customer_id, {})[category] = moment.value // 1000
        return baselines

    def buy(self, customer_id: str, categories: Sequence[str], at_us: int) -> None:
        """Note a purchase."""
        self.recent.setdefault(customer_id, {}).update(dict.fromkeys(categories, at_us))

    def by_recency(self, customer_id: str) -> list[str]:
        """The customer's categories, last bought first; of one basket the more popular first; then by popularity."""
        own: Mapping[str, int] = self.recent.get(customer_id, {})
        rank = {category: place for place, category in enumerate(self.popular)}
        ordered = sorted(own, key=lambda category: (-own[category], rank.get(category, len(rank))))
        return ordered + [category for category in self.popular if category not in own]
