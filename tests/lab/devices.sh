# Sourced in the guest. lab_devices SET-UP makes the devices of a set-up, after taking those of another away:
#   none    no RDMA device
#   dummy   rxe0 on dummy0: fast and simple, every peer is on the same device
#   veth    rxe0 on v0 and rxe1 on v1, the ends of one cable: loss, delay, link-down and removal act on what crosses it
# It exports EVPL_TEST_RDMA_ADDRESS (an address of rxe0) and, with veth, EVPL_TEST_RDMA_PEER_ADDRESS (one of rxe1).

lab_devices() {
    lab_devices_away
    export LAB_DEVICES=$1
    case $1 in
        none) ;;
        dummy | veth) lab_modules && "lab_devices_$1" ;;
        *)
            echo "lab: no device set-up '$1' (none, dummy, veth)" >&2
            return 1
            ;;
    esac
}

# A connection that still holds a device would survive its removal: leftovers are gone before.
lab_devices_away() {
    unset EVPL_TEST_RDMA_ADDRESS EVPL_TEST_RDMA_PEER_ADDRESS
    local device
    for device in rxe0 rxe1; do
        [[ ! -e /sys/class/infiniband/$device ]] || rdma link del "$device"
    done
    for device in dummy0 v0; do
        [[ ! -e /sys/class/net/$device ]] || ip link del "$device"
    done
}

# Whether the devices of the set-up are still as it made them: none removed, no link down, nothing that loses packets.
lab_devices_intact() {
    local devices=() device
    case $LAB_DEVICES in
        dummy) devices=(rxe0) ;;
        veth) devices=(rxe0 rxe1) ;;
    esac
    for device in "${devices[@]}"; do
        lab_has_gid "$device" && [[ $(cat "/sys/class/infiniband/$device/ports/1/state") == *ACTIVE* ]] || return
    done
    [[ $(tc qdisc show) != *netem* ]]
}

lab_modules() {
    modprobe -a rdma_rxe rdma_ucm veth sch_netem && modprobe dummy numdummies=0
}

# lab_rxe NAME NETDEV: the device, usable: its address is in the table of its port.
lab_rxe() {
    rdma link add "$1" type rxe netdev "$2" || return
    lab_wait "$1 has no address" lab_has_gid "$1"
}
lab_has_gid() { [[ $(cat "/sys/class/infiniband/$1/ports/1/gids/1" 2>/dev/null) == *[1-9a-f]* ]]; }

# lab_wait WHAT-IS-MISSING COMMAND...: until it succeeds, for at most 30 s.
lab_wait() {
    local what=$1 end=$((SECONDS + 30))
    shift
    until "$@"; do
        if [[ $SECONDS -ge $end ]]; then
            echo "lab: $what" >&2
            return 1
        fi
        sleep 0.05
    done
}

lab_devices_dummy() {
    ip link add dummy0 type dummy
    ip link set dummy0 mtu 9000 up
    ip address add 10.77.0.1/24 dev dummy0
    lab_rxe rxe0 dummy0 || return
    export EVPL_TEST_RDMA_ADDRESS=10.77.0.1
}

# Both ends live in one namespace: without these settings the kernel would refuse packets from its own addresses, and
# answer for the other end.
lab_devices_veth() {
    ip link add v0 type veth peer name v1
    local end
    for end in all v0 v1; do
        sysctl -qw "net.ipv4.conf.$end.accept_local=1" "net.ipv4.conf.$end.rp_filter=0" "net.ipv4.conf.$end.arp_ignore=1"
    done
    ip link set v0 mtu 4200 up
    ip link set v1 mtu 4200 up
    ip address add 10.78.0.1/24 dev v0
    ip address add 10.78.0.2/24 dev v1
    lab_rxe rxe0 v0 && lab_rxe rxe1 v1 || return
    export EVPL_TEST_RDMA_ADDRESS=10.78.0.1 EVPL_TEST_RDMA_PEER_ADDRESS=10.78.0.2
}
