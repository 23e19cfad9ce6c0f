"""The held-out weeks as live events: published, decided upon and watched, under the virtual clock."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import pandas as pd
import redis

from demo.client import Client
from demo.hits import TOP_K, Baselines, Hits
from demo.timeline import STEP_US, Step, Visit, steps, visits_of
from streaming.keys import PartitionKeys
from waypost.decision.v1 import decision_pb2
from waypost.events.v1 import events_pb2
from waypost.features.v1 import features_pb2

PLACEMENT: Final = "home_hero"
SEED: Final = 20171218
WATCHED: Final = (
    "session:last_browsed_category",
    "session:views_30m",
    "session:cart_adds_30m",
    "session:cart_value_30m",
    "purchase_history:orders_30d",
    "purchase_history:last_month_total",
    "segments:high_intent",
    "segments:cart_abandoner",
    "segments:big_spender",
)
ABANDONED_US: Final = 40 * 60 * 1_000_000


@dataclass(frozen=True, slots=True)
class Moment:
    """What was known of the watched customer at a moment, and what was decided then."""

    label: str
    at_us: int
    features: features_pb2.GetOnlineFeaturesResponse
    decision: decision_pb2.DecideResponse


@dataclass(slots=True)
class Story:
    """One customer, watched over a visit: who fills a cart, leaves it, and comes back to pay.

    Attributes:
        ahead: Moments still to come, as (label, instant), in order.
        moments: What was seen.
    """

    visit: Visit
    ahead: list[tuple[str, int]]
    moments: list[Moment] = field(default_factory=list)


@dataclass(slots=True)
class Outcome:
    """What the replay saw.

    Attributes:
        hits: By way of ranking.
        top_spender: Who spent most in the held-out weeks.
    """

    event_count: int = 0
    impression_count: int = 0
    decision_count: int = 0
    hits: dict[str, Hits] = field(
        default_factory=lambda: {n: Hits() for n in ("decision", "popularity", "recency")}
    )
    story: Story | None = None
    top_spender: str = ""


class Replay:
    """Drives one server through the held-out weeks."""

    def __init__(
        self, client: Client, categories: Mapping[str, str], baselines: Baselines, decisions: int
    ) -> None:
        """Prepare a replay.

        Args:
            client: The server.
            categories: Offer → the category it stands for; only these compete.
            baselines: To compare with.
            decisions: How many visits to decide upon, chosen at random with a fixed seed.
        """
        self._client = client
        self._categories = categories
        self._baselines = baselines
        self._decisions = decisions
        self.outcome = Outcome()

    def run(self, events: pd.DataFrame, progress: Callable[[int, int], None]) -> Outcome:
        """Publish all events in time, and decide for chosen visits before any of their events."""
        visits = visits_of(events)
        reachable = [visit for visit in visits if visit.bought & set(self._categories.values())]
        chosen = random.Random(SEED).sample(reachable, min(self._decisions, len(reachable)))
        decided = {visit.basket_id for visit in chosen}
        self.outcome.story = _story(visits, _last_viewed(events), frozenset(self._baselines.popular[:10]))
        bought = events.loc[events["event_type"] == "purchase"]
        self.outcome.top_spender = str(bought.groupby("customer_id")["sales_value"].sum().idxmax())
        for step in steps(events, visits):
            self._take(step, decided)
            progress(self.outcome.event_count, len(events))
        return self.outcome

    def _take(self, step: Step, decided: set[str]) -> None:
        self._client.advance(step.starts_us)
        # In life 15 minutes pass here: without the wait, the backlog of a fast replay would look like staleness.
        self._client.wait_until_applied(step.starts_us)
        wanted = [visit for visit in step.visits if visit.basket_id in decided]
        self._watch(step.starts_us)
        shown = [event for visit in wanted for event in self._decide(visit, step.starts_us)]
        self._client.advance(step.ends_us)
        self.outcome.impression_count += self._client.publish(shown)
        self.outcome.event_count += self._client.publish(step.events)
        for event in step.events:
            if event.event_type == "purchase":
                category = event.properties.fields["product_category"].string_value
                if category in self._categories.values():
                    at_us = event.event_time.ToMicroseconds()
                    self._baselines.buy(event.customer_id, [category], at_us)

    def _decide(self, visit: Visit, now_us: int) -> list[events_pb2.Event]:
        """Decide for a visit that is about to begin; returns the impressions of what is shown."""
        seed = int(visit.basket_id)
        answer = self._client.decide(PLACEMENT, visit.customer_id, limit=TOP_K, seed=seed)
        ranked = [self._categories[offer.offer] for offer in answer.offers if offer.offer in self._categories]
        bought = visit.bought & frozenset(self._categories.values())
        self.outcome.hits["decision"].add(ranked, bought)
        self.outcome.hits["popularity"].add(self._baselines.popular, bought)
        self.outcome.hits["recency"].add(self._baselines.by_recency(visit.customer_id), bought)
        self.outcome.decision_count += 1
        return impressions(answer, visit.customer_id, now_us)

    def _watch(self, now_us: int) -> None:
        story = self.outcome.story
        while story is not None and story.ahead and story.ahead[0][1] <= now_us:
            label, _ = story.ahead.pop(0)
            customer_id = story.visit.customer_id
            story.moments.append(
                Moment(
                    label=label,
                    at_us=now_us,
                    features=self._client.features(WATCHED, {"customer_id": customer_id}),
                    decision=self._client.decide(PLACEMENT, customer_id, limit=TOP_K, seed=SEED),
                )
            )


def impressions(answer: decision_pb2.DecideResponse, customer_id: str, now_us: int) -> list[events_pb2.Event]:
    """One event for each offer that a decision shows."""
    events = []
    for position, offer in enumerate(answer.offers, start=1):
        event = events_pb2.Event(
            event_id=f"{answer.decision_id}-{position}", event_type="impression", customer_id=customer_id
        )
        event.event_time.FromMicroseconds(now_us)
        event.properties.update(
            {
                "offer_id": offer.offer,
                "placement": PLACEMENT,
                "decision_id": answer.decision_id,
                "position": position,
            }
        )
        events.append(event)
    return events


def count_segment_changes(
    client: redis.Redis, project: str, partition_count: int
) -> dict[tuple[str, bool], int]:
    """Entries and exits in the change log, by segment."""
    counts: dict[tuple[str, bool], int] = {}
    for partition in range(partition_count):
        entries = client.xrange(PartitionKeys(project, partition).changes)
        for _, fields in entries:  # type: ignore[union-attr]
            change = (fields[b"segment"].decode(), fields[b"entered"] == b"1")
            counts[change] = counts.get(change, 0) + 1
    return counts


def _story(visits: list[Visit], last_viewed: Mapping[str, str], offered: frozenset[str]) -> Story | None:
    """The first visit in which a cart is left for a while before it is paid, and what was viewed last is `offered`."""
    for visit in visits:
        left_for_a_while = visit.paid_us - visit.starts_us > 2 * ABANDONED_US
        if left_for_a_while and last_viewed.get(visit.basket_id) in offered:
            return Story(
                visit=visit,
                ahead=[
                    ("before the visit", visit.starts_us - STEP_US),
                    ("cart filled", visit.starts_us + STEP_US),
                    ("cart left", visit.paid_us - STEP_US),
                    ("paid", visit.paid_us + STEP_US),
                ],
            )
    return None


def _last_viewed(events: pd.DataFrame) -> dict[str, str]:
    """Category of the last view of each basket; the derived events' ids begin with the basket's."""
    views = events.loc[events["event_type"] == "view"]
    baskets = views["event_id"].str.split("-").str[0]
    last: dict[str, str] = views.groupby(baskets, sort=False)["product_category"].last().to_dict()
    return last
