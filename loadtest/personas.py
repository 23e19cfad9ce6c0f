"""Who comes to the shop, how often, and what they do there."""

from __future__ import annotations

import random

from locust import constant_throughput, task

from loadtest.client import DEADLINE_S, GrpcUser, report
from loadtest.customers import ZipfCustomers
from loadtest.shop import CUSTOMER_COUNT, Shopper
from waypost.events.v1 import events_pb2

SEED = 20_171_231
customers = ZipfCustomers(CUSTOMER_COUNT, seed=SEED)
choices = random.Random(SEED)


class EventRefusedError(Exception):
    """The server refused an event that this module believes to be good."""


class ShopUser(GrpcUser):
    """Visits as one customer after another."""

    abstract = True

    def shopper(self) -> Shopper:
        """Draw the customer of the next visit."""
        return Shopper(customer_id=str(customers.draw()), choices=choices)

    def publish(self, request: events_pb2.PublishEventsRequest) -> None:
        """Publish, and count every refused event as a failure of its own."""
        answer = self.events.PublishEvents(request, timeout=DEADLINE_S)
        for result in answer.results:
            if not result.accepted:
                report(self.environment, "refused event", error=EventRefusedError(result.error.message))

    def decide(self, shopper: Shopper, placement: str) -> None:
        """Ask for a decision."""
        self.decisions.Decide(shopper.asks(placement), timeout=DEADLINE_S)


class Browser(ShopUser):
    """Looks around; every page asks what to show."""

    weight = 6
    wait_time = constant_throughput(5)

    @task(4)
    def look(self) -> None:
        """View a category and get a page."""
        shopper = self.shopper()
        self.publish(shopper.looks())
        self.decide(shopper, "home_hero")

    @task(1)
    def fill_cart(self) -> None:
        """View, then add to the cart."""
        shopper = self.shopper()
        self.publish(shopper.looks())
        self.publish(shopper.adds_to_cart())


class Buyer(ShopUser):
    """Comes to buy."""

    weight = 2
    wait_time = constant_throughput(2)

    @task
    def check_out(self) -> None:
        """Fill a cart, be offered something more, pay."""
        shopper = self.shopper()
        self.publish(shopper.adds_to_cart())
        self.decide(shopper, "checkout")
        self.publish(shopper.buys())


class Mailer(ShopUser):
    """A backend that prepares the weekly e-mail: decisions only, as fast as its share allows."""

    weight = 2
    wait_time = constant_throughput(10)

    @task(9)
    def write_mail(self) -> None:
        """Ask what to write to a customer."""
        self.decide(self.shopper(), "weekly_email")

    @task(1)
    def look_up(self) -> None:
        """Read a customer's features."""
        self.features.GetOnlineFeatures(self.shopper().is_looked_up(), timeout=DEADLINE_S)
