#!/bin/bash
# `ray job submit` as a user would: submit a run, follow it, stop it, submit it again, done once.
#
#     tests/cluster/try_job.sh [FOLDER]    two minutes; needs no root; logs and store stay in FOLDER
#
# The head has ports and a folder of its own, so that another Ray of this machine is left alone; it
# is not ended by `ray stop`, which would end every other Ray of this user, too. Without the extra
# `cluster` (its dashboard takes jobs) the script says so and ends with 77, as a skipped test does.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(mkdir -p "${1:-/var/tmp/nas-sweeps-job}" && cd "${1:-/var/tmp/nas-sweeps-job}" && pwd)
export PATH="$PWD/.venv/bin:$PATH"
python -c 'import aiohttp_cors' 2>/dev/null || {
    echo "skipped: jobs need Ray's dashboard: uv sync --extra cluster"
    exit 77
}

ports=()
mapfile -t ports < <(python -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*[s.getsockname()[1] for s in held], sep="\n")')
temp=$(mktemp -d /tmp/nsj.XXXX)  # short: names of sockets are
head=
clean_up() {
    set +e
    # `ray start --block` ends its daemons when it is told to.
    [[ -n $head ]] && kill -TERM "$head" && wait "$head"
    rm -rf "$temp"
} 2>/dev/null
trap clean_up EXIT
rm -rf "${folder:?}"/{store,quiet,log}
mkdir -p "$folder/log"

RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_worker_niceness=0 OMP_NUM_THREADS=1

export RAY_JOB_STOP_WAIT_TIME_S=30  # as cluster/ has it, and more for a busy machine
export RAY_API_SERVER_ADDRESS=http://127.0.0.1:${ports[1]}
answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
for _ in 1 2 3; do  # Ray gives its daemons 30 s to start, which are few on a busy machine
    ray start --block --head --node-ip-address 127.0.0.1 --port "${ports[0]}" --num-cpus 2 \
        --num-gpus 0 --dashboard-port "${ports[1]}" --dashboard-agent-listen-port "${ports[2]}" \
        --temp-dir "$temp" --disable-usage-stats >"$folder/log/head" 2>&1 & head=$!
    until answers "${ports[1]}" && grep -q "Ray runtime started" "$folder/log/head"; do
        kill -0 "$head" 2>/dev/null || continue 2
        sleep 0.5
    done
    break
done
kill -0 "$head" 2>/dev/null || { echo "no head: see $folder/log/head" >&2; exit 1; }

submit() {  # NAME [OPTION ...]
    ray job submit --submission-id "$1" "${@:2}" -- \
        "$PWD/.venv/bin/nas-sweeps" run "$PWD/experiments/quickstart.yaml" \
        --set "search.distributions=[{exp: 0.1}]" --set retrain.recipe.epochs=80 \
        --store "$folder/store" --address auto
}

echo "== submitted, and stopped in the middle"
submit first --no-wait >/dev/null
ray job logs --follow first >"$folder/log/first" 2>&1 & follower=$!
for _ in {1..1200}; do
    grep -qE "^retrain .*\| train +1/80" "$folder/log/first" && break
    kill -0 "$follower" 2>/dev/null || break
    sleep 0.5
done
grep -qE "^retrain .*\| train +1/80" "$folder/log/first"
ray job stop first >"$folder/log/stop" 2>&1
wait "$follower" || true
grep -o "Job 'first' was stopped" "$folder/log/stop"
grep "the same command goes on where the trials are now" "$folder/log/first"
python -m tests.slurm.check_store "$folder/store" --stopped

echo "== submitted again"
submit second >"$folder/log/second" 2>&1
grep -E "search trials done" "$folder/log/second"
python -m tests.slurm.check_store "$folder/store" --clean
echo "== and again: nothing is left to do"
submit third >"$folder/log/third" 2>&1
grep "nothing to run" "$folder/log/third"
echo "all as it should be; logs and store: $folder"
