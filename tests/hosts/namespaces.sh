# shellcheck shell=bash
# Hosts on one machine, each with a network, a name, a process table and a /tmp/ray of its own: for
# tests/hosts/try.sh and tests/slurm/try.sh, which source this. All see the same files.

# Where hosts cannot be made: says why, and ends as a skipped test does.
skip() { echo "skipped: $1"; exit 77; }
require_hosts() {  # COMMAND_TO_SHOW
    [[ $(id -u) == 0 ]] || skip "$1 needs root: it makes network namespaces"
    command -v ip nsenter unshare >/dev/null || {
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq && apt-get install -qq -y --no-install-recommends iproute2 >/dev/null
    } || skip "there is no iproute2, and apt-get does not install it here"
    ip netns add nas-sweeps-tried 2>/dev/null || skip "this kernel makes no network namespaces here"
    ip netns del nas-sweeps-tried
    unshare --pid --fork --mount --mount-proc --uts true 2>/dev/null ||
        skip "this kernel makes no process namespaces here"
}

# A bridge with hosts on it: NETWORK.11, NETWORK.12 …, and this machine as NETWORK.1. Interfaces
# are TAG-bridge and TAG-NAME; FILE becomes everybody's /etc/hosts.
make_network() {  # TAG NETWORK FILE NAME ...
    local tag=$1 network=$2 file=$3 i=10 name
    shift 3
    ip link add "$tag-bridge" type bridge || skip "this kernel makes no network bridge"
    ip addr add "$network.1/24" dev "$tag-bridge"
    ip link set "$tag-bridge" up
    printf '%s\n' "127.0.0.1 localhost" "$network.1 $(hostname)" >"$file"
    for name; do
        i=$((i + 1))
        ip netns add "$tag-$name"
        ip link add "$tag-$name" type veth peer name eth0 netns "$tag-$name"
        ip link set "$tag-$name" master "$tag-bridge" up
        ip -n "$tag-$name" addr add "$network.$i/24" dev eth0
        ip -n "$tag-$name" link set eth0 up
        ip -n "$tag-$name" link set lo up
        ip -n "$tag-$name" route add default via "$network.1"
        echo "$network.$i $name" >>"$file"
    done
}

remove_network() {  # TAG NAME ...
    local tag=$1 name
    shift
    for name; do  # a namespace goes with its last socket, which may be minutes from now
        ip link del "$tag-$name"
        ip netns del "$tag-$name"
    done 2>/dev/null
    ip link del "$tag-bridge" 2>/dev/null
    return 0
}

# A host is its first process, which lives as long as what it is given; when it is killed, all of
# the host's processes are. It reaps what daemons leave. (Not `ip netns exec`: that mounts another
# /sys, without the control groups that slurmd looks for.)
start_host() {  # TAG NAME HOSTS_FILE COMMAND: in the background; its number is then in $host
    # shellcheck disable=SC2016  # expanded in there
    nsenter --net="/run/netns/$1-$2" unshare --pid --fork --kill-child --mount --mount-proc --uts \
        bash -c '
            hostname "$1"
            mount --bind "$2" /etc/hosts
            mkdir -p /tmp/ray && mount -t tmpfs tmpfs /tmp/ray
            eval "$3" & wait' host "$2" "$3" "$4" &
    # shellcheck disable=SC2034  # for the caller
    host=$!
}
