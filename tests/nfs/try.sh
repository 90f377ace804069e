#!/bin/bash
# A store on a real NFS that two hosts mount: the ledger's rules under attribute caches.
#
#     tests/nfs/try.sh [FOLDER]            fifteen minutes; root on Debian; logs stay in FOLDER
#     tests/nfs/try.sh FOLDER leases …     some parts only, which stand at the end of conduct.py
#     MOUNT_OPTIONS=vers=4.2,nocto tests/nfs/try.sh FOLDER results    other options of the mounts
#
# The hosts are two user-mode Linux kernels, each with the NFS client of Linux 6.1, whatever the
# kernel of this machine has; the server is nfs-ganesha on this one. What two hosts share is a bridge
# and the export. Files of this machine are the guests' root, read-only. Where this cannot be, it
# says why and ends with 77, as a skipped test does.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(mkdir -p "${1:-/var/tmp/nas-sweeps-nfs}" && cd "${1:-/var/tmp/nas-sweeps-nfs}" && pwd)
options=${MOUNT_OPTIONS:-vers=4.2}
network=10.213.78
tag=nsf  # the names of our interfaces begin so

skip() { echo "skipped: $1"; exit 77; }
[[ $(id -u) == 0 ]] || skip "tests/nfs/try.sh needs root: it makes network interfaces"
[[ $(uname -m) == x86_64 ]] || skip "Debian has user-mode Linux for x86_64, this is $(uname -m)"
[[ -c /dev/net/tun ]] || skip "there is no /dev/net/tun here, by which guests have a network"
export DEBIAN_FRONTEND=noninteractive
needed="linux.uml ganesha.nfsd mount.nfs modprobe ip"
# shellcheck disable=SC2086  # several words
command -v $needed >/dev/null && [[ -e $(echo /usr/lib/*/ganesha/libfsalvfs.so) ]] || {
    apt-get update -qq && apt-get install -qq -y --no-install-recommends \
        user-mode-linux nfs-ganesha nfs-ganesha-vfs nfs-common kmod iproute2 >/dev/null
} || skip "apt-get does not install user-mode-linux, nfs-ganesha-vfs, nfs-common and kmod here"

pids=()
maps=$(</proc/sys/vm/max_map_count)
clean_up() {
    set +e
    echo "$maps" >/proc/sys/vm/max_map_count
    # A guest is a group of processes, of which its kernel is the first.
    for pid in "${pids[@]}"; do kill -KILL -- "-$pid" || kill -KILL "$pid"; done 2>/dev/null
    wait 2>/dev/null
    for link in c1 c2 bridge; do ip link del "$tag-$link"; done 2>/dev/null
}
trap clean_up EXIT
clean_up
set -e
rm -rf "${folder:?}"/{export,log,recovery,memory}
mkdir -p "$folder"/{export,log,recovery,memory,bytecode}

ip link add "$tag-bridge" type bridge || skip "this kernel makes no network bridge"
ip addr add "$network.1/24" dev "$tag-bridge"
ip link set "$tag-bridge" up
for i in 1 2; do
    ip tuntap add dev "$tag-c$i" mode tap
    ip link set "$tag-c$i" gso_max_segs 1  # a guest drops what is larger than a frame
    ip link set "$tag-c$i" master "$tag-bridge" up
done

cat >"$folder/ganesha.conf" <<CONF
NFS_CORE_PARAM { Protocols = 4; Bind_addr = $network.1; Enable_NLM = false; Enable_RQUOTA = false; }
NFSV4 { Graceless = true; RecoveryRoot = "$folder/recovery"; }
EXPORT {
    Export_Id = 1; Path = "$folder/export"; Pseudo = /store; Access_Type = RW;
    Squash = No_Root_Squash; SecType = sys; Protocols = 4; Transports = TCP;
    FSAL { Name = VFS; }
}
CONF
ganesha.nfsd -F -f "$folder/ganesha.conf" -L "$folder/log/ganesha.log" -p "$folder/ganesha.pid" \
    >"$folder/log/ganesha.out" 2>&1 & pids+=($!)
for _ in {1..60}; do grep -q "NFS SERVER INITIALIZED" "$folder/log/ganesha.log" 2>/dev/null && break; sleep 0.5; done
grep -q "NFS SERVER INITIALIZED" "$folder/log/ganesha.log" || skip "nfs-ganesha does not start here: see $folder/log/ganesha.log"

# A guest cannot write beside sources: what it imports is compiled once, here.
export PYTHONPYCACHEPREFIX=$folder/bytecode
env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -c 'import tests.nfs.guest, torch, nas_sweeps.sweep.worker'

cat >"$folder/init" <<INIT
#!/bin/bash
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs run /run
mkdir -p /run/lib /run/home /run/tmp && ln -s /usr/lib/uml/modules /run/lib/modules
modprobe --dirname=/run nfsv4
hostname "\$NAME"
ip link set lo up; ip addr add "\$ADDRESS/24" dev vec0; ip link set vec0 up
for _ in {1..20}; do mount -t nfs -o "$options" "$network.1:/store" /mnt && break; sleep 0.5; done
grep " /mnt " /proc/mounts
cd "$PWD"
export HOME=/run/home TMPDIR=/run/tmp NAS_SWEEPS_CACHE=/run/home OMP_NUM_THREADS=1
export PYTHONPYCACHEPREFIX=$folder/bytecode PYTHONDONTWRITEBYTECODE=1
.venv/bin/python -m tests.nfs.guest "$network.1" "\$NAME" "\$ADDRESS"
halt -f -p
INIT
chmod +x "$folder/init"
# Each page of a guest's process may be a map of a process here; with the usual 65,530, workers die.
echo 1048576 >/proc/sys/vm/max_map_count || true
for i in 1 2; do
    TMPDIR=$folder/memory linux.uml mem=4G root=/dev/root rootfstype=hostfs rootflags=/ ro quiet \
        init="$folder/init" vec0:transport=tap,ifname="$tag-c$i",depth=64,gro=1 \
        NAME="g$i" ADDRESS="$network.1$i" con=null con0=fd:0,fd:1 ssl=null \
        <&- >"$folder/log/g$i" 2>&1 & pids+=($!)
done
.venv/bin/python -u -m tests.nfs.conduct "$network.1" "${@:2}"
grep -h " /mnt nfs" "$folder/log/g1"
echo "all as it should be; logs: $folder"
