#!/bin/bash
# First process of the guest once the host's files are in place: runs /run/lab/command, leaves its exit status in
# /run/lab/status and switches the machine off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
ln -sfn /proc/self/fd /dev/fd
ln -sfn fd/0 /dev/stdin
ln -sfn fd/1 /dev/stdout
ln -sfn fd/2 /dev/stderr
hostname lab
ip link set lo up
ulimit -l unlimited
ulimit -n 65536
ulimit -c 0
sysctl -qw kernel.panic_on_oops=1  # a kernel that has gone wrong ends at once and visibly

# Named by what the host offers, so that further ports do no harm.
for port in /sys/class/virtio-ports/*; do
    [[ $(cat "$port/name") != lab.output ]] || output=/dev/${port##*/}
done

# A pipe before the port: only one process may have that open, but a command may open its own /dev/stdout.
mkfifo /run/output
cat </run/output >"$output" &
writer=$!
(
    exec >/run/output 2>&1 </dev/null
    . /run/lab/settings
    cd "$LAB_ROOT" && . tests/lab/devices.sh && lab_devices "$LAB_DEVICES" || exit 126
    : >/run/lab/begun
    exec bash /run/lab/command
)
status=$?

# What the command left running must not hold its output open. Threads of the kernel have no command line.
for process in /proc/[0-9]*; do
    id=${process#/proc/} line=
    read -r -d '' line 2>/dev/null <"$process/cmdline"
    [[ -z $line || $id -eq 1 || $id -eq $writer ]] || kill -9 "$id" 2>/dev/null
done
wait "$writer"
echo "$status" >/run/lab/status
sync
echo o >/proc/sysrq-trigger
sleep 60
