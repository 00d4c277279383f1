#!/bin/sh
# Compiles the pool and its stress test with ThreadSanitizer and runs it. Prints `ok`, or `skipped: why`.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cc=${CC:-cc}
printf 'int main(void) { return 0; }\n' > "$work/probe.c"
if ! $cc -fsanitize=thread "$work/probe.c" -o "$work/probe" -lpthread 2> "$work/log" || ! "$work/probe" 2>> "$work/log"; then
    echo "skipped: no ThreadSanitizer ($(head -n 1 "$work/log"))"
    exit 0
fi
$cc -std=c11 -g -O1 -fsanitize=thread -I"$here/include" -I"$here/c" \
    "$here/tests/tsan.c" "$here/c/pool.c" "$here/c/os.c" "$here/c/guard.c" -o "$work/stress" -lpthread -ldl
TSAN_OPTIONS="halt_on_error=1 exitcode=66" "$work/stress"
