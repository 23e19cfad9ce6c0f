"""XGBoost models as flat arrays, scored in Numba to the same bits as XGBoost.

Knows model files and float32 rows; nothing of features' origin, offers or decisions.
"""

from decision.forest.errors import ForestError, ForestInputError, ModelFormatError, UnsupportedModelError
from decision.forest.model import Forest, load_forest

__all__ = [
    "Forest",
    "ForestError",
    "ForestInputError",
    "ModelFormatError",
    "UnsupportedModelError",
    "load_forest",
]
