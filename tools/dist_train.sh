#!/usr/bin/env bash
# Train on several GPUs of one or more machines; without a GPU, on that many CPU processes (gloo).
#   tools/dist_train.sh CONFIG GPUS [flags of tools/train.py]
# Several machines: the same command on each, with NNODES, NODE_RANK, MASTER_ADDR (and PORT) set.
# MAX_RESTARTS=3 with --resume starts all processes again, from the last checkpoint, if one dies.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: [NNODES=1 NODE_RANK=0 MASTER_ADDR=127.0.0.1 PORT=29500] $0 CONFIG GPUS [flags]" >&2
    exit 2
fi
CONFIG=$1
GPUS=$2
shift 2
exec python -m mmkd_logit.engine.torchrun \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    --max_restarts="${MAX_RESTARTS:-0}" \
    "$(dirname "$0")/train.py" "$CONFIG" --launcher pytorch "$@"
