#!/usr/bin/env bash
# Several machines with one file system and without a scheduler. On each of them the same line, HEAD being one of them:
#   HEAD=node0:29500 NODES=2 DEVICES=4 bash configs/cluster/torchrun.sh -c my_run.yaml --run_name=mine
# The same line again goes on with a run that was stopped; NODES and DEVICES may be others.
set -euo pipefail
exec python -m torch.distributed.run --nnodes="$NODES" --nproc-per-node="$DEVICES" \
    --rdzv-backend=c10d --rdzv-endpoint="$HEAD" --rdzv-id=attack \
    -m lightning_attack predict -c configs/cluster/ddp.yaml \
    --trainer.num_nodes="$NODES" --trainer.devices="$DEVICES" "$@"
