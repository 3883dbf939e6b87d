# The cloud service: `ciar serve` with a bundle.
#
#   make image                                                                   CPU
#   make image IMAGE_FLAGS='--build-arg TORCH_INDEX=' IMAGE=ciar-cloud:cuda      CUDA
#
# The base needs python3 (3.11 or later, with venv) and a C++ runtime; both stages use the same one.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build

# The index to take torch from; the default has CPU wheels. Empty: pip's own index, whose Linux wheels are for CUDA.
ARG TORCH=torch==2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

# torch first: hundreds of megabytes that no change of ours touches. Its dependencies come with the next step.
RUN python3 -m venv /opt/ciar \
    && /opt/ciar/bin/pip install --no-cache-dir --no-deps ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} "${TORCH}"

COPY . /source
RUN /opt/ciar/bin/pip install --no-cache-dir --constraint /source/constraints.txt /source /source/cloud_server \
    && /opt/ciar/bin/pip check \
    && /opt/ciar/bin/pip uninstall --yes pip \
    && rm -rf /opt/ciar/lib/python3*/site-packages/torch/include /opt/ciar/lib/python3*/site-packages/torch/test \
    && find /opt/ciar/lib/python3*/site-packages/torch/bin -mindepth 1 ! -name torch_shm_manager -delete \
    && /opt/ciar/bin/python -c 'import ciar.cloud_server.server'


FROM ${BASE}

ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ciar-cloud" \
      org.opencontainers.image.description="CIAR cloud service: an autoregressive image model over gRPC" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

COPY --from=build /opt/ciar /opt/ciar

# No bytecode is written and no home is needed: the root file system may be read-only, /tmp a tmpfs. ONNX Runtime reports
# use to its makers unless told not to.
ENV PATH=/opt/ciar/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    USER=ciar \
    ORT_DISABLE_TELEMETRY=1 \
    CIAR_ADDRESS=0.0.0.0:50051

# Numeric, so that an orchestrator can check that it is not root.
USER 10001:10001
EXPOSE 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["ciar", "health"]
ENTRYPOINT ["ciar", "serve"]
