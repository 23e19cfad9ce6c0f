"""Why an address cannot be listened on, and what to do about it."""

from __future__ import annotations

import errno
import socket

_FIXES = {
    errno.EADDRINUSE: "is another server running there? choose another port",
    errno.EADDRNOTAVAIL: "this machine has no such address: choose another --host",
    errno.EACCES: "ports below 1024 are kept for others: choose another port",
}


def refusal_to_listen(host: str, port: int) -> str | None:
    """What keeps a server from listening on host and port, with the fix; None where nothing does."""
    place = f"cannot listen on {host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        return f"{place}: {error.strerror}; choose another --host"
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            return (
                f"{place}: {error.strerror}; {_FIXES.get(error.errno or 0, 'choose another --host or port')}"
            )
    return None
