#!/bin/sh
# Compiles the library kernels and their fuzzer with the address and undefined-behaviour sanitizers and runs it.
# Prints `ok`, or `skipped: why`. Arguments go to the fuzzer.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cc=${CC:-cc}
flags="-fsanitize=address,undefined -fno-sanitize-recover=all"
printf 'int main(void) { return 0; }\n' > "$work/probe.c"
if ! $cc $flags "$work/probe.c" -o "$work/probe" 2> "$work/log" || ! "$work/probe" 2>> "$work/log"; then
    echo "skipped: no address sanitizer ($(head -n 1 "$work/log"))"
    exit 0
fi
$cc -std=c11 -g -O1 $flags -ffp-contract=off -I"$here/../runtime/include" -I"$here/../runtime/c" -I"$here" \
    "$here"/tests/fuzz.c "$here"/*.c -o "$work/fuzz" -lm
"$work/fuzz" "$@"
