"""What can go wrong with a forest.

* ForestError
    * ModelFormatError        the bytes are not a sound XGBoost model
    * UnsupportedModelError   sound, but its margins could not be reproduced to the bit
    * ForestInputError        rows, values or an iteration range that the model cannot take
"""

from __future__ import annotations


class ForestError(Exception):
    """Base of all errors of `decision.forest`."""


class ModelFormatError(ForestError):
    """The bytes are cut short, malformed, or contradict themselves; the message names the field."""


class UnsupportedModelError(ForestError):
    """The model is refused because its margins could not be reproduced to the bit."""


class ForestInputError(ForestError):
    """Rows, values or an iteration range do not fit the model."""
