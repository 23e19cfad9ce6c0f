"""The loader of repos: from Feast's definitions to plain data."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from decision.schema import Aggregation, FeatureRef, JoinKey, ValueType
from server.config import ConfigError, Settings
from server.errors import RepoError
from server.repo import Repo, load_feast_store, load_repo
from server.stores import store_url

CLINIC = Path(__file__).parents[1] / "fixtures" / "clinic"


@pytest.fixture(scope="module")
def clinic() -> Repo:
    """The clinic's repo, as it stands."""
    return load_repo(CLINIC)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the clinic's repo to break."""
    return Path(shutil.copytree(CLINIC, tmp_path / "clinic"))


def refusal(repo: Path) -> RepoError:
    """The error of loading a repo."""
    with pytest.raises(RepoError) as caught:
        load_repo(repo)
    return caught.value


def test_views_keep_join_keys_apart_from_features(clinic: Repo) -> None:
    """A view's features exclude its join keys, whose types come from the entity."""
    view = clinic.catalog.view_by_name["profile"]
    assert view.join_keys == (JoinKey(name="patient_id", value_type=ValueType.INT64),)
    assert [feature.name for feature in view.features] == ["age_years", "insurer", "reminders_wanted"]
    assert (view.ttl_s, view.stream, view.aggregations) == (365 * 86_400, False, ())


def test_stream_views_carry_their_windows(clinic: Repo) -> None:
    """Aggregations, hop and transformation of a stream view come from its Feast definition alone."""
    view = clinic.catalog.view_by_name["visits"]
    assert view.aggregations[1] == Aggregation(
        feature="fees_90d", column="fee", function="sum", window_s=90 * 86_400
    )
    assert (view.hop_s, view.stream) == (3_600, True)
    assert callable(clinic.transforms["visits"])


def test_offline_paths_are_absolute(clinic: Repo) -> None:
    """A relative path of a batch source starts at the repo."""
    assert clinic.catalog.view_by_name["visits"].offline_path == str(CLINIC / "data/visits/*.parquet")


def test_services_keep_the_order_of_their_features(clinic: Repo) -> None:
    """A feature service lists its features in the order in which the repo wrote them."""
    features = clinic.catalog.service_by_name["portal_v1"].features
    assert features[:2] == (
        FeatureRef(view="visits", feature="visit_count_30d"),
        FeatureRef(view="profile", feature="age_years"),
    )


def test_loading_leaves_no_module_behind(copy: Path) -> None:
    """Modules of a repo are forgotten, so that another repo may use the same names."""
    load_repo(copy)
    assert "entities" not in sys.modules
    assert str(copy) not in sys.path


def test_an_edited_repo_loads_anew(copy: Path) -> None:
    """A second load sees the edit, not a cached module."""
    load_repo(copy)
    views = copy / "views.py"
    views.write_text(views.read_text().replace('"age_years"', '"age"'))
    assert "age" in load_repo(copy).catalog.view_by_name["profile"].feature_by_name


def test_an_exception_in_a_definition_names_its_line(copy: Path) -> None:
    """What a definition raises is reported with the file and line that raised it."""
    (copy / "entities.py").write_text("x = 1\nraise KeyError('boom')\n")
    problem = refusal(copy).problems[0]
    assert (problem.file, problem.line) == ("entities.py", 2)
    assert "boom" in problem.message


def test_a_syntax_error_names_its_line(copy: Path) -> None:
    """A file that is no Python is reported with its line."""
    (copy / "entities.py").write_text("x = 1\ny = = 2\n")
    problem = refusal(copy).problems[0]
    assert (problem.file, problem.line) == ("entities.py", 2)


def test_all_problems_are_reported_at_once(copy: Path) -> None:
    """A window off the hop and an aggregation without a field are both found, at their view's line."""
    views = copy / "views.py"
    text = views.read_text().replace("timedelta(days=1), name", "timedelta(minutes=90), name")
    views.write_text(text.replace('name="fees_90d", dtype', 'name="fees", dtype'))
    problems = refusal(copy).problems
    assert len(problems) == 3
    assert any("not a multiple" in problem.message for problem in problems)
    assert any("'fees_90d'" in problem.message and problem.line for problem in problems)
    assert any("visits:fees has no Aggregation" in problem.message for problem in problems)


def test_a_folder_without_feature_store_is_no_repo(tmp_path: Path) -> None:
    """The message says what is missing and how to make it."""
    assert "waypost init" in str(refusal(tmp_path))


def test_broken_event_schemas_are_a_repo_error(copy: Path) -> None:
    """A mistake in events.yaml is reported with the file's name."""
    (copy / "events.yaml").write_text(
        "customer: patient_id\ntypes: {visit: {properties: {fee: {type: money}}}}\n"
    )
    assert refusal(copy).problems[0].file == "events.yaml"


def test_a_module_named_like_pythons_own_is_refused(copy: Path) -> None:
    """Such a module would silently never be read."""
    (copy / "types.py").write_text("")
    assert "rename" in str(refusal(copy))


def test_large_policy_files_are_refused(copy: Path) -> None:
    """A policy file has a bound."""
    (copy / "policy" / "big.policy").write_text("#" * ((1 << 20) + 1))
    assert refusal(copy).problems[0].file == "policy/big.policy"


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ("type: redis", "redis://localhost:6379/0"),
        ("type: redis\n  connection_string: 'h:7,db=2,ssl=False'", "redis://h:7/2"),
        (
            "type: redis\n  redis_type: redis_cluster\n  connection_string: 'a:1,b:2,ssl=true'",
            "rediss+cluster://a:1,b:2",
        ),
        (
            "type: redis\n  redis_type: redis_sentinel\n  sentinel_master: shop\n  connection_string: 'a:1,b:2'",
            "redis+sentinel://a:1,b:2/shop/0",
        ),
        ("type: sqlite", None),
    ],
)
def test_the_repos_own_store_is_read_as_feast_reads_it(
    tmp_path: Path, settings: str, url: str | None
) -> None:
    """`feature_store.yaml` names the store, its layout and its time to live."""
    _store_file(tmp_path, f"{settings}\n  key_ttl_seconds: 60" if url else settings)
    store = load_feast_store(tmp_path)
    if url is None:
        assert store is None
    else:
        assert store is not None
        assert (store.url, store.key_ttl_s) == (url, 60)


def test_a_store_that_makes_no_sense_is_refused_with_its_place(tmp_path: Path) -> None:
    """A variable that is not set is told as such, with the file and the setting."""
    _store_file(tmp_path, "type: redis\n  connection_string: '${NOT_SET_HERE}'")
    store = load_feast_store(tmp_path)
    assert store is not None
    with pytest.raises(RepoError, match=r"feature_store.yaml.*connection_string.*variable, set it"):
        _ = store.url
    with pytest.raises(RepoError, match="variable, set it"):
        store_url(Settings(repo=tmp_path))


@pytest.mark.parametrize(
    ("given", "settings", "url"),
    [
        ("a:1,db=3", "type: sqlite", "redis://a:1/3"),
        ("feast", "type: redis", "redis://localhost:6379/0"),
        (None, "type: redis", "redis://localhost:6379/0"),
    ],
)
def test_the_store_is_the_one_given_or_the_repos(
    tmp_path: Path, given: str | None, settings: str, url: str
) -> None:
    """An address wins over the repo's; `feast`, or nothing, means the repo's."""
    _store_file(tmp_path, settings)
    assert store_url(Settings(repo=tmp_path, redis_url=given)) == url


@pytest.mark.parametrize(("given", "message"), [(None, "which store"), ("a:1,b:2", "--redis-url.*found 2")])
def test_no_store_and_a_wrong_one_are_told(tmp_path: Path, given: str | None, message: str) -> None:
    """Without a store, and with an address that makes no sense, the way out is named."""
    _store_file(tmp_path, "type: sqlite")
    with pytest.raises(ConfigError, match=message):
        store_url(Settings(repo=tmp_path, redis_url=given))


def _store_file(folder: Path, online_store: str) -> None:
    text = f"project: shop\nregistry: registry.db\nprovider: local\nonline_store:\n  {online_store}\n"
    (folder / "feature_store.yaml").write_text(text + "entity_key_serialization_version: 3\n")
