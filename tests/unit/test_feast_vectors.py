"""Response columns as bytes are what protobuf writes, and come apart again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.feast import vectors
from server.feast.protos import GetOnlineFeaturesResponse, Value

values = st.one_of(
    st.just(Value()),
    st.integers(-(2**63), 2**63 - 1).map(lambda number: Value(int64_val=number)),
    st.text(max_size=300).map(lambda text: Value(string_val=text)),
)


@given(st.lists(st.lists(st.tuples(values, st.integers(0, 4)), max_size=5), max_size=5))
def test_vectors_are_those_of_protobuf_and_come_apart(columns: list[list[tuple[Value, int]]]) -> None:
    """A response made of them parses to the same columns, and each splits off whole."""
    parts = [
        vectors.vector(
            [value.SerializeToString() for value, _ in column], bytes(status for _, status in column)
        )
        for column in columns
    ]
    response = GetOnlineFeaturesResponse.FromString(b"".join(parts))
    for result, column in zip(response.results, columns, strict=True):
        assert list(result.values) == [value for value, _ in column]
        assert list(result.statuses) == [status for _, status in column]
        assert len(result.event_timestamps) == len(column)
    assert vectors.split(memoryview(b"".join(parts))) == parts
