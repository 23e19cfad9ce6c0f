from __future__ import annotations

from decision.bundle import Bundle
from decision.engine import Decision, Request, decide
from decision.explain import describe, why_not
from decision.lang.compiler import compile_policy
from decision.schema import Value
from tests.support.engine_world import CATALOG, NOW_US, frame

TEXT = """
segment vip: profile.spend > 500

placement home:
  context browsing_category string
  candidates tagged "everyday"
  limit 5
  fallback milk

offer milk (category = "MILK"):
  content {"title": "Milk"}
  value 2.0
  tags "everyday"
  set kind = "dairy"

offer soap (category = "SOAP"):
  content {"title": "Soap"}
  value 1.0
  tags "everyday"
  set kind = "household"

offer premium_electronics (category = "ELECTRONICS"):
  content {"title": "Premium electronics"}
  value 1.0

rule premium_for_spenders on home priority 80:
  IF (profile.spend > 500 AND browsing_category = "electronics")
  THEN display_recommendation("premium_electronics")

rule dairy_bought on home: IF offer.kind = "dairy" AND affinity.spend > 10 THEN exclude()
rule for_vips on home: IF in_segment(vip) THEN boost("soap", 3.0), tag("vip_prices")
rule experiment on home: IF bucket(customer, "salt", 2) = 0 THEN tag("control") ELSE tag("treatment")
"""


def build() -> Bundle:
    compiled = compile_policy({"home.policy": TEXT}, CATALOG, customer_key="customer_id")
    assert compiled.policy is not None, compiled.findings
    return Bundle.build(CATALOG, compiled.policy, {}, "customer_id")


def run(customer: dict[str, Value], milk_spend: float = 0.0, page: str = "electronics") -> Decision:
    request = Request(placement="home", customer_id="42", context={"browsing_category": page})
    values = frame(customer, {"milk": {"affinity.spend": milk_spend}})
    return decide(request, values, build(), now_us=NOW_US, seed=0)


def test_policy_rule_of_the_brief_fires() -> None:
    """The premium rule shows its offer above everything scored, and says so."""
    decision = run({"profile.spend": 900.0, "segments.vip": True})
    assert describe(decision) == [
        "1. premium_electronics, score 1, first with probability 1",
        "   rule premium_for_spenders: shows it above scored offers, priority 80",
        "   value premium_electronics: value 1",
        "2. soap, score 3, first with probability 0",
        "   rule for_vips: multiplies its score by 3 (boost)",
        "   segment vip: read by for_vips",
        "   value soap: value 1",
        "3. milk, score 2, first with probability 0",
        "   value milk: value 2",
        "tag vip_prices",
        f"tag {decision.tags[1]}",
        "in segment vip",
    ]
    assert decision.offers[0].content == {"title": "Premium electronics"}
    assert decision.tags[1] in {"control", "treatment"}


def test_policy_rule_of_the_brief_needs_both_conditions() -> None:
    """On another page, or for a customer who spends less, the premium offer is not shown."""
    assert "premium_electronics" not in {o.offer for o in run({"profile.spend": 900.0}, page="toys").offers}
    assert "premium_electronics" not in {o.offer for o in run({"profile.spend": 500.0}).offers}


def test_policy_candidate_condition_acts_per_candidate() -> None:
    """`exclude()` in a rule about the candidate excludes that candidate alone."""
    assert [ranked.offer for ranked in run({"profile.spend": 1.0}, milk_spend=20.0).offers] == ["soap"]


def test_policy_why_not_tells_what_failed() -> None:
    """The answer quotes the part of the compiled condition that failed."""
    request = Request(placement="home", customer_id="42", context={"browsing_category": "electronics"})
    answer = why_not(build(), request, frame({"profile.spend": 499.0}), "premium_electronics", NOW_US)
    assert [found.detail for found in answer.obstacles] == [
        "it does not compete at home by itself",
        "the rule would add it, but profile.spend > 500.0 is FALSE (profile.spend is 499.0)",
    ]
