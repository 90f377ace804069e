#!/bin/bash
# cluster/slurm/sweep.sbatch on a real Slurm of two nodes, on this machine: root on Debian is enough.
#
#     tests/slurm/try.sh [FOLDER]              twenty minutes; logs and stores stay in FOLDER
#     tests/slurm/try.sh FOLDER limit preempt  some parts only: limit, cancel, stop, preempt
#
# Each node has a network, a name, a process table and a /tmp/ray of its own, so that `ray stop` at
# the end of a job sees no other Ray of this machine. Trials are those of nas_sweeps.testing.fake:
# what is tried is Slurm, Ray's start, signals and the ledger. Where this cannot be, it says why and
# ends with 77, as a skipped test does.
set -euo pipefail
cd "$(dirname "$0")/../.."
parts=${*:2}
parts=" ${parts:-limit cancel stop preempt} "
folder=$(mkdir -p "${1:-/var/tmp/nas-sweeps-slurm}" && cd "${1:-/var/tmp/nas-sweeps-slurm}" && pwd)
. tests/hosts/namespaces.sh
require_hosts tests/slurm/try.sh

export DEBIAN_FRONTEND=noninteractive
command -v slurmctld slurmd munged >/dev/null || {
    apt-get update -qq && apt-get install -qq -y --no-install-recommends slurm-wlm munge >/dev/null
} || skip "there is no Slurm, and apt-get does not install it here"

nodes=(n1 n2)
network=10.213.77
tag=nss  # the names of our interfaces begin so

clean_up() {
    set +e
    [[ -n ${controller:-} ]] && kill "$controller"
    for pid in "${slurmds[@]:-}"; do [[ -n $pid ]] && kill -KILL "$pid"; done
    [[ -n ${munged:-} ]] && kill "$munged"
    wait 2>/dev/null
    remove_network "$tag" "${nodes[@]}"
}
trap clean_up EXIT
clean_up 2>/dev/null
set -e

# Of an earlier trial nothing is kept: Slurm would go on with its jobs, and append to their output.
rm -rf "${folder:?}"/{state,spool,stores,log} "$folder"/*.out
mkdir -p "$folder"/{state,spool/n1,spool/n2,log,home,stores}
make_network "$tag" "$network" "$folder/hosts" "${nodes[@]}"

# Slurm

if ! pgrep -x munged >/dev/null; then
    install -d -o munge -g munge /run/munge
    runuser -u munge -- /usr/sbin/munged --foreground &
    munged=$!
fi
cat >"$folder/slurm.conf" <<CONF
ClusterName=trial
SlurmctldHost=$(hostname)($network.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=10
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
SlurmctldParameters=preempt_send_user_signal
ReturnToService=2
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/%n.log
GresTypes=gpu
NodeName=n1 NodeAddr=$network.11 CPUs=2 RealMemory=4000 Gres=gpu:1
NodeName=n2 NodeAddr=$network.12 CPUs=2 RealMemory=4000 Gres=gpu:1
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 MaxTime=INFINITE GraceTime=60
PartitionName=high Nodes=ALL PriorityTier=9 MaxTime=INFINITE
CONF
echo "Name=gpu File=/dev/null" >"$folder/gres.conf"  # a GPU for Slurm to give; Ray finds none
export SLURM_CONF=$folder/slurm.conf
slurmctld -D >"$folder/log/out" 2>&1 & controller=$!
slurmds=()
for node in "${nodes[@]}"; do
    start_host "$tag" "$node" "$folder/hosts" "slurmd -D -N $node >/dev/null 2>&1"
    slurmds+=("$host")
done
for _ in {1..60}; do
    [[ $(sinfo --noheader --states=idle --format=%D) == 2 ]] && break
    sleep 1
done
sinfo --Node --long

# What a user would do

export HOME=$folder/home NAS_SWEEPS_RUNS=nas_sweeps.testing.fake:RUNS
export NAS_SWEEPS_FAKE_STEP_S=${NAS_SWEEPS_FAKE_STEP_S:-2}

# submit STORE [OPTION OF SBATCH ...]: prints the number of the job. Fewer GPUs and minutes than in
# the file; the signal comes up to a minute before the time that it names.
submit() {
    local store=$1
    shift
    sbatch --parsable --output="$folder/$store.out" --gpus-per-node=1 --time=3 \
        --signal=B:TERM@40 "$@" cluster/slurm/sweep.sbatch experiments/quickstart.yaml \
        --store "$folder/stores/$store"
}
state() { scontrol show job "$1" | sed -n 's/.*JobState=\([A-Z]*\).*/\1/p'; }
restarts() { scontrol show job "$1" | sed -n 's/.*Restarts=\([0-9]*\).*/\1/p'; }
until_ended() {  # JOB
    until [[ $(state "$1") =~ COMPLETED|FAILED|CANCELLED|TIMEOUT|PREEMPTED ]]; do sleep 2; done
    echo "job $1: $(state "$1"), $(restarts "$1") restarts"
}
until_epochs() {  # STORE: until trials have finished epochs
    for _ in {1..300}; do
        grep -q "train *2/8" "$folder/$1.out" 2>/dev/null && return
        sleep 2
    done
    echo "no epoch of $1 came: see $folder/$1.out" >&2
    return 1
}
no_ray_left() {
    srun --nodes=2 --ntasks=2 bash -c '! grep -qxE "raylet|gcs_server" /proc/[0-9]*/comm'
}
check() { .venv/bin/python -m tests.slurm.check_store "$@"; }

the_limit() {
    echo "== a time limit in the middle: the job queues itself again, and ends when all is done"
    local job
    job=$(submit limit)
    until_ended "$job"
    [[ $(state "$job") == COMPLETED && $(restarts "$job") -ge 1 ]]
    grep "queued again" "$folder/limit.out"
    check "$folder/stores/limit" --clean n1 n2
}
cancelled() {
    echo "== scancel: the job stays away, nothing of Ray is left, and the next job goes on"
    local job
    job=$(submit cancel --time=15)
    until_epochs cancel
    scancel "$job"
    until_ended "$job"
    sleep 30
    [[ $(state "$job") == CANCELLED ]]
    no_ray_left
    job=$(NAS_SWEEPS_FAKE_STEP_S=0 submit cancel --time=15)
    until_ended "$job"
    [[ $(state "$job") == COMPLETED ]]
    check "$folder/stores/cancel"
}
stopped() {
    echo "== stopped cleanly by a person, for good"
    local job
    job=$(submit stop --time=15)
    until_epochs stop
    scancel --batch --signal=INT "$job"
    until_ended "$job"
    [[ $(state "$job") == FAILED && $(restarts "$job") == 0 ]]
    scontrol show job "$job" | grep -o "ExitCode=130:0"
}
preempted() {
    echo "== preempted with PreemptMode=CANCEL: the job queues itself again"
    local job
    job=$(submit preempt --time=15)
    until_epochs preempt
    sbatch --partition=high --nodes=2 --exclusive --output=/dev/null --wrap "sleep 1"
    until_ended "$job"
    [[ $(state "$job") == COMPLETED && $(restarts "$job") == 1 ]]
    check "$folder/stores/preempt" --clean n1 n2
}
[[ $parts == *" limit "* ]] && the_limit
[[ $parts == *" cancel "* ]] && cancelled
[[ $parts == *" stop "* ]] && stopped
[[ $parts == *" preempt "* ]] && preempted
no_ray_left
echo "all as it should be; logs and stores: $folder"
