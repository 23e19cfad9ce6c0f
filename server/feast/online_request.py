"""Requests for online features: what is asked, and of which rows.

What is asked comes again and again, so it is known by its bytes; only the rows of a request are read anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from server.feast.entities import Given, GivenColumns, GivenMessages
from server.feast.kernels import columns_of
from server.feast.protos import GetOnlineFeaturesRequest
from server.feast.selection import Asked

MOST_KEPT: Final = 1_024
"""Requests that are known again; the oldest is forgotten."""
MOST_KEPT_BYTES: Final = 16_384
"""Longer ones are read anew each time."""
_ENTITIES_TAG: Final = GetOnlineFeaturesRequest.ENTITIES_FIELD_NUMBER << 3 | 2


@dataclass(slots=True, eq=False)
class OnlineRequest:
    """A request, read as far as it has to be.

    Attributes:
        asked: Features and how they are to be called.
        entities: Join keys.
        context: Request data.
        known_by: All of the message but its columns; empty where they were not told apart.
    """

    asked: Asked
    entities: Given
    context: Given
    known_by: bytes = b""


class RequestReader:
    """Reads requests, and remembers what was asked by those that were answered."""

    def __init__(self) -> None:
        self._asked: dict[bytes, Asked] = {}

    def read(self, data: bytes) -> OnlineRequest:
        """Read a serialized `GetOnlineFeaturesRequest`.

        Raises:
            DecodeError: It is none.
        """
        found = columns_of(data)
        if found is None:
            message = GetOnlineFeaturesRequest.FromString(data)
            return OnlineRequest(
                _asked(message),
                GivenMessages("entities", message.entities),
                GivenMessages("request_context", message.request_context),
            )
        entities: dict[str, tuple[bytes, int]] = {}
        context: dict[str, tuple[bytes, int]] = {}
        rest, at = b"", 0
        for tag, name, name_stop, first, last, count, entry, behind in found:
            columns = entities if tag == _ENTITIES_TAG else context
            columns[data[name:name_stop].decode()] = data[first:last], count
            rest += data[at:entry]
            at = behind
        rest += data[at:]
        asked = self._asked.get(rest)
        if asked is None:
            asked = _asked(GetOnlineFeaturesRequest.FromString(rest))
        return OnlineRequest(
            asked, GivenColumns("entities", entities), GivenColumns("request_context", context), rest
        )

    def keep(self, request: OnlineRequest) -> None:
        """Know again what a request asked."""
        key = request.known_by
        if key not in self._asked and 0 < len(key) <= MOST_KEPT_BYTES:
            if len(self._asked) >= MOST_KEPT:
                del self._asked[next(iter(self._asked))]
            self._asked[key] = request.asked


def _asked(message: Any) -> Asked:
    return Asked(
        service=message.feature_service,
        features=tuple(message.features.val),
        full_names=message.full_feature_names,
        view_versions=message.include_feature_view_version_metadata,
    )
