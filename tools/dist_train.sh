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
MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}
PORT=${PORT:-29500}
MEETING=(--node_rank="${NODE_RANK:-0}" --master_addr="$MASTER_ADDR" --master_port="$PORT")
if [ "${MAX_RESTARTS:-0}" -gt 0 ]; then
    # Where they share the launcher's store, processes that start again look for those that died.
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    MEETING=(--rdzv_backend=c10d --rdzv_id=mmkd_logit --rdzv_endpoint="$MASTER_ADDR:$PORT")
    if [ "${NNODES:-1}" = 1 ]; then
        MEETING+=(--local_addr=127.0.0.1)
    fi
fi
exec python -m mmkd_logit.engine.launch \
    --nnodes="${NNODES:-1}" \
    "${MEETING[@]}" \
    --nproc_per_node="$GPUS" \
    --max_restarts="${MAX_RESTARTS:-0}" \
    "$(dirname "$0")/train.py" "$CONFIG" --launcher pytorch "$@"
