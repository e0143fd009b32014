#!/bin/bash
# SLURM: a Ray cluster on the nodes of one allocation, and a run of `curate` on it.
#   sbatch --nodes=4 --cpus-per-task=32 deploy/slurm.sh s3://BUCKET/raw --output /shared/out
# The environment with `selects` must be active; --output must lie on a file system that all nodes share.
#SBATCH --job-name=selects
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: sbatch slurm.sh INPUT... --output DIR [key=value ...]" >&2; exit 2; }

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
port=$((20000 + SLURM_JOB_ID % 20000))  # two jobs may share a node
cpus=${SLURM_CPUS_PER_TASK:-1}
RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')  # nobody else on these nodes may give it work
RAY_USAGE_STATS_ENABLED=0
export RAY_AUTH_MODE RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED
export SELECTS_STAGE=${SELECTS_STAGE:-${TMPDIR:-/tmp}/selects-stage-$SLURM_JOB_ID}

steps=()
trap 'kill "${steps[@]}" 2>/dev/null || true; wait || true' EXIT

srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
    ray start --head --block --port="$port" --num-cpus="$cpus" --include-dashboard=false --disable-usage-stats &
steps+=($!)
for node in "${nodes[@]:1}"; do
    srun --overlap --nodes=1 --ntasks=1 --nodelist="$node" \
        ray start --block --address="$head:$port" --num-cpus="$cpus" --disable-usage-stats &
    steps+=($!)
done

for try in {1..60}; do  # nodes may take a while; those that come later take work as well
    ray status --address="$head:$port" >/dev/null 2>&1 && break
    [ "$try" -lt 60 ] || { echo "error: no Ray on $head:$port after 60 tries; see the job's log" >&2; exit 1; }
    sleep 2
done
srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" selects curate "$@" --ray-address "$head:$port"
