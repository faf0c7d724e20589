# Run in the guest by suite.py: the tests of /run/lab/list, each a line of device set-up, seconds, name and command, parted
# by tabs. Leaves NAME.log, NAME.code and, of GoogleTest, NAME.xml among the results.
. tests/lab/devices.sh

ready() { [[ $1 == "$LAB_DEVICES" ]] && lab_devices_intact || lab_devices "$1"; }

one() {
    local devices=$1 seconds=$2 name=$3 command=$4 log=$LAB_RESULTS/$3.log began=$SECONDS code=0
    if ! ready "$devices" >"$log" 2>&1; then
        LAB_DEVICES=broken code=126
    else
        GTEST_OUTPUT=xml:$LAB_RESULTS/$name.xml setsid timeout --kill-after=5 "$seconds" bash -c "$command" >"$log" 2>&1 &
        wait "$!" || code=$?
        pkill -KILL --session "$!"  # what it left running is not there for the next
    fi
    printf '%-40s %-6s %4d s  ' "$name" "$devices" $((SECONDS - began))
    case $code in
        0) echo passed ;;
        77) echo skipped ;;
        *) echo "FAILED ($code)" && tail -c 20000 "$log" ;;
    esac
    echo "$code" >"$LAB_RESULTS/$name.code"
}

while IFS=$'\t' read -r -u 3 devices seconds name command; do
    one "$devices" "$seconds" "$name" "$command"
done 3</run/lab/list
