#!/usr/bin/env bash
# A training on several machines under Slurm, started again when one is lost:
#
#   sbatch --nodes=2 --gpus-per-node=1 train/slurm.sh \
#     train/classifier.py --flagfile=train/recipes/default_classifier.flags \
#     --data_dir=DATA --model_dir=DIR --snapshot=efficientnet-lite0.pth
#
# Run it in the checkout, with the Python environment active. DIR lies where the first
# machine can write. PORT (2222) is the first of as many ports as there are machines.
#SBATCH --job-name=dfdetect
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
# Two minutes before the time is up the training is told to save and leave.
#SBATCH --signal=TERM@120
set -uo pipefail

readonly attempts=20
port=${PORT:-2222}
workers=""
for host in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
  workers+="${workers:+, }\"$host:$((port++))\""
done

# The tasks of srun differ in SLURM_PROCID only, and it counts in the order of the hosts.
export DFDETECT_CLUSTER="{\"worker\": [$workers]}"
worker='
  export TF_CONFIG="{\"cluster\": $DFDETECT_CLUSTER,
    \"task\": {\"type\": \"worker\", \"index\": $SLURM_PROCID}}"
  exec python "$@" --strategy=multi_worker'

for ((attempt = 1; attempt <= attempts; attempt++)); do
  srun --kill-on-bad-exit=0 bash -c "$worker" worker "$@"
  code=$?
  if ((code == 143)); then
    echo "Told to leave; the job goes back into the queue." >&2
    exec scontrol requeue "$SLURM_JOB_ID"
  fi
  # Below 128 it is done, or an error that would come again.
  ((code < 128)) && exit "$code"
  echo "Attempt $attempt of $attempts ended with $code; all start again." >&2
  sleep 5
done
exit "$code"
