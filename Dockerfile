# syntax=docker/dockerfile:1
FROM python:3.11-slim-bookworm AS build
RUN pip install --no-cache-dir uv==0.13.9
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=/opt/waypost
RUN uv venv "$VIRTUAL_ENV"
WORKDIR /src
# The dependencies alone first: their layer changes only with the lock.
COPY requirements.lock requirements-runtime.lock ./
RUN uv pip sync --require-hashes requirements-runtime.lock
COPY pyproject.toml README.md LICENSE ./
COPY decision/ decision/
COPY online/ online/
COPY streaming/ streaming/
COPY training/ training/
COPY server/ server/
COPY demo/ demo/
COPY loadtest/ loadtest/
COPY waypost/ waypost/
# The wheel's build tools are held to the lock as well, by version and hash.
RUN uv pip install --no-deps --build-constraint requirements.lock .

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --create-home waypost && install --directory --owner waypost /data /var/cache/numba
COPY --from=build /opt/waypost /opt/waypost
WORKDIR /app
COPY feature_repo/ feature_repo/
COPY deploy/healthcheck.py deploy/
# One kind of machine code for all hosts: a cache compiled for the builder's processor would be useless on another.
ENV PATH=/opt/waypost/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/var/cache/numba \
    NUMBA_CPU_NAME=generic \
    SHOP_DATA_DIR=/data/shop \
    WAYPOST_REPO=/app/feature_repo \
    WAYPOST_DATA_DIR=/data \
    WAYPOST_HOST=0.0.0.0
USER waypost
# Validates the repo, and in doing so compiles the kernels into the image.
RUN waypost check --repo feature_repo
VOLUME /data
EXPOSE 50051 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["python", "deploy/healthcheck.py"]
ENTRYPOINT ["waypost"]
CMD ["serve"]
