# Every app in a container, on a CPU (about 2 GB) or with torch's CUDA build:
#
#   docker build --target cpu -t world-models .
#   docker build --target cuda -t world-models:cuda .
#   docker run --rm -v "$PWD/runs:/runs" world-models dreamer train --preset catch --logdir /runs/catch
#   docker run --rm --gpus all -v "$PWD/runs:/runs" world-models:cuda po-dreamer train --preset atari100k --logdir /runs/boxing
#
# The folder that is mounted must be writable by the user 1000 (or give --user). CUDA itself comes with torch's wheels: the host
# needs NVIDIA's driver and its container toolkit alone.

ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS base
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# OpenGL without a screen, for DeepMind Control and Memory Maze
RUN apt-get update \
    && apt-get install -y --no-install-recommends libegl1 libgl1 libosmesa6 \
    && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir "uv>=0.13,<0.14"
# the interpreter of the image, and no other; files are copied, for a cache that is mounted lies elsewhere
ENV UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /opt/world-models
COPY . .
RUN useradd --create-home --uid 1000 learner && mkdir /runs && chown learner /runs

FROM base AS cpu
RUN --mount=type=cache,target=/uv-cache UV_CACHE_DIR=/uv-cache python tools/cpu_env.py
ENV PATH=/opt/world-models/.venv-cpu/bin:$PATH
USER 1000
WORKDIR /runs
CMD ["dreamer", "--help"]

FROM base AS cuda
RUN --mount=type=cache,target=/uv-cache UV_CACHE_DIR=/uv-cache uv sync --no-dev
ENV PATH=/opt/world-models/.venv/bin:$PATH NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics
USER 1000
WORKDIR /runs
CMD ["dreamer", "--help"]
