#!/usr/bin/env bash
# Keytween on SLURM: one task of an array for each shot. Run it on a login node:
#
#   packaging/farms/slurm_array.sh shots.toml [sbatch options...]
#   packaging/farms/slurm_array.sh shots.toml --gres=gpu:1 --partition=gpu
#
# KEYTWEEN is the command (default: keytween), KEYTWEEN_AT_ONCE how many tasks run at once (default: 50).
# Shots file, keyframes and output must lie on a disk that the nodes share. A task that is requeued, or a
# whole array that is submitted again, does only what is missing.
set -euo pipefail

keytween=${KEYTWEEN:-keytween}

if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
  # On a node: make the shot. 75 says that another task is making it, and a later try makes sense.
  for _ in 1 2 3; do
    code=0
    $keytween shot "$1" --index "$SLURM_ARRAY_TASK_ID" || code=$?
    [ "$code" = 75 ] || exit "$code"
    sleep "${KEYTWEEN_PAUSE:-60}"
  done
  exit 75
fi

shots=$1
shift
plan=$($keytween batch "$shots" --dry-run --json) || [ $? = 8 ]
count=$(python3 -c 'import json, sys; print(len(json.load(sys.stdin)["shots"]))' <<<"$plan")
[ "$count" -gt 0 ]
exec sbatch --array="0-$((count - 1))%${KEYTWEEN_AT_ONCE:-50}" --requeue --job-name="keytween" \
  --output="keytween-%A_%a.log" "$@" "$0" "$shots"
