"""A running server is told to reload hostile repos: it says what is wrong, and goes on deciding as before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from server.embedded import EmbeddedValkey
from tests.support.clinic import TIMEOUT_S, Clinic, refusal, run_clinic
from tests.support.hostile import HOSTILE
from waypost.admin.v1 import admin_pb2
from waypost.decision.v1 import decision_pb2

DETAILS_MAX = 10_000
"""More characters than that are no help, and no trailer holds them."""


@pytest.fixture(scope="module")
def clinic(store: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """A server whose repo may be broken, one test after the other."""
    with run_clinic(tmp_path_factory.mktemp("clinic"), store.url) as running:
        yield running


def version(clinic: Clinic) -> str:
    """What decides now."""
    request = decision_pb2.DecideRequest(placement="portal_banner", customer_id="1")
    return clinic.decisions.Decide(request, timeout=TIMEOUT_S).bundle_version


@pytest.fixture
def policy(clinic: Clinic) -> Iterator[Path]:
    """The policy file, put right again afterwards."""
    path = clinic.settings.repo / "policy" / "portal.policy"
    good = path.read_bytes()
    yield path
    path.write_bytes(good)


def assert_refused(clinic: Clinic) -> str:
    """A reload is refused with a reason, and the bundle from before goes on; returns what was said."""
    before = version(clinic)
    with pytest.raises(grpc.RpcError) as caught:
        clinic.admin.Reload(admin_pb2.ReloadRequest(), timeout=TIMEOUT_S)
    refused = refusal(caught.value)
    assert (refused.code, refused.info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RELOAD_REFUSED")
    assert "policy/portal.policy" in refused.message
    assert len(refused.message) < DETAILS_MAX
    assert version(clinic) == before
    return refused.message


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_is_refused(clinic: Clinic, policy: Path, name: str) -> None:
    """Whatever the text, the answer names the file, and decisions go on."""
    policy.write_text(HOSTILE[name], encoding="utf-8", errors="surrogatepass")
    assert_refused(clinic)


BYTES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "utf-16": (lambda good: good.decode().encode("utf-16"), "not UTF-8"),
    "cut in a character": (lambda good: good + "é".encode()[:1], "not UTF-8"),
    "zeros": (lambda good: bytes(len(good)), "unexpected character"),
    "too many rules": (
        lambda good: good + b"\nrule r on portal_banner: IF TRUE THEN show(call_us)" * 30_000,
        "split it",
    ),
}


@pytest.mark.parametrize("name", BYTES)
def test_hostile_bytes_are_refused(clinic: Clinic, policy: Path, name: str) -> None:
    """A file that is no text is refused as such."""
    broken, said = BYTES[name]
    policy.write_bytes(broken(policy.read_bytes()))
    assert said in assert_refused(clinic)


@pytest.mark.parametrize(
    "written",
    [lambda good: b"\xef\xbb\xbf" + good, lambda good: good.replace(b"\n", b"\r\n")],
    ids=["byte order mark", "CR LF"],
)
def test_files_of_other_editors_are_read(
    clinic: Clinic, policy: Path, written: Callable[[bytes], bytes]
) -> None:
    """A byte order mark and other ends of lines change nothing that is decided."""
    policy.write_bytes(written(policy.read_bytes()))
    answer = clinic.admin.Reload(admin_pb2.ReloadRequest(), timeout=TIMEOUT_S)
    assert answer.bundle_version == version(clinic)
