#!/usr/bin/env bash
# Build one variant of the image with Docker, on bases named by their digests.
#   containers/build.sh TAG [arguments of docker build...]
set -euo pipefail
cd "$(dirname "$0")/.."
tag=${1:?usage: $0 TAG [arguments of docker build...]}
shift

digest() {
    local image
    image=$(sed -n "s/^ARG $1=//p" Dockerfile)
    docker pull --quiet "$image" > /dev/null
    docker inspect --format '{{ index .RepoDigests 0 }}' "$image" | sed 's/.*@/@/'
}

base=$(digest BASE_IMAGE)
conda=$(digest CONDA_IMAGE)
docker build "$@" --tag "$tag" \
    --build-arg BASE_DIGEST="$base" \
    --build-arg CONDA_DIGEST="$conda" \
    --build-arg TAG="$tag" \
    --build-arg VERSION="$(<version)" \
    --build-arg REVISION="$(git rev-parse HEAD)" \
    --build-arg CREATED="$(date --utc +%Y-%m-%dT%H:%M:%SZ)" .
