"""What can go wrong in training.

```
TrainingError
├── DefinitionError    a training definition cannot be used
├── DatasetError       the set cannot be built from what the offline store holds
├── GateRefusedError   the trained model is not good enough to be kept
└── RegistryError      a stored model is missing, damaged or of an unknown form
```
"""

from __future__ import annotations


class TrainingError(Exception):
    """Root of this package's errors; the message names the place and the fix."""


class DefinitionError(TrainingError):
    """A training definition cannot be used."""


class DatasetError(TrainingError):
    """The set cannot be built from what the offline store holds."""


class GateRefusedError(TrainingError):
    """The trained model is not good enough to be kept."""


class RegistryError(TrainingError):
    """A stored model is missing, damaged or of an unknown form."""
