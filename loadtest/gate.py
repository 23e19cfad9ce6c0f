"""When a load test has failed."""

from __future__ import annotations

from locust.stats import RequestStats

METHOD = "Decide"


def verdict(stats: RequestStats, *, max_p99_ms: float) -> list[str]:
    """Return what was wrong with a run; empty if nothing was.

    A run fails on any failed call, on having made no decision at all, and on a slow p99 of `Decide`.
    """
    decide = stats.get(METHOD, "grpc")
    problems = []
    if stats.total.num_failures:
        problems.append(f"{stats.total.num_failures} of {stats.total.num_requests} calls failed")
    if decide.num_requests == 0:
        problems.append(f"no call of {METHOD} was made")
    elif (p99_ms := decide.get_response_time_percentile(0.99)) > max_p99_ms:
        problems.append(f"p99 of {METHOD} is {p99_ms:.0f} ms, the bound is {max_p99_ms:.0f} ms")
    return problems
