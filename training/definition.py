"""Training definitions: `models/*.yaml` of a repo, checked."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal, Self, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.errors import DefinitionError

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
_NAME = r"^[a-z][a-z0-9_]{0,62}$"
_YEAR_S = 366 * 86_400


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


UtcTime = Annotated[datetime, AfterValidator(_utc)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Label(_Part):
    """What is predicted: an event of this type, with these keys, within (t, t + horizon]."""

    event_type: str
    join_keys: tuple[str, ...] = Field(min_length=1, max_length=8)
    horizon_s: int = Field(ge=1, le=_YEAR_S)

    @property
    def horizon_us(self) -> int:
        return self.horizon_s * 1_000_000


class DecisionTimes(_Part):
    """When decisions are imagined: for each entity once in every period, at an instant spread over `jitter_s`.

    Attributes:
        entity: The join key whose entities decide (the customer). Candidates supply the label's other keys.
        active_within_s: Only entities with an event of the label's type in [t − this, t] take part.
    """

    entity: str
    every_s: int = Field(ge=60, le=_YEAR_S)
    jitter_s: int = Field(ge=0, le=_YEAR_S)
    active_within_s: int = Field(ge=1, le=_YEAR_S)


class Candidates(_Part):
    """Which offers supply the label's other keys: all that carry the tag, with these of their join keys."""

    tag: str
    join_keys: tuple[str, ...] = Field(min_length=1, max_length=8)


class SplitRange(_Part):
    """A stretch of time. A row belongs to it if its decision and its whole horizon lie in [start, end].

    `sample` is the share of (entity, period) pairs that is kept; all candidates of a kept pair stay together.
    """

    start: UtcTime
    end: UtcTime
    sample: float = Field(default=1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.start >= self.end:
            raise ValueError(f"start {self.start} is not before end {self.end}")
        return self


class Splits(_Part):
    """Three stretches of time, one after the other: no row of a later one is older than a row of an earlier one."""

    train: SplitRange
    validation: SplitRange
    test: SplitRange

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.train.end > self.validation.start or self.validation.end > self.test.start:
            raise ValueError(
                "splits overlap: train must end before validation starts, and validation before test"
            )
        return self

    def by_name(self, name: SplitName) -> SplitRange:
        """The split of that name."""
        split: SplitRange = getattr(self, name)
        return split


class Boosting(_Part):
    """How the forest grows; `parameters` go to XGBoost as they are."""

    parameters: dict[str, str | int | float] = Field(default_factory=dict)
    max_rounds: int = Field(default=200, ge=1, le=10_000)
    early_stopping_rounds: int = Field(default=20, ge=1, le=1_000)


class Baseline(_Part):
    """A prediction by one feature: the share of positives among training rows with a similar value of it."""

    name: str = Field(pattern=_NAME)
    feature: str = Field(pattern=r"^\w+\.\w+$", description="view.feature, one of the feature service's")


class Gate(_Part):
    """What a model must reach on the test split to be kept."""

    min_auc_gain: float = Field(default=0.0, ge=-1, le=1, description="AUC above the best baseline's.")
    max_log_loss_ratio: float = Field(
        default=1.0, gt=0, le=10, description="Log-loss as a part of the best baseline's."
    )
    max_calibration_error: float = Field(default=0.02, gt=0, le=1)


class TrainingDefinition(_Part):
    """One model's training, whole."""

    name: str = Field(pattern=_NAME)
    description: str = ""
    feature_service: str
    label: Label
    decision_times: DecisionTimes
    candidates: Candidates
    splits: Splits
    boosting: Boosting = Boosting()
    baselines: tuple[Baseline, ...] = ()
    gate: Gate = Gate()
    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        supplied = {self.decision_times.entity, *self.candidates.join_keys}
        if supplied != set(self.label.join_keys):
            raise ValueError(
                f"the label's join keys {sorted(self.label.join_keys)} must be the entity's and the candidates', "
                f"{sorted(supplied)}"
            )
        return self

    @property
    def content_hash(self) -> str:
        """SHA-256 of the canonical definition, in hex."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class SegmentationDefinition(_Part):
    """The training of a model that tells each customer's segment.

    Attributes:
        entity: The customer's join key.
        feature_service: Its features must be keyed by the entity alone.
        instants: When the features are read: a row for each entity that an event came from up to then.
    """

    name: str = Field(pattern=_NAME)
    description: str = ""
    feature_service: str
    entity: str
    instants: tuple[UtcTime, ...] = Field(min_length=1, max_length=1_000)
    seed: int = Field(default=0, ge=0, lt=2**31)

    @property
    def content_hash(self) -> str:
        """SHA-256 of the canonical definition, in hex."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


SegmentLabel = Annotated[str, Field(min_length=1, max_length=100)]


class KMeansDefinition(SegmentationDefinition):
    """Segments found by K-Means, as many as there are labels.

    Attributes:
        labels: Names of the clusters, in the order of their centroids' `order_by`, lowest first.
        order_by: A numeric feature of the service, `view.feature`.
        least_share: A cluster with a smaller share of the rows refuses the model.
    """

    kind: Literal["kmeans"]
    labels: tuple[SegmentLabel, ...] = Field(min_length=2, max_length=100)
    order_by: str = Field(pattern=r"^\w+\.\w+$")
    restarts: int = Field(default=8, ge=1, le=100)
    max_rounds: int = Field(default=100, ge=1, le=10_000)
    least_share: float = Field(default=0.001, ge=0, lt=1)

    @model_validator(mode="after")
    def _differ(self) -> Self:
        return _check_labels(self, self.labels)


class SegmentClass(_Part):
    """A class: entities with at least so many events of the type within the horizon after an instant."""

    label: SegmentLabel
    event_type: str
    at_least: int = Field(default=1, ge=1)


class ClassesDefinition(SegmentationDefinition):
    """Segments predicted by a forest of several classes.

    Attributes:
        horizon_s: What happens in (t, t + horizon] makes the class of a row at t.
        classes: The first whose events came counts.
        otherwise: The class of everybody else.
        test_instants: Later ones that the model is judged at.
        min_accuracy_gain: What the share of right classes there must be above that of the most frequent class.
    """

    kind: Literal["classes"]
    horizon_s: int = Field(ge=1, le=_YEAR_S)
    classes: tuple[SegmentClass, ...] = Field(min_length=1, max_length=99)
    otherwise: SegmentLabel
    test_instants: tuple[UtcTime, ...] = Field(min_length=1, max_length=1_000)
    boosting: Boosting = Boosting(max_rounds=50)
    min_accuracy_gain: float = Field(default=0.0, ge=-1, le=1)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the model's order."""
        return (*(item.label for item in self.classes), self.otherwise)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if max(self.instants) + timedelta(seconds=self.horizon_s) > min(self.test_instants):
            raise ValueError("instants overlap: the last one and its horizon must end before test_instants")
        return _check_labels(self, self.labels)


D = TypeVar("D", bound=SegmentationDefinition)


def _check_labels(definition: D, labels: tuple[str, ...]) -> D:
    if len(set(labels)) != len(labels):
        raise ValueError(f"labels must differ: {list(labels)}")
    return definition


Definition = TrainingDefinition | KMeansDefinition | ClassesDefinition
_KINDS: Final[dict[object, type[KMeansDefinition | ClassesDefinition]]] = {
    "kmeans": KMeansDefinition,
    "classes": ClassesDefinition,
}


def parse_definition(text: str, name: str) -> Definition:
    """Parse the text of a definition; `name` stands in errors.

    Raises:
        DefinitionError: If it is no YAML or does not fit; every problem is listed with its field.
    """
    try:
        document = yaml.safe_load(text)
        kind = document.get("kind") if isinstance(document, dict) else None
        if kind is None:
            return TrainingDefinition.model_validate(document)
        if kind not in _KINDS:
            raise DefinitionError(f"{name}: kind: {kind!r} is none of {sorted(map(str, _KINDS))}")
        return _KINDS[kind].model_validate(document)
    except yaml.YAMLError as error:
        raise DefinitionError(f"{name}: not valid YAML: {error}") from error
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, item['loc'])) or 'definition'}: {item['msg']}" for item in error.errors()
        ]
        raise DefinitionError("\n".join(f"{name}: {problem}" for problem in problems)) from error
