"""The checks that Feast's methods get when they are first called, against those that typeguard gives them at once."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from datetime import timedelta
from types import FunctionType
from typing import Any

import pytest
import typeguard

from server.feast import type_checks

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's own, at import

CLASSES = ("Entity", "FeatureService", "FeatureView", "Field", "Project", "RequestSource")
BUILT = {"__dict__", "__weakref__"}
"""What every class gets of its own."""


def accessors(member: Any) -> tuple[Any, ...]:
    """The functions of a member of a class."""
    match member:
        case classmethod() | staticmethod():
            return (member.__func__,)
        case property():
            return (member.fget, member.fset, member.fdel)
        case _:
            return (member,)


def is_stand_in(function: Any) -> bool:
    return isinstance(function, FunctionType) and function.__code__.co_filename == type_checks.__file__


def undone(member: Any) -> Any:
    """A member as Feast wrote it."""
    functions = [each.__wrapped__ if is_stand_in(each) else each for each in accessors(member)]
    match member:
        case classmethod() | staticmethod() | property():
            return type(member)(*functions)
        case _:
            return functions[0]


def at_once(owner: type) -> Mapping[str, Any]:
    """The members of a class like this one, on which typeguard has its way."""
    members = {name: undone(member) for name, member in vars(owner).items() if name not in BUILT}
    clone: type = type_checks._check(type(owner.__name__, (), members))
    return vars(clone)


@pytest.mark.parametrize("name", CLASSES)
def test_checks_put_off_are_typeguards_own(name: str) -> None:
    """The same methods are checked by the same code, and look the same from outside."""
    import feast

    owner = getattr(feast, name)
    expected = at_once(owner)
    count = 0
    for member_name, member in vars(owner).items():
        if member_name in BUILT:
            continue
        for given, wanted in zip(accessors(member), accessors(expected[member_name]), strict=True):
            if not is_stand_in(given):
                assert given is wanted, member_name
                continue
            count += 1
            assert type_checks._check(given.__wrapped__).__code__ == wanted.__code__, member_name
            assert (given.__name__, given.__qualname__) == (wanted.__name__, wanted.__qualname__)
            assert inspect.signature(given) == inspect.signature(wanted)
            assert inspect.iscoroutinefunction(given) == inspect.iscoroutinefunction(wanted)
            assert vars(given).keys() - {"__wrapped__"} == vars(wanted).keys()
    assert count >= 5


def test_wrong_types_are_refused_the_first_time_and_the_next() -> None:
    """A definition with an argument of a wrong type fails as it does without Waypost."""
    from feast import Entity, FeatureView, Field
    from feast.types import Int64

    for _ in range(2):
        with pytest.raises(typeguard.TypeCheckError, match='argument "name"'):
            Field(name=3, dtype=Int64)
        with pytest.raises(typeguard.TypeCheckError, match='argument "join_keys"'):
            Entity(name="user", join_keys=3)
        with pytest.raises(typeguard.TypeCheckError, match='argument "ttl"'):
            FeatureView(name="view", source=None, ttl=3)
    assert Entity(name="user", join_keys=["user_id"]).join_key == "user_id"
    assert FeatureView(name="view", ttl=timedelta(1)).ttl == timedelta(1)


def test_other_classes_are_checked_at_once() -> None:
    """Only Feast's classes wait; options and functions go to typeguard as they are."""

    class Own:
        def double(self, number: int) -> int:
            return 2 * number

    checked = typeguard.typechecked(Own)
    assert checked is Own
    assert not is_stand_in(vars(Own)["double"])
    with pytest.raises(typeguard.TypeCheckError):
        Own().double("2")  # type: ignore[arg-type]

    @typeguard.typechecked(collection_check_strategy=typeguard.CollectionCheckStrategy.ALL_ITEMS)
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    with pytest.raises(typeguard.TypeCheckError):
        total([1, "2"])  # type: ignore[list-item]
