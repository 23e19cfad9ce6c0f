"""Every error of the online store.

OnlineStoreError
├── KeyEncodingError            a join key's value does not fit its type
│   └── MissingJoinKeyError     … or is not there (also a KeyError)
├── ValueEncodeError            a feature's value does not fit its type
├── ValueDecodeError            stored bytes are not what the schema says
├── PlanError                   a read plan names something that cannot be read
├── ReadTooLargeError           one fetch asks for more entities than a pipeline takes, or has too large an answer
├── WriteTooLargeError          one entity's write exceeds the bound of a script call
├── ConnectionStringError       an address that cannot be understood
├── StoreUnsupportedError       the server is too old
├── StoreTopologyError          the address says one kind of store, the server is another
├── StoreUnavailableError       no answer: refused, cut, or too slow; or no writes are taken for now
│   └── StoreLostError          … because the connection broke after the request was sent
└── StoreReplyError             the server answered with an error
"""

from __future__ import annotations


class OnlineStoreError(Exception):
    """Base of all errors raised by `online`."""


class KeyEncodingError(OnlineStoreError):
    """A row cannot be turned into an entity key."""


class MissingJoinKeyError(KeyEncodingError, KeyError):
    """A row lacks a join key, or holds NULL for it."""

    def __str__(self) -> str:
        return str(self.args[0])


class ValueEncodeError(OnlineStoreError):
    """A value does not fit its feature's type."""


class ValueDecodeError(OnlineStoreError):
    """Stored bytes are not a value of the feature's type."""


class PlanError(OnlineStoreError):
    """A read plan asks for what cannot be read."""


class ReadTooLargeError(OnlineStoreError):
    """A fetch asks for more entities than one pipeline takes, or its answer is larger than anybody is to wait for."""


class WriteTooLargeError(OnlineStoreError):
    """A write has more fields than one script call takes."""


class ConnectionStringError(OnlineStoreError):
    """A store address cannot be understood, or cannot be said in Feast's form."""


class StoreUnsupportedError(OnlineStoreError):
    """The server lacks what Waypost relies on."""


class StoreTopologyError(OnlineStoreError):
    """The address is of one kind of store (standalone, cluster, sentinels) and the server is of another."""


class StoreUnavailableError(OnlineStoreError):
    """The store did not answer, or takes no writes for now; whether the last writes happened is unknown."""


class StoreLostError(StoreUnavailableError):
    """The connection broke while an answer was owed."""


class StoreReplyError(OnlineStoreError):
    """The store answered a command with an error."""
