"""Which store an installation uses: the one given, or the one that the repo's `feature_store.yaml` names."""

from __future__ import annotations

from online.address import parse_address, url_of
from online.errors import ConnectionStringError
from server.config import ConfigError, Settings

OF_REPO = "feast"
"""Given as the store, it stands for the repo's own, as Feast itself uses it."""


def store_url(settings: Settings) -> str:
    """Return the URL of the store that a part of an installation is to use.

    Raises:
        ConfigError: None is given and the repo's is not Redis, or what is given cannot be understood.
        RepoError: The repo's cannot be understood.
    """
    given = settings.redis_url
    if given is not None and given != OF_REPO:
        try:
            return url_of(parse_address(given))
        except ConnectionStringError as error:
            raise ConfigError(f"--redis-url (WAYPOST_REDIS_URL): {error}") from error
    from server.repo import load_feast_store

    store = load_feast_store(settings.repo)
    if store is None:
        raise ConfigError(
            "which store? give --redis-url or WAYPOST_REDIS_URL, or an online_store of type redis in "
            f"{settings.repo}/feature_store.yaml (`waypost up` starts one of its own)"
        )
    return store.url
