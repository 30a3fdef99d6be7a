#!/bin/bash
# Quantizes a checkpoint with mpirun: on one machine, on the hosts of a hostfile, or inside an sbatch or salloc allocation
# where srun cannot start MPI programs (no pmix plug-in).
#
#   jobs/quantize-mpirun.sh INPUT OUT.h5 [lmq quantize options]
#   LMQ_HOSTFILE=hosts LMQ_RANKS=8 LMQ_THREADS=16 jobs/quantize-mpirun.sh /scratch/model /scratch/model.h5 --bits 4
#   sbatch --nodes=4 --ntasks-per-node=2 --cpus-per-task=16 jobs/quantize-mpirun.sh /scratch/model /scratch/model.h5
#
#   LMQ             the program                  (default: lmq)
#   LMQ_HOSTFILE    "host slots=N" lines         (default: this machine, or what Slurm gave)
#   LMQ_RANKS       ranks in all                 (default: 1, or what Slurm gave)
#   LMQ_THREADS     threads per rank             (default: the CPUs of this machine by the ranks on it, or what Slurm gave)
#   LMQ_MPIRUN      more options for mpirun, for example "--map-by ppr:1:numa:PE=16 --bind-to core"
#
# USR1 or TERM to this script stops cleanly with exit code 75; the same command goes on. In a Slurm job that happens by
# itself: the job is put back into the queue.
# ---- To adapt: account and partition of your cluster (take one # away), resources, the modules below.
##SBATCH --account=PROJECT
##SBATCH --partition=NAME
#SBATCH --job-name=lmq
#SBATCH --time=4:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=lmq-%j.log
# module load lmq openmpi
set -uo pipefail

if (($# < 2)); then
  echo "usage: jobs/quantize-mpirun.sh INPUT OUT.h5 [lmq quantize options]" >&2
  exit 64
fi
input=$1 output=$2
shift 2
lmq=${LMQ:-lmq}

command -v "$lmq" >/dev/null || {
  echo "quantize-mpirun.sh: $lmq is not on PATH: load its module, source its lmqrc, or set LMQ=/path/to/lmq" >&2
  exit 69
}
command -v mpirun >/dev/null || {
  echo "quantize-mpirun.sh: mpirun is not on PATH: load the MPI that lmq was built with ($lmq --version)" >&2
  exit 69
}

options=()
[[ -n ${LMQ_HOSTFILE:-} ]] && options+=(--hostfile "$LMQ_HOSTFILE")
if [[ -n ${LMQ_RANKS:-} ]]; then
  options+=(-np "$LMQ_RANKS")
elif [[ -z ${SLURM_JOB_ID:-} && -z ${LMQ_HOSTFILE:-} ]]; then
  options+=(-np 1)
fi
threads=${LMQ_THREADS:-${SLURM_CPUS_PER_TASK:-}}
if [[ -z $threads && -z ${SLURM_JOB_ID:-} && -z ${LMQ_HOSTFILE:-} ]]; then
  threads=$(($(nproc) / ${LMQ_RANKS:-1}))
  ((threads > 0)) || threads=1
fi
if [[ -n $threads ]]; then
  export OMP_NUM_THREADS=$threads
  options+=(-x OMP_NUM_THREADS)
fi

# With one or two ranks mpirun pins each to one core, which would leave one thread: no binding unless LMQ_MPIRUN says how.
read -r -a more <<<"${LMQ_MPIRUN:---bind-to none}"
options+=("${more[@]}")

# A pulled cable or a dead switch hangs mpirun for ever unless its connections are kept alive: notice after a minute.
export OMPI_MCA_oob_tcp_keepalive_time=30 OMPI_MCA_oob_tcp_keepalive_intvl=10 OMPI_MCA_oob_tcp_keepalive_probes=3
# Lustre and NFS mounts without locks refuse HDF5's; lmq has one writer of metadata and needs none.
export HDF5_USE_FILE_LOCKING=FALSE
options+=(-x HDF5_USE_FILE_LOCKING)

# TERM to mpirun kills its ranks after one second; USR1 leaves them the time they need, so both become USR1. In a Slurm job
# TERM means scancel: then the job must end, not go back into the queue.
pid='' ended=''
trap '[[ -n $pid ]] && kill -USR1 "$pid" 2>/dev/null' USR1
trap 'ended=yes; [[ -n $pid ]] && kill -USR1 "$pid" 2>/dev/null' TERM INT
mpirun "${options[@]}" "$lmq" quantize "$input" -o "$output" --resume auto --progress plain "$@" </dev/null &
pid=$!
while kill -0 "$pid" 2>/dev/null; do wait "$pid"; done # a trapped signal ends a wait early
wait "$pid"
code=$?

if [[ -n ${SLURM_JOB_ID:-} && -z $ended ]] && ((code == 75 || code == 138)); then
  if ((${SLURM_RESTART_COUNT:-0} < ${LMQ_MOST_RESTARTS:-100})); then
    scontrol requeue "$SLURM_JOB_ID"
  fi
fi
exit "$code"
