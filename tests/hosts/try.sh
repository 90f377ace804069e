#!/bin/bash
# A sweep on three hosts of a Ray cluster, of which one loses its network, and one dies.
#
#     tests/hosts/try.sh [FOLDER]    eleven minutes; root on Linux; logs and stores stay in FOLDER
#
# The hosts are namespaces of this machine with addresses of their own, Ray is started in each by
# `ray start`, the store is a folder that all see, and trials are real ones on digits. In the end
# every trial is done once, and the tables are, to the last bit, those of a run that nothing
# disturbed. Where hosts cannot be made, it says why and ends with 77.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/hosts/namespaces.sh
require_hosts tests/hosts/try.sh
folder=$(mkdir -p "${1:-/var/tmp/nas-sweeps-hosts}" && cd "${1:-/var/tmp/nas-sweeps-hosts}" && pwd)
names=(h0 h1 h2)
network=10.213.79
tag=nsh
declare -A hosts=()

clean_up() {
    set +e
    for name in "${!hosts[@]}"; do kill_host "$name"; done
    remove_network "$tag" "${names[@]}"
    set -e
}
# The first process of a host is the child of `unshare`, which dies with it.
first() { pgrep --parent "${hosts[$1]}"; }
kill_host() {  # whether it lives or has ended by itself
    kill -KILL "$(first "$1")" 2>/dev/null || true
    wait "${hosts[$1]}" 2>/dev/null || true
    unset "hosts[$1]"
}
trap clean_up EXIT
clean_up
rm -rf "${folder:?}"/{store,quiet,log,nodes}
mkdir -p "$folder"/log "$folder"/home
make_network "$tag" "$network" "$folder/hosts" "${names[@]}"


# Ray gives a node up that has not answered four times in 5 s; by itself it waits for a minute.
export RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=5000
export RAY_health_check_failure_threshold=4
export HOME=$folder/home RAY_AUTH_MODE=token RAY_worker_niceness=0 OMP_NUM_THREADS=1
RAY_AUTH_TOKEN=$(python3 -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN PATH="$PWD/.venv/bin:$PATH"

up() {  # NAME, OPTIONS OF `ray start`
    local start="ray start --block --disable-usage-stats ${*:2} >>$folder/log/$1 2>&1"
    # Ray gives its daemons 30 s to start, which are few on a busy machine.
    start_host "$tag" "$1" "$folder/hosts" \
        "until $start || ! grep -q 'timed out during startup' $folder/log/$1; do : >$folder/log/$1; done"
    hosts[$1]=$host
}
on() { nsenter --target "$(first "$1")" --all --wd="$PWD" "${@:2}"; }
worker() { up "$1" --address "$network.11:6379" --num-cpus 1 --num-gpus 0; }
nodes() { cat "$folder/nodes" 2>/dev/null; }  # how many live: tests/hosts/nodes.py writes it
until_nodes() {  # NUMBER
    for _ in {1..600}; do
        [[ $(nodes) == "$1" ]] && return
        sleep 0.5
    done
    echo "not $1 nodes, but $(nodes)" >&2
    return 1
}

up h0 --head --port 6379 --num-cpus 0 --num-gpus 0 --include-dashboard false
until grep -q "Ray runtime started" "$folder/log/h0" 2>/dev/null; do sleep 1; done
on h0 python -m tests.hosts.nodes "$folder/nodes" >"$folder/log/nodes" 2>&1 &
worker h1
worker h2
until_nodes 3

sweep=(nas-sweeps run experiments/quickstart.yaml --set 'search.distributions=[{exp: 0.1}]' --set retrain.recipe.epochs=160)
run() { on h0 "${sweep[@]}" --store "$folder/store" --address auto >>"$folder/log/run" 2>&1; }
until_line() {  # NUMBER PATTERN: until the run's log has so many such lines
    for _ in {1..1200}; do
        [[ $(grep -cE "$2" "$folder/log/run") -ge $1 ]] && return
        kill -0 "$driver" || return
        sleep 0.5
    done
    echo "'$2' did not come: see $folder/log/run" >&2
    return 1
}

touch "$folder/log/run"
run & driver=$!
until_line 2 "^search .*\| search +1/2"

echo "== h1 has no network for 5 s: less than Ray notices"
ip link set "$tag-h1" down
sleep 5
ip link set "$tag-h1" up
[[ $(nodes) == 3 ]]
until_line 2 "^retrain .*\| train +5/160"

echo "== h1 has no network until Ray gives it up; its trial goes on elsewhere, and it writes on"
ip link set "$tag-h1" down
until_nodes 2
until_line 1 "WorkerLost|again"
ip link set "$tag-h1" up
kill_host h1
worker h1
until_nodes 3
sleep 3

echo "== h2 dies"
kill_host h2
until_nodes 2
worker h2
wait "$driver" || { echo "the run failed: see $folder/log/run" >&2; exit 1; }

echo "== and nothing is lost"
tail -n 20 "$folder/log/run"
on h0 "${sweep[@]}" --store "$folder/store" --address auto | grep "nothing to run"
"${sweep[@]}" --store "$folder/quiet" --executor inline >"$folder/log/quiet" 2>&1
python -m tests.slurm.check_store "$folder/store"
nas-sweeps compare "$folder/store" "$folder/quiet" | tee "$folder/log/compare"
grep -q "equal in every result to the last bit" "$folder/log/compare"
echo "all as it should be; logs and stores: $folder"
