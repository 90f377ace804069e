#!/bin/bash
# cluster/onprem/cluster.yaml as a user would: `ray up` over ssh from one host to three others, a run
# in tmux, Ctrl-C, the run again, a worker whose Ray ends, the results copied, and the cluster's end.
#
#     tests/hosts/try_ssh.sh [FOLDER]    seven minutes; root on Debian; logs and stores stay in FOLDER
#
# The hosts are namespaces of this machine, each with an sshd, a home and a /tmp/ray of its own; the
# first, h1, thinks of itself as 127.0.1.1, as Debian does. What `ray stop` ends is in them. Where
# this cannot be, it says why and ends with 77, as a skipped test does.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/hosts/namespaces.sh
require_hosts tests/hosts/try_ssh.sh
export PATH="$PWD/.venv/bin:$PATH:/usr/sbin" DEBIAN_FRONTEND=noninteractive
command -v sshd ssh rsync tmux >/dev/null && [[ -x $(command -v sshd) && -x $(command -v tmux) ]] || {
    apt-get update -qq &&
        apt-get install -qq -y --no-install-recommends openssh-server openssh-client rsync tmux >/dev/null
} || skip "there is no sshd, rsync or tmux, and apt-get does not install them here"
folder=$(mkdir -p "${1:-/var/tmp/nas-sweeps-ssh}" && cd "${1:-/var/tmp/nas-sweeps-ssh}" && pwd)
names=(me h1 h2 h3)
network=10.213.83
tag=nsy
declare -A hosts=()

first() { pgrep --parent "${hosts[$1]}"; }
clean_up() {
    set +e
    for name in "${!hosts[@]}"; do
        kill -KILL "$(first "$name")"
        wait "${hosts[$name]}"
    done 2>/dev/null
    remove_network "$tag" "${names[@]}"
    set -e
}
trap clean_up EXIT
clean_up
rm -rf "${folder:?}"/{store,copy,log,home,key}
mkdir -p "$folder"/{log,home,key}
make_network "$tag" "$network" "$folder/hosts" "${names[@]}"
{ echo "127.0.1.1 h1"; grep -v " h1$" "$folder/hosts"; } >"$folder/hosts-h1"

ssh-keygen -q -t ed25519 -N '' -f "$folder/key/user"
echo 'root:*:19000::::::' >"$folder/shadow"  # no password, but not locked either
for name in "${names[@]}"; do
    home=$folder/home/$name
    install -d -m 700 "$home" "$home/.ssh"
    install -m 600 "$folder/key/user.pub" "$home/.ssh/authorized_keys"
    touch "$home/.bashrc"
    ssh-keygen -q -t ed25519 -N '' -f "$folder/key/$name"
    sed "s#^\(root:.*\):/root:#\1:$home:#" /etc/passwd >"$folder/passwd-$name"
    seen=$folder/hosts
    [[ $name == h1 ]] && seen=$folder/hosts-h1
    cat >"$folder/init-$name" <<INIT
mount --bind $folder/passwd-$name /etc/passwd
mount --bind $folder/shadow /etc/shadow
mount -t tmpfs tmpfs /run && mkdir /run/sshd
exec $(command -v sshd) -D -e -f /dev/null -o HostKey=$folder/key/$name -o PidFile=none \
    -o PermitRootLogin=prohibit-password -o UsePAM=no \
    -o 'SetEnv=RAY_worker_niceness=0 TMUX_TMPDIR=/tmp/ray' >>$folder/log/sshd-$name 2>&1
INIT
    start_host "$tag" "$name" "$seen" "bash $folder/init-$name"
    hosts[$name]=$host
done
cp "$folder/key/user" "$folder/home/me/.ssh/id_ed25519"  # of mode 600
printf 'StrictHostKeyChecking accept-new\nLogLevel ERROR\n' >"$folder/home/me/.ssh/config"
for name in "${names[@]}"; do
    until grep -q "Server listening" "$folder/log/sshd-$name" 2>/dev/null; do sleep 0.2; done
done

on() {  # HOST COMMAND …
    nsenter --target "$(first "$1")" --all --wd="$PWD" env HOME="$folder/home/$1" \
        TMUX_TMPDIR=/tmp/ray RAY_AUTH_MODE=token "${@:2}"
}
me() { on me "$@"; }
sed -e "s#/shared/nas_sweeps#$PWD#; s/ssh_user: me$/ssh_user: root/" \
    -e "s/head_ip: .*/head_ip: $network.12/; s/worker_ips: .*/worker_ips: [$network.13, $network.14]/" \
    cluster/onprem/cluster.yaml >"$folder/cluster.yaml"
cluster() { me ray "$1" "$folder/cluster.yaml" "${@:2}" >>"$folder/log/ray" 2>&1; }
until_all_are_there() {
    for _ in {1..90}; do
        on h1 ray status 2>/dev/null | grep -A1 "^Active:" | grep -q "3 local.cluster.node" && return
        sleep 2
    done
    on h1 bash -c 'cat /tmp/ray/session_latest/logs/monitor.*' >"$folder/log/monitor"
    echo "not all nodes came: see $folder/log/monitor and $folder/log/ray" >&2
    return 1
}
until_status() {  # PATTERN: until `nas-sweeps status` has such a line
    for _ in {1..120}; do
        nas-sweeps status "$folder/store" >"$folder/log/status" 2>&1 || true
        grep -qE "$1" "$folder/log/status" && return
        sleep 2
    done
    echo "'$1' did not come: see $folder/log/status" >&2
    return 1
}

echo "== ray up"
me ray get-auth-token --generate >/dev/null 2>&1
for _ in 1 2 3; do cluster up --yes && break; done  # Ray's daemons have 30 s to start: few, if busy
until_all_are_there
grid="experiments/quickstart.yaml --set 'search.distributions=[{exp: 0.1}]' --set retrain.recipe.epochs=120"
cluster exec "cd $PWD && .venv/bin/nas-sweeps doctor $grid --store $folder/store --every-node"
grep -a "sees 3 nodes" "$folder/log/ray"

echo "== a run in tmux, which Ctrl-C stops"
run="cd $PWD && .venv/bin/nas-sweeps run $grid --store $folder/store --address auto"
cluster exec --tmux "$run"
until_status "running r-.* [1-9][0-9]* epochs done"
me tmux new -d -x 120 -y 40 "ray attach $folder/cluster.yaml --tmux"
until me tmux capture-pane -p | grep -q "running"; do sleep 1; done
me tmux send-keys C-c
until_status "no run works on it"
me tmux capture-pane -p | grep "the same command goes on where the trials are now"
me tmux kill-server
python -m tests.slurm.check_store "$folder/store" --stopped

echo "== again, and Ray ends on h3"
cluster exec --tmux "$run"
until_status "running r-.* on h3 "
on h3 ray stop >>"$folder/log/ray" 2>&1
until_all_are_there  # Ray is started there again, after half a minute
until_status "no run works on it"
python -m tests.slurm.check_store "$folder/store"

echo "== the results"
mkdir -p "$folder/copy"
me rsync -a --exclude '*.checkpoint.pt' "h1:$folder/store" "$folder/copy/"
me nas-sweeps table "$folder/copy/store" --value accuracy_tail

echo "== the end"
cluster exec "$PWD/.venv/bin/ray stop"
for name in h1 h2 h3; do
    for _ in {1..60}; do
        on "$name" pgrep -x raylet >/dev/null || continue 2
        sleep 2
    done
    echo "Ray works on on $name" >&2
    exit 1
done
echo "all as it should be; logs and store: $folder"
