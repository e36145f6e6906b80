# The BIDS App. FSL's BET and the ANTs programs are used when they are on PATH; this first image
# has neither and runs with deepbet and antspyx.
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE}

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /opt/msnmo
COPY requirements.lock ./
RUN python -m pip install --no-cache-dir -r requirements.lock
COPY LICENSE NOTICE README.md pyproject.toml run.py version ./
COPY msnmo_bids ./msnmo_bids
RUN python -m pip install --no-cache-dir --no-deps .

ENV NO_ET=1 NIPYPE_NO_ET=1 TEMPLATEFLOW_AUTOUPDATE=0 FSLOUTPUTTYPE=NIFTI_GZ
USER 1000
ENTRYPOINT ["python", "/opt/msnmo/run.py"]
