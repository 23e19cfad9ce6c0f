"""Entity writes for tests, one by one and side by side."""

from __future__ import annotations

import random

import numpy as np

from online.entity_calls import EntityWrites
from online.keys import feature_field, timestamp_field
from online.values import encode_timestamp
from online.words import Spans, runs_of
from online.write import EntityWrite, ViewWrite

VIEWS = ("a", "b", "c")


def random_writes(rng: random.Random, keys: list[bytes], round_number: int) -> list[EntityWrite]:
    """Writes of some entities in a round: of its revision or the one before, of views written, kept and left alone."""
    writes = []
    for key in rng.sample(keys, rng.randrange(1, len(keys))):
        use = {view: rng.choice(["write", "keep", "none"]) for view in VIEWS}
        views = tuple(
            ViewWrite(
                view=view,
                values={feature_field(view, name): rng.randbytes(rng.randrange(20)) for name in "xyz"},
                event_us=1_700_000_000_000_000 + rng.randrange(4) * 10 ** rng.randrange(10),
            )
            for view in VIEWS
            if use[view] == "write"
        )
        writes.append(
            EntityWrite(
                key=key,
                revision=max(0, round_number - rng.randrange(2)),
                views=views,
                kept=tuple(view for view in VIEWS if use[view] == "keep"),
                state={b"s%d" % n: rng.randbytes(rng.randrange(40)) for n in range(rng.randrange(3))},
                dropped=tuple(b"s%d" % n for n in range(3, 3 + rng.randrange(3))),
                memory_s=500,
            )
        )
    return writes


def side_by_side(writes: list[EntityWrite], names: tuple[str, ...] = VIEWS) -> EntityWrites:
    """The same writes as words."""
    everyone = np.arange(len(writes))

    def spans(rows: list[list[bytes]]) -> Spans:
        return runs_of(rows).owned(everyone)

    views = []
    for view in names:
        rows: list[list[bytes]] = [[] for _ in writes]
        for number, change in enumerate(writes):
            if view in change.kept:
                rows[number] = [timestamp_field(view)]
            for own in change.views:
                if own.view == view:
                    rows[number] = [timestamp_field(view), encode_timestamp(own.event_us)]
                    rows[number] += [word for pair in own.values.items() for word in pair]
        views.append(spans(rows))
    return EntityWrites(
        keys=[change.key for change in writes],
        revisions=np.array([change.revision for change in writes], dtype=np.int64),
        lasting=np.zeros(len(writes), dtype=np.bool_),
        memory_s=500,
        views=views,
        state=[spans([[word for pair in change.state.items() for word in pair] for change in writes])],
        dropped=[spans([list(change.dropped) for change in writes])],
    )
