#!/usr/bin/env bash
# A corpus in parts under Slurm, without Beam: each job of the array judges its part.
#
#   sbatch --array=1-100 --cpus-per-task=2 --mem=3G serve/slurm_array.sh CORPUS OUTPUT
#   cat OUTPUT/*.jsonl > results.jsonl     # the lines of all parts
#   dfdetect report OUTPUT/*.jsonl --output report.html
#
# Run it with the Python environment active. A job that is started again, by --requeue or
# by hand, goes on where it stopped. To submit some parts alone, say how many there are in
# all: PARTS=100 sbatch --array=7,9 ... More arguments go to `dfdetect detect`.
#SBATCH --job-name=dfdetect-corpus
#SBATCH --requeue
set -euo pipefail

corpus=${1:?the folder of images and clips}
output=${2:?the folder of the results}
shift 2
part=$SLURM_ARRAY_TASK_ID total=${PARTS:-$SLURM_ARRAY_TASK_COUNT}
if [[ -z ${PARTS:-} ]] && ((SLURM_ARRAY_TASK_MIN != 1 || SLURM_ARRAY_TASK_MAX != total)); then
  echo "slurm_array.sh: wanted --array=1-N, or PARTS=N in the environment for some of" \
    "N parts, got $SLURM_ARRAY_TASK_MIN to $SLURM_ARRAY_TASK_MAX, $total tasks." >&2
  exit 2
fi
name=$(printf 'part-%05d-of-%05d' "$part" "$total")
mkdir -p "$output"
code=0
dfdetect detect "$corpus" --shard="$part/$total" \
  --resume "$output/$name.journal" "$@" > "$output/$name.tmp" || code=$?
# 3: all was judged, and some files could not be read; their lines say so.
if ((code != 0 && code != 3)); then
  exit "$code"
fi
mv "$output/$name.tmp" "$output/$name.jsonl"
