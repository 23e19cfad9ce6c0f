"""Training definitions: refused with the field and the fix."""

from __future__ import annotations

import pytest

from tests.support.training_world import DEFINITION, definition
from training.definition import parse_definition
from training.errors import DefinitionError


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 7", "sed: 7", "sed: Extra inputs"),
        ("2024-02-15T00:00:00Z}", "2024-02-16T00:00:00Z}", "splits: .*overlap"),
        ("join_keys: [customer, kind]", "join_keys: [customer]", "the label's join keys"),
        ("sample: 0.7", "sample: 0", r"splits\.train\.sample"),
        ("max_rounds: 12", "max_rounds: 0", r"boosting\.max_rounds"),
        ("seed: 7", "seed: [", "not valid YAML"),
    ],
)
def test_definition_problem_is_named(old: str, new: str, message: str) -> None:
    """Each problem is told with file and field."""
    with pytest.raises(DefinitionError, match=message) as caught:
        parse_definition(DEFINITION.replace(old, new, 1), "affinity.yaml")
    assert "affinity.yaml" in str(caught.value)


def test_definition_hash_follows_the_content() -> None:
    """Another seed is another definition; comments and order of keys are not."""
    assert definition().content_hash == parse_definition("# note\n" + DEFINITION, "x").content_hash
    assert (
        definition().content_hash
        != parse_definition(DEFINITION.replace("seed: 7", "seed: 8"), "x").content_hash
    )
