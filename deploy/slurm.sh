#!/bin/bash
# A sweep on Slurm: `sbatch deploy/slurm.sh`. `fewtune launch slurm SWEEP.yaml --dry-run` writes it
# filled in. The home directory and the storage are shared by the nodes, as on most such clusters,
# and with them the environment, the token of Ray's authentication and the runs.
#SBATCH --job-name=fewtune
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
set -euo pipefail

ENVIRONMENT=.venv
SWEEP=search/quickstart.yaml

# shellcheck disable=SC1091 # made by make
source "$ENVIRONMENT/bin/activate"
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
ray get-auth-token --generate >/dev/null  # kept where there is one already

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))  # two jobs may share a node

# one line: Ray starts on every node, the sweep on the first, and all ends with it
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 ray symmetric-run --address "$head:$port" --min-nodes "$SLURM_JOB_NUM_NODES" --num-cpus="$SLURM_CPUS_PER_TASK" -- fewtune sweep "$SWEEP" --address auto
