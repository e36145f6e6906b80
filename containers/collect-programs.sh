#!/usr/bin/env bash
# Install FSL's BET and ANTs with micromamba and keep only two programs and the libraries they load.
# Words: 1 with FSL or 0 without; target folder. Part of the Dockerfile.
set -euo pipefail
with_fsl=$1
target=$2
source_dir=$(cd "$(dirname "$0")" && pwd)
lock=$source_dir/conda-linux-64.txt
environment=/tmp/environment

specification=$source_dir/conda.yml
[[ -s $lock ]] && specification=$lock
wanted=$(mktemp --suffix=".${specification##*.}")
if [[ $with_fsl == 1 ]]; then cat "$specification"; else grep --invert-match fsl "$specification"; fi \
    > "$wanted"
micromamba create --yes --prefix "$environment" --file "$wanted"
mkdir -p "$target/bin" "$target/lib" "$target/licences"
micromamba env export --prefix "$environment" --explicit > "$target/conda-linux-64.txt"

programs=(N4BiasFieldCorrection)
[[ $with_fsl == 1 ]] && programs+=(bet2)
for program in "${programs[@]}"; do
    cp "$environment/bin/$program" "$target/bin/"
    # Its libraries are found beside it, in ../lib, as in the environment it comes from.
    ldd "$environment/bin/$program" | awk -v from="$environment" 'index($3, from) {print $3}' |
        xargs --no-run-if-empty cp --dereference --no-clobber --target-directory "$target/lib"
done
if [[ $with_fsl == 1 ]]; then
    cp "$source_dir/bet" "$target/bin/bet"
    mkdir "$target/etc"
    basename --suffix=.json "$environment"/conda-meta/fsl-bet2-*.json > "$target/etc/fslversion"
fi
for licences in "${MAMBA_ROOT_PREFIX:-/opt/conda}"/pkgs/*/info/licenses; do
    package=$(basename "${licences%/info/licenses}")
    if [[ -d $licences ]]; then cp --recursive "$licences" "$target/licences/$package"; fi
done

for program in "${programs[@]}"; do
    if ldd "$target/bin/$program" | grep "not found"; then
        echo "$program: a library is missing" >&2
        exit 1
    fi
done
"$target/bin/N4BiasFieldCorrection" --version
