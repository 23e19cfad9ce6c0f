"""Policy texts that nobody means well with, by what is wrong with them."""

from __future__ import annotations

import random

from decision.lang.limits import SOURCE_CHARS_MAX

MEGABYTE = 1_000_000
NOISE = "".join(random.Random(7).choices("abc (){}[]\"'`=<>%.,:#-\n\t0123é\0", k=MEGABYTE))

HOSTILE = {
    "noise": NOISE,
    "parentheses": "(" * 10_000,
    "nested condition": "segment a: " + "(" * 10_000 + "1" + ")" * 10_000,
    "nested case": "segment a: " + "CASE WHEN " * 5_000,
    "nots": "segment a: " + "NOT " * 10_000 + "TRUE",
    "signs": "segment a: " + "- " * 12_000 + "1 > 2",
    "long IN": f"segment a: orders_30d IN ({'1, ' * 100_000}1)",
    "long sum": "segment a: " + "1 + " * 5_000 + "1 > 2",
    "long OR": "segment a: " + " OR ".join(["orders_30d > 1"] * 5_000),
    "long broken declarations": ("segment a: orders_30d IN (" + "1," * 9_000 + "1) x\n") * 55,
    "half declarations": "rule x\n" * 140_000,
    "repeated declarations": "segment a: x > 1\n" * 60_000,
    "huge number": "segment a: orders_30d > " + "9" * 500_000,
    "huge interval": "segment a: now() - " + "9" * 500_000 + " days > epoch()",
    "huge name": "segment " + "a" * MEGABYTE + ": orders_30d > 1",
    "open string": 'segment a: device = "' + "x" * MEGABYTE,
    "deep JSON": "offer a: content " + '{"a":' * 100_000,
    "deep array": "offer a: content {" + '"a":' + "[" * 100_000,
    "surrogate": 'offer a: content {"a": "\\ud800"}',
    "lone surrogate": "segment a: orders_30d = '\ud800'",
    "patterns": "segment a: device LIKE '" + "%a" * 10_000 + "'",
    "cycles": "\n".join(f"segment s{n}: in_segment(s{(n + 1) % 300})" for n in range(300)),
    "chain": "\n".join(f"segment s{n}: in_segment(s{n + 1})" for n in range(3_000)),
    "too long": " " * (SOURCE_CHARS_MAX + 1),
}
