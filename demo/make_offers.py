"""Writes `feature_repo/policy/offers.policy`: one offer for each of the shop's largest categories.

Run once, by `python -m demo.make_offers`; the file it writes is reviewed and committed like any other policy.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb

from demo.data import HELD_OUT_START, data_dir

OFFER_COUNT: Final = 100

NOT_OFFERED: Final = (
    "COUPON/MISC ITEMS",
    "FUEL",
    "PREPAID WIRELESS&ACCESSORIES",
    "CIGARETTES",
    "BEERS/ALES",
    "DOMESTIC WINE",
    "IMPORTED WINE",
    "LIQUOR",
)
"""Not merchandise, or not to be promoted to people whose age is unknown."""

WORDS: Final = {
    "BKD": "baked",
    "BN": "beans",
    "BRKFST": "breakfast",
    "BTR": "butter",
    "CLEANG": "cleaning",
    "CONDIMENTS": "condiments",
    "DNR": "dinner",
    "DRNKS": "drinks",
    "DSH": "dishes",
    "DRSNG": "dressing",
    "FD": "food",
    "FLVRD": "flavoured",
    "FRZN": "frozen",
    "GM": "general",
    "MISC": "other",
    "MW": "microwave",
    "MXS:DRY": "mixes",
    "NOVELTIES": "treats",
    "PCKGD": "packaged",
    "PLY": "supply",
    "PNT": "peanut",
    "REFRGRATD": "refrigerated",
    "SALD": "salad",
    "SHERBTS": "sherbets",
    "SNDWCH": "sandwich",
    "SPLY": "supplies",
    "SPRD": "spread",
    "SWEETNERS": "sweeteners",
    "TISS": "tissues",
    "TRSH": "trash",
    "VEG": "vegetable",
    "WHLSM": "wholesome",
    "WTR": "water",
    "BG": "bags",
}

THEMES: Final = {
    "snacks": "SNACK|COOKIES|CANDY|CRACKERS|SWEET|NOVELTIES|ICE CREAM|CAKES|DESSERTS",
    "dairy": "MILK|CHEESE|YOGURT|EGGS|DAIRY|MARGARIN",
    "drinks": "DRINK|DRNKS|JUICE|COFFEE|WATER|TEAS",
    "fresh": "FRUIT|BERRIES|APPLES|GRAPES|CITRUS|TOMATO|POTATOES|ONIONS|SALAD|VEGETABLES - ALL|ORGANICS",
    "meat": "BEEF|PORK|CHICKEN|TURKEY|MEAT|BACON|SAUSAGE|HOT DOGS|SEAFOOD",
    "frozen": "FROZEN|FRZN",
    "baby": "BABY|INFANT|DIAPER",
    "pets": "DOG|CAT ",
    "household": "LAUNDRY|TISS|TOWEL|CLEANG|DISHWASH|PAPER|TRSH|AIR CARE",
    "care": "HAIR|ORAL|SHAVING|SOAP|MAKEUP|HYGIENE|BODY",
}
"""Tags by what the category's name contains; `HOT DOGS` is a meat, not a pet (see `themes`)."""

_LARGEST: Final = """
SELECT product_category, arg_max(department, spend) AS department, sum(spend) AS total
FROM (
  SELECT product_category, department, sum(sales_value) AS spend
  FROM read_parquet($transactions) JOIN read_parquet($products) USING (product_id)
  WHERE transaction_timestamp < $until AND product_category IS NOT NULL
  GROUP BY ALL
)
WHERE product_category NOT IN (SELECT unnest($not_offered))
GROUP BY product_category ORDER BY total DESC, product_category LIMIT $count
"""

HEADER: Final = """\
# The shop's {count} largest categories by sales before {until:%Y-%m-%d}. Written by `python -m demo.make_offers`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """A category of the assortment and the department that sells most of it."""

    name: str
    department: str


def largest_categories(count: int = OFFER_COUNT) -> list[Category]:
    """The categories with most sales before the held-out weeks, largest first."""
    parameters = {
        "transactions": str(data_dir() / "transactions.parquet"),
        "products": str(data_dir() / "products.parquet"),
        "until": HELD_OUT_START.replace(tzinfo=None),
        "not_offered": list(NOT_OFFERED),
        "count": count,
    }
    with duckdb.connect() as connection:
        rows = connection.sql(_LARGEST, params=parameters).fetchall()
    return [Category(name=name, department=department) for name, department, _ in rows]


def slug(text: str) -> str:
    """A name for the rule language: `FLUID MILK PRODUCTS` becomes `fluid_milk_products`."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def title(category: str) -> str:
    """A heading for people: abbreviations spelt out, `A/B/C` as "A, b & c"."""
    parts = [part.strip() for part in re.split(r"[/&]", category.replace(" - ", ", ")) if part.strip()]
    words = [" ".join(WORDS.get(word.strip("."), word).lower() for word in part.split()) for part in parts]
    text = " & ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
    return text[:1].upper() + text[1:]


def themes(category: str) -> tuple[str, ...]:
    """Theme tags of a category, in the order of `THEMES`."""
    found = (theme for theme, pattern in THEMES.items() if re.search(pattern, category))
    return tuple(theme for theme in found if not (theme == "pets" and category == "HOT DOGS"))


def offer_text(category: Category) -> str:
    """The offer as policy text."""
    name = slug(category.name)
    names = dict.fromkeys(("category", slug(category.department), *themes(category.name)))
    tags = ", ".join(map(json.dumps, names))
    return (
        f"offer {name} (product_category = {json.dumps(category.name)}, offer_id = {json.dumps(name)}):\n"
        f"  content {json.dumps({'title': title(category.name)}, ensure_ascii=False)}\n"
        f"  value 1.0\n"
        f"  tags {tags}\n"
        f"  set category = {json.dumps(category.name)}\n"
    )


def offers_text() -> str:
    """The whole file."""
    header = HEADER.format(count=OFFER_COUNT, until=HELD_OUT_START)
    return "\n".join([header, *map(offer_text, largest_categories())])


if __name__ == "__main__":
    Path("feature_repo/policy/offers.policy").write_text(offers_text(), encoding="utf-8")
