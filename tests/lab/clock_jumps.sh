# clock_jumps.sh COMMAND...: runs the command while the time of day jumps by a year, forth and back, all the time. Only a machine of one's own
# may be treated so. Fails when it did not jump.
jumps=$(mktemp)
began=$(date +%s)
up_s() { cut -d. -f1 /proc/uptime; }
began_up=$(up_s)
jump() {
    local which
    while :; do
        for which in '+1 year' '-1 year'; do date -s "$which" >/dev/null && echo "$which"; done
    done >"$jumps"
}
jump &
jumper=$!
code=0
"$@" || code=$?
kill "$jumper"
wait "$jumper" 2>/dev/null
date -s "@$((began + $(up_s) - began_up))" >/dev/null
count=$(wc -l <"$jumps")
echo "the time of day has jumped $count times"
[[ $count -ge 2 ]] || exit 1  # forth and back
exit "$code"
