#!/usr/bin/env bash
# A corpus in parts under Slurm, without Beam: each job of the array judges its part.
#
#   sbatch --array=1-100 --cpus-per-task=2 --mem=3G serve/slurm_array.sh CORPUS OUTPUT
#   cat OUTPUT/*.jsonl > results.jsonl     # the lines of all parts
#   dfdetect report OUTPUT/*.jsonl --output report.html
#
# Run it with the Python environment active. A job that is started again, by --requeue or
# by hand, goes on where it stopped. More arguments go to `dfdetect detect`.
#SBATCH --job-name=dfdetect-corpus
#SBATCH --requeue
set -euo pipefail

corpus=${1:?the folder of images and clips}
output=${2:?the folder of the results}
shift 2
part=$SLURM_ARRAY_TASK_ID total=$SLURM_ARRAY_TASK_COUNT
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
