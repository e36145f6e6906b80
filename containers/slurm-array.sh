#!/usr/bin/env bash
# One participant a task. The group level follows by itself once all tasks have ended:
#
#   containers/slurm-array.sh BIDS OUT [options of msnmo...]
#
# is run where `sbatch` is, not with it. The participants' tasks share OUT, and may.
#
# MSNMO    how the program is called; default: Apptainer with msnmo.sif in the current folder
# SBATCH   options of every job
# WORK     folder for intermediate results, on the nodes' own disk if there is one; in a container
#          it must be bound (MSNMO: -B)
#SBATCH --job-name=msnmo
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=01:00:00
set -euo pipefail

if [[ -z ${SLURM_ARRAY_TASK_ID:-} ]]; then
    [[ $# -ge 2 ]] || { echo "usage: $0 BIDS OUT [options of msnmo...]" >&2; exit 64; }
    bids=$(realpath "$1")
    out=$(realpath --canonicalize-missing "$2")
    shift 2
    mkdir -p "$out/logs"
    list=$(mktemp "$out/logs/participants-XXXXXX.txt")
    find "$bids" -mindepth 1 -maxdepth 1 -name 'sub-*' -type d -printf '%f\n' | sort > "$list"
    count=$(wc -l < "$list")
    [[ $count -gt 0 ]] || { echo "$bids: there is no participant" >&2; exit 66; }
    export MSNMO=${MSNMO:-apptainer run --cleanenv -B $bids:$bids:ro -B $out -B /tmp $PWD/msnmo.sif}
    read -r -a sbatch <<< "${SBATCH:-}"
    participants=$(sbatch --parsable "${sbatch[@]}" --array="1-$count" \
        --output="$out/logs/slurm-%A_%a.out" "$0" participant "$list" "$bids" "$out" "$@")
    group=$(sbatch --parsable "${sbatch[@]}" --dependency="afterany:${participants%%;*}" --array=1 \
        --output="$out/logs/slurm-%A_group.out" "$0" group "$list" "$bids" "$out")
    echo "participants: job ${participants%%;*} ($count tasks), group: job ${group%%;*}; logs: $out/logs"
    exit
fi

level=$1 list=$2 bids=$3 out=$4
shift 4
# The command is words: no word of it may hold a blank.
read -r -a program <<< "$MSNMO"
if [[ $level == group ]]; then
    exec "${program[@]}" "$bids" "$out" group
fi
participant=$(sed -n "${SLURM_ARRAY_TASK_ID}p" "$list")
work=${WORK:-/tmp}/msnmo-$SLURM_JOB_ID
exec "${program[@]}" "$bids" "$out" participant --participant-label "$participant" \
    --work-dir "$work" --nprocs "${SLURM_CPUS_PER_TASK:-1}" \
    ${SLURM_MEM_PER_NODE:+--mem-mb "$SLURM_MEM_PER_NODE"} "$@"
