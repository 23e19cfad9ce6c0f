from __future__ import annotations

import binascii
import hashlib

import pytest

from decision.schema import JoinKey, Value, ValueType
from online.errors import KeyEncodingError, MissingJoinKeyError
from online.keys import EntityKeys, feature_field, slot_of, state_key, timestamp_field
from online.slots import slot_tags


def keys(project: str = "demo", **types: ValueType) -> EntityKeys:
    """Make an encoder from join key names and types."""
    return EntityKeys(
        project, [JoinKey(name=name, value_type=value_type) for name, value_type in types.items()]
    )


I32, I64, TEXT, RAW, TIME = (
    ValueType.INT32,
    ValueType.INT64,
    ValueType.STRING,
    ValueType.BYTES,
    ValueType.UNIX_TIMESTAMP,
)
TWO = "0200000002000000070000006974656d5f69640200000007000000757365725f6964"
USER = "010000000200000007000000757365725f6964"


@pytest.mark.parametrize(
    ("encoder", "row", "expected"),
    [
        (keys(user_id=I64), {"user_id": 1001}, USER + "0400000008000000e90300000000000064656d6f"),
        (keys(user_id=I32), {"user_id": 1001}, USER + "0300000004000000e903000064656d6f"),
        (keys(user_id=TEXT), {"user_id": "u1"}, USER + "0200000002000000753164656d6f"),
        (
            keys(user_id=I64, item_id=I64),
            {"user_id": 1001, "item_id": 7},
            TWO + "040000000800000007000000000000000400000008000000e90300000000000064656d6f",
        ),
        (keys(d=RAW), {"d": b"\x00\xff"}, "01000000020000000100000064010000000200000000ff64656d6f"),
        (
            keys(t=TIME),
            {"t": 1_700_000_000_999_999},
            "01000000020000000100000074080000000800000000f153650000000064656d6f",
        ),
        (keys(), {}, "01000000020000000a0000005f5f64756d6d795f6964020000000000000064656d6f"),
    ],
    ids=["int64", "int32", "string", "two", "bytes", "timestamp", "entityless"],
)
def test_keys_are_the_bytes_of_feast(encoder: EntityKeys, row: dict[str, Value], expected: str) -> None:
    """Keys equal those Feast 0.67 was seen to write."""
    assert encoder.encode(row).hex() == expected


def test_fields_are_the_bytes_of_feast() -> None:
    """Feature fields are little-endian murmur3, timestamps a plain name."""
    assert feature_field("user_fv", "a").hex() == "02243149"
    assert feature_field("driver_hourly_stats", "conv_rate").hex() == "6160e3da"
    assert timestamp_field("user_fv") == b"_ts:user_fv"


def test_keys_take_integers_as_canonical_text() -> None:
    """Text stands for an integer in one spelling only, so no entity has two names."""
    assert keys(user_id=I64).encode({"user_id": "-1001"}) == keys(user_id=I64).encode({"user_id": -1001})
    for text in ("007", "+7", "-0", "7.0", " 7", "", "-", "٧", "1" * 30):
        with pytest.raises(KeyEncodingError, match=r"'user_id'.*whole number"):
            keys(user_id=I64).encode({"user_id": text})


@pytest.mark.parametrize(
    ("value_type", "value", "message"),
    [
        (I32, 2**31, "out of range for INT32"),
        (I64, 2**63, "out of range for INT64"),
        (TIME, 2**63 * 1_000_000, "out of range"),
        (I64, True, "whole number"),
        (I64, 1.0, "whole number"),
        (TEXT, 7, "send STRING as text"),
        (TEXT, "\ud800", "not valid Unicode"),
        (TEXT, "x" * 65_537, "at most 65536"),
        (RAW, "text", "send BYTES as bytes"),
    ],
)
def test_keys_refuse_what_does_not_fit(value_type: ValueType, value: Value, message: str) -> None:
    """A join key of the wrong type is refused by name, never turned into another entity's key."""
    with pytest.raises(KeyEncodingError, match="'user_id'") as caught:
        keys(user_id=value_type).encode({"user_id": value})
    assert message in str(caught.value)


@pytest.mark.parametrize("row", [{}, {"user_id": None}])
def test_keys_name_the_missing_join_key(row: dict[str, Value]) -> None:
    """A missing or null join key is a KeyError that names it."""
    with pytest.raises(MissingJoinKeyError) as caught:
        keys(user_id=I64).encode(row)
    assert isinstance(caught.value, KeyError)
    assert str(caught.value) == "join key 'user_id' is missing; give it a value"


def test_keys_refuse_impossible_join_keys() -> None:
    """Types Feast cannot encode, and a join key named twice, fail when the plan is made."""
    with pytest.raises(KeyEncodingError, match="DOUBLE"):
        keys(user_id=ValueType.DOUBLE)
    twice = JoinKey(name="user_id", value_type=I64)
    with pytest.raises(KeyEncodingError, match="twice"):
        EntityKeys("demo", [twice, twice])


def test_slots_follow_the_cluster_specification() -> None:
    """Slots match the published examples, hash tags included."""
    assert slot_of(b"123456789") == 0x31C3
    assert slot_of(b"{user1000}.following") == slot_of(b"user1000")
    assert (
        slot_of(b"foo{}{bar}") == binascii.crc_hqx(b"foo{}{bar}", 0) % 16_384
    )  # an empty tag hashes the whole key
    assert slot_of(b"foo{{bar}}zap") == slot_of(b"{bar")
    assert slot_of(b"foo{bar}{zap}") == slot_of(b"bar")
    assert slot_of(b"foo{bar") != slot_of(b"bar")


def test_slot_tags_cover_every_slot_and_never_change() -> None:
    """Each slot has one tag that hashes to it; stored state would be lost if the table moved."""
    tags = slot_tags()
    assert [slot_of(tag) for tag in tags] == list(range(16_384))
    assert (
        hashlib.sha256(b"".join(tags)).hexdigest()
        == "22a382faa224f82f4fd294f364728a852b2994681d661858723892c5c1dceb09"
    )


def test_state_keys_share_the_slot_of_their_entity() -> None:
    """State and entity are in one slot, also where the entity's own bytes contain a hash tag."""
    for text in ("u1", "a{b}c", "{", "}{", "{}", "x{}y{z}"):
        key = keys(user_id=TEXT).encode({"user_id": text})
        assert slot_of(state_key(key)) == slot_of(key)
        assert state_key(key).endswith(b"}wp:" + key)
