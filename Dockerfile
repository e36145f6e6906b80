# The BIDS App. Variants by build argument (docs/containers.md has a table):
#   WITH_FSL=0         no FSL, for commercial use
#   PROGRAMS=none      neither FSL nor ANTs: deepbet and antspyx do their work
#   PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"   torch for the CPU only
ARG BASE_IMAGE=docker.io/library/python:3.11.13-slim-bookworm
ARG BASE_DIGEST=
ARG CONDA_IMAGE=docker.io/mambaorg/micromamba:2.3.2-debian12-slim
ARG CONDA_DIGEST=
ARG PROGRAMS=conda

# FSL's BET and ANTs' N4, and the libraries that these two programs load.
FROM ${CONDA_IMAGE}${CONDA_DIGEST} AS programs-conda
ARG WITH_FSL=1
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
COPY containers/conda* containers/collect-programs.sh containers/bet /build/
RUN bash /build/collect-programs.sh "${WITH_FSL}" /tmp/programs

FROM ${BASE_IMAGE}${BASE_DIGEST} AS programs-none
RUN mkdir -p /tmp/programs/bin

# hadolint ignore=DL3006
FROM programs-${PROGRAMS} AS programs

# The locked Python packages, then msnmo with its weights.
FROM ${BASE_IMAGE}${BASE_DIGEST} AS python
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ARG PIP_ARGS=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements.lock ./
# hadolint ignore=SC2086
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/python -m pip install --no-cache-dir ${PIP_ARGS} -r requirements.lock
COPY LICENSE NOTICE README.md pyproject.toml version ./
COPY msnmo_bids ./msnmo_bids
RUN /opt/venv/bin/python -m pip install --no-cache-dir --no-deps --no-build-isolation --no-index .

FROM ${BASE_IMAGE}${BASE_DIGEST}
COPY --from=python /opt/venv /opt/venv
COPY --from=programs /tmp/programs /opt/programs
COPY run.py LICENSE NOTICE /opt/msnmo/
ARG BASE_IMAGE
ARG BASE_DIGEST
ARG WITH_FSL=1
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
ARG TAG=msnmo:${VERSION}
LABEL org.opencontainers.image.title="msnmo" \
      org.opencontainers.image.description="BIDS App: lesion segmentation and MS/NMOSD pattern scores from T2-FLAIR. Research use only" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="https://github.com/msnmo/msnmo" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.base.digest="${BASE_DIGEST}" \
      org.msnmo.with-fsl="${WITH_FSL}"
ENV PATH=/opt/venv/bin:/opt/programs/bin:/usr/local/bin:/usr/bin:/bin \
    FSLDIR=/opt/programs FSLOUTPUTTYPE=NIFTI_GZ \
    NO_ET=1 NIPYPE_NO_ET=1 TEMPLATEFLOW_AUTOUPDATE=0 MPLBACKEND=Agg \
    LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONNOUSERSITE=1 \
    MSNMO_CONTAINER_TAG=${TAG}
WORKDIR /tmp
USER 1000:1000
ENTRYPOINT ["/opt/venv/bin/python", "/opt/msnmo/run.py"]
