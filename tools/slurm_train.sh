#!/usr/bin/env bash
# Train on a slurm cluster's GPUs.
#   [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS=...] \
#       tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [flags of tools/train.py]
# Two minutes before its time is over slurm sends SIGUSR1: the run saves and ends with status 75,
# to be gone on with by the same command and --resume. A job script with
#   #SBATCH --requeue --signal=USR1@120
# that ends with this command is put into the queue again and goes on by itself.
set -euo pipefail
if [ $# -lt 4 ]; then
    echo "usage: [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5] $0 PARTITION JOB_NAME CONFIG WORK_DIR [flags]" >&2
    exit 2
fi
PARTITION=$1
JOB_NAME=$2
CONFIG=$3
WORK_DIR=$4
shift 4
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
if [ "$GPUS" -lt "$GPUS_PER_NODE" ]; then
    GPUS_PER_NODE=$GPUS
fi
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
    set -- "$@" --resume
fi
# SRUN_ARGS is split into words on purpose.
# shellcheck disable=SC2086
set -- srun -p "$PARTITION" \
    --job-name="$JOB_NAME" \
    --gres=gpu:"$GPUS_PER_NODE" \
    --ntasks="$GPUS" \
    --ntasks-per-node="$GPUS_PER_NODE" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    --signal=USR1@120 \
    ${SRUN_ARGS:-} \
    python -u "$(dirname "$0")/train.py" "$CONFIG" --work-dir "$WORK_DIR" --launcher slurm "$@"
if [ -z "${SLURM_JOB_ID:-}" ]; then
    exec "$@"
fi
status=0
"$@" || status=$?
if [ "$status" -eq 75 ]; then
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
