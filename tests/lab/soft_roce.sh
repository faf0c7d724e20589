#!/bin/bash
# soft_roce.sh rc|ud|multicast|loss|link_down|removal: in the guest, that its devices do what tests rely on.
set -uo pipefail

server=${EVPL_TEST_RDMA_PEER_ADDRESS:-$EVPL_TEST_RDMA_ADDRESS}
client=$EVPL_TEST_RDMA_ADDRESS
# How often a device asked or answered again.
repeated() {
    local sum=0 value
    for value in $(cat /sys/class/infiniband/rxe*/ports/1/hw_counters/{completer_retry_err,rcvd_seq_err,duplicate_request,out_of_seq_request}); do
        sum=$((sum + value))
    done
    echo "$sum"
}
fail() { echo "soft_roce: $*" >&2; exit 1; }

# together SERVER -- CLIENT: both end well, within 25 s each.
together() {
    local serve=() id
    while [[ $1 != -- ]]; do serve+=("$1") && shift; done
    shift
    timeout 25 "${serve[@]}" &
    id=$!
    until_true shows LISTEN || fail "the server does not listen: ${serve[*]}"
    timeout 25 "$@" || fail "the client ended with $?: $*"
    wait "$id" || fail "the server ended with $?: ${serve[*]}"
}
until_true() {
    for _ in {1..200}; do
        "$@" && return 0
        sleep 0.05
    done
    return 1
}
shows() { [[ $(rdma resource show cm_id) == *"$1"* ]]; }
port_is() { [[ $(cat /sys/class/infiniband/rxe1/ports/1/state) == *"$1" ]]; }

# A datagram of a group may be lost, and so may what the group is asked for: the receiver ends when it has got some.
multicast() {
    timeout 20 stdbuf -oL mckey -b "$server" -m 239.1.2.3 -C 5 >/tmp/receiver &
    local id=$!
    until_true grep -q 'joined dgid' /tmp/receiver || fail "the receiver does not join"
    for _ in {1..4}; do
        timeout 20 mckey -b "$client" -m 239.1.2.3 -C 5 -s || fail "the sender ended with $?"
        kill -0 "$id" 2>/dev/null || break
    done
    wait "$id"
}

ping() { together rping -s -a "$server" -C "$1" -- rping -c -a "$server" -I "$client" -C "$1"; }

case $1 in
    rc) ping 20 ;;
    ud) together udaddy -b "$server" -- udaddy -b "$client" -s "$server" ;;
    multicast) multicast || multicast || fail "the receiver got nothing, twice" ;;
    loss)
        before=$(repeated)
        tc qdisc add dev v0 root netem loss 10% delay 1ms || fail "no netem"
        timeout 50 rping -s -a "$server" -C 30 &  # how its end is told may be lost too
        until_true shows LISTEN || fail "the server does not listen"
        timeout 50 rping -c -a "$server" -I "$client" -C 30 || fail "the client ended with $?"
        tc qdisc del dev v0 root
        [[ $(repeated) -gt $before ]] || fail "nothing was lost"
        ;;
    link_down)
        ip link set v1 down
        until_true port_is DOWN || fail "the port is up although its link is down"
        ! timeout 5 rping -c -a "$server" -I "$client" -C 1 || fail "connected over a link that is down"
        ip link set v1 up
        until_true port_is ACTIVE || fail "the port does not come back"
        ip neigh flush all  # who was not found while it was down
        (ping 5) || { sleep 26; ping 5; }  # questions of the first moment may be lost; then the server has to end first
        ;;
    removal)
        timeout 25 rping -s -a "$server" -C 1000000 >/tmp/server 2>&1 &
        until_true shows LISTEN || fail "the server does not listen"
        timeout 25 rping -c -a "$server" -I "$client" -C 1000000 >/tmp/client 2>&1 &
        id=$!
        until_true shows CONNECT || fail "no connection"
        rdma link del rxe0
        wait "$id" && fail "the client ended well although its device went away"
        [[ ! -e /sys/class/infiniband/rxe0 ]] || fail "the device is still there"
        ;;
esac
