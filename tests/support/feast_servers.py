"""Feast's own servers over a repo, in a process to be killed: `python feast_servers.py REPO GRPC_PORT HTTP_PORT`."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import uvicorn


def main(repo: str, grpc_port: str, http_port: str) -> None:
    """Apply the repo as `feast apply` does, then serve as `feast listen` and `feast serve` do, for ever."""
    warnings.simplefilter("ignore")  # Feast calls on-demand views experimental
    from feast import FeatureStore
    from feast.feature_server import get_app
    from feast.infra.contrib.grpc_server import get_grpc_server
    from feast.repo_operations import apply_total

    os.chdir(repo)
    sys.path.insert(0, repo)
    apply_total(FeatureStore(repo_path=repo).config, Path(repo), skip_source_validation=True)
    store = FeatureStore(repo_path=repo)
    listen = get_grpc_server(f"127.0.0.1:{grpc_port}", store, max_workers=2, registry_ttl_sec=3_600)
    listen.start()
    uvicorn.run(get_app(store, 3_600), host="127.0.0.1", port=int(http_port), log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
