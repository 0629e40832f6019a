#!/usr/bin/env bash
# rust/fuzz/run.sh [TARGET...]: every target, or those named, for FUZZ_S seconds of CPU each. What is found goes to
# target/fuzz/found.
# SANITIZER=address also watches the memory of dependencies; it needs a nightly toolchain.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${FUZZ_S:-60}
built=target/fuzz
triple=$(rustc -vV | sed -n 's/^host: //p')
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
  -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
toolchain=
if [ -n "${SANITIZER:-}" ]; then
  rustup run nightly rustc --version >/dev/null 2>&1 || {
    echo "SANITIZER=$SANITIZER needs a nightly toolchain: rustup toolchain install nightly (or leave SANITIZER out)" >&2
    exit 1
  }
  toolchain=+nightly
  flags="$flags -Zsanitizer=$SANITIZER"
  built=target/fuzz-$SANITIZER
fi
command -v c++ >/dev/null || { echo "libFuzzer is C++: install a C++ compiler (c++ is not on the PATH)" >&2; exit 1; }

echo "== fuzz targets (instrumented)"
RUSTFLAGS=$flags cargo $toolchain build --quiet --locked --release --manifest-path rust/fuzz/Cargo.toml \
  --target "$triple" --target-dir "$built"
fuzz=$built/$triple/release/skylb-fuzz

[ $# -gt 0 ] || set -- $(ls rust/fuzz/corpus)
# Runs one target until its CPU time is used up. libFuzzer counts the time of the clock, beside other work too: so it runs
# in rounds, only what stands for a minute is a hang, and what grows faster than its input is found below, by CPU time.
hunt() {
  local log=target/fuzz/$1.log cpu=0 runs=0 left=$seconds round more
  : >"$log"
  while [ "$left" -gt 0 ] && ! grep -aq 'Test unit written to' "$log"; do
    # Beside the corpus stand the inputs that earlier runs have found worth keeping.
    round=$({ time FUZZ_TARGET=$1 FUZZ_SEEDS=target/fuzz/seeds/$1 "$fuzz" "target/fuzz/inputs/$1" \
      "target/fuzz/seeds/$1" "rust/fuzz/corpus/$1" -max_len=6000 -timeout=60 -report_slow_units=60 -rss_limit_mb=2048 \
      -max_total_time="$left" -artifact_prefix="target/fuzz/found/$1/" -print_final_stats=1 >"$log" 2>&1 || true; } 2>&1)
    more=$(sed -n 's/^stat::number_of_executed_units: //p' "$log")
    [ -n "$more" ] || break # it did not start, or died: the log says why
    runs=$((runs + more))
    cpu=$(echo "$cpu $round" | awk '{ print $1 + $2 + $3 }')
    left=$(awk -v cpu="$cpu" -v all="$seconds" 'BEGIN { print int(all - cpu + 0.999) }')
  done
  printf '%-12s %12s runs %8s s CPU' "$1" "$runs" "$cpu"
  if [ "$left" -le 0 ] && ! grep -aq 'Test unit written to' "$log"; then
    printf '\n'
    return
  fi
  printf '  FAILED: %s\n' "$(grep -a 'Test unit written to' "$log" | sed 's/.*written to //' | tail -1 | grep . || echo "see $log")"
  status=1
}

TIMEFORMAT='%U %S'
status=0
for name in "$@"; do
  mkdir -p "target/fuzz/found/$name" "target/fuzz/inputs/$name"
  hunt "$name"
done

echo "== time for twice and four times the input"
FUZZ_TARGET=scale "$fuzz" 2>/dev/null | grep -v '^WARNING' || status=1
exit "$status"
