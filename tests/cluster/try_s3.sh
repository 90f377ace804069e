#!/bin/bash
# A sweep whose store is an object store: stopped in the middle, killed, gone on with, done once.
#
#     tests/cluster/try_s3.sh [FOLDER]    two minutes; needs no root; logs stay in FOLDER
#
# The store is on moto's S3 server, a process of its own on this machine; credentials and address
# come from the environment, as on a cluster. Results are, to the last bit, those of a run into a
# folder.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(mkdir -p "${1:-/var/tmp/nas-sweeps-s3}" && cd "${1:-/var/tmp/nas-sweeps-s3}" && pwd)
export PATH="$PWD/.venv/bin:$PATH" OMP_NUM_THREADS=1 RAY_worker_niceness=0
rm -rf "${folder:?}"/{log,quiet}
mkdir -p "$folder/log"
server='' run=''
clean_up() {
    set +e
    for pid in $run $server; do kill "$pid"; done
    wait
} 2>/dev/null
trap clean_up EXIT

port=$(python -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
moto_server --host 127.0.0.1 --port "$port" >"$folder/log/server" 2>&1 & server=$!
export AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=y AWS_DEFAULT_REGION=us-east-1
export AWS_ENDPOINT_URL=http://127.0.0.1:$port
unset AWS_SESSION_TOKEN AWS_PROFILE HTTP_PROXY http_proxy
for _ in {1..60}; do
    python - <<'PY' 2>"$folder/log/bucket" && break
import os, urllib.request
url = os.environ["AWS_ENDPOINT_URL"] + "/bucket"
urllib.request.build_opener(urllib.request.ProxyHandler({})).open(urllib.request.Request(url, method="PUT"))
PY
    sleep 0.5
done
store="s3://bucket/runs/quickstart?region=us-east-1&endpoint_override=http%3A%2F%2F127.0.0.1%3A$port"

sweep() {  # LOG [OPTION ...]
    exec nas-sweeps run experiments/quickstart.yaml --set 'search.distributions=[{exp: 0.1}]' \
        "${@:2}" >"$folder/log/$1" 2>&1
}
until_line() {  # LOG PATTERN
    for _ in {1..1200}; do
        grep -qE "$2" "$folder/log/$1" 2>/dev/null && return
        kill -0 "$run" || return
        sleep 0.5
    done
    echo "'$2' did not come: see $folder/log/$1" >&2
    return 1
}

echo "== stopped by SIGTERM in the middle"
(sweep first --store "$store" --executor inline) & run=$!
until_line first "^search .*done"
kill -TERM "$run"
code=0
wait "$run" || code=$?
[[ $code == 143 ]]
echo "== killed in the middle"
(sweep second --store "$store" --executor inline) & run=$!
until_line second "^retrain .*\| train +3/8"
kill -KILL "$run"
wait "$run" || true
echo "== to the end, on Ray"
(sweep third --store "$store") & run=$!
wait "$run"
run=
grep "search trials done" "$folder/log/third"
python -m tests.slurm.check_store "$store"
(sweep quiet --store "$folder/quiet" --executor inline)
nas-sweeps compare "$store" "$folder/quiet" | tee "$folder/log/compare"
grep -q "equal in every result to the last bit" "$folder/log/compare"
echo "all as it should be; logs: $folder"
