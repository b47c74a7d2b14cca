# syntax=docker/dockerfile:1
# phasebus added to an image that has vLLM, or Ray and vLLM, for NVIDIA GPUs. It changes none of the image's packages.
#
#   docker build -f deploy/images/gpu.Dockerfile -t phasebus-gpu .
#   docker build -f deploy/images/gpu.Dockerfile -t phasebus-ray-llm --build-arg BASE=rayproject/ray-llm:2.60.0-py312-cu130 .
#
# The base has a C compiler, which Triton needs when it runs, and the drivers' libraries; this file adds none.
ARG BASE=vllm/vllm-openai:v0.32.0

FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM ${BASE}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="phasebus" \
      org.opencontainers.image.description="The start-up of an LLM cluster as typed events, on an image with vLLM for GPUs" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 0:0
# `phasebus up` runs its engine in a Ray actor. Only what is missing is installed: upgrades would break the base's pins.
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    python3 -m pip install --no-cache-dir --upgrade-strategy only-if-needed "$(echo /wheels/*.whl)[ray]" \
    && install --directory --owner 1000 --group 1000 /home/phasebus /var/lib/phasebus /var/cache/phasebus
ENV HOME=/home/phasebus \
    USER=phasebus \
    PHASEBUS_STATE_DIR=/var/lib/phasebus \
    PHASEBUS_CACHE_DIR=/var/cache/phasebus
USER 1000:1000
WORKDIR /home/phasebus
EXPOSE 8000 9464
ENTRYPOINT ["phasebus"]
CMD ["up", "/etc/phasebus/node.yaml"]
