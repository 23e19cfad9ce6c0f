"""Values in messages: as they show themselves, cut where that is long."""

from __future__ import annotations

from reprlib import Repr

MAX_SHOWN_CHARS = 300


def short(value: object) -> str:
    """A value in some thirty characters."""
    return _said(_SHORT, value)


def shown(value: object) -> str:
    """A value in at most about `MAX_SHOWN_CHARS` characters."""
    return _said(_LONG, value)


def _said(form: Repr, value: object) -> str:
    try:
        return form.repr(value)
    except Exception:  # noqa: BLE001 - whatever a value does when it is to show itself
        return f"<{type(value).__name__}>"


_SHORT, _LONG = Repr(), Repr()
_LONG.maxstring = _LONG.maxother = MAX_SHOWN_CHARS
