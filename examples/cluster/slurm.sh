#!/bin/bash
# A comparison on several nodes of a Slurm cluster: sbatch slurm.sh [COMMAND …]
#
# Begins the comparison below, or goes on with it, or does the command that is given. Its episodes are played by a Ray
# cluster that has all nodes of the job and ends with it. Submit it from a folder that all nodes share, with a virtual
# environment in .venv. Five minutes before the job's time is up the comparison keeps its episodes in progress: the same
# sbatch goes on from there.
#SBATCH --job-name=ssdkd
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
set -euo pipefail
source .venv/bin/activate

out=runs/campaign
if [ $# -gt 0 ]; then
    command=("$@")
elif [ -e "$out/config.json" ]; then
    command=(ssdkd benchmark --out "$out" --resume)
else
    command=(ssdkd benchmark --out "$out" --suite methods --seeds 20)
fi
if [ $# -eq 0 ] && end=$(date --date "$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %e)" +%s 2> /dev/null); then
    minutes=$(((end - $(date +%s)) / 60 - 5))
    command+=(--minutes $((minutes > 1 ? minutes : 1)))
fi

# This script runs on the first node, whose own name may stand for its loopback there.
address=$(hostname --all-ip-addresses | awk '{ print $1 }'):6379
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300 # seconds that nodes have to import Ray from a shared disk

# Each node starts Ray with what the job has there; the first one runs the command as well.
srun --cpus-per-task "$SLURM_CPUS_PER_TASK" ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus "$SLURM_CPUS_PER_TASK" ${SLURM_GPUS_ON_NODE:+--num-gpus "$SLURM_GPUS_ON_NODE"} \
    -- "${command[@]}" --executor ray ${SLURM_GPUS_ON_NODE:+--gpus-per-job 0.25}
