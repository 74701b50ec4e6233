#!/usr/bin/env bash
# Gives $1 random and structured cases (default 10,000,000) to every backend of accel and to references that are none of
# them, in slices, and appends commit, the package's git tree, test, seed, cases, CPU seconds and outcome to
# bench/results/agree.tsv. What clean slices did on the same tree counts, so an interrupted campaign goes on where it
# stopped; failed slices stay listed. The shares: eight in ten for Ed25519 verdicts, one in ten each for the decoding of
# BLS points by both engines and for the lanes that add up keys.
set -uo pipefail
cd "$(dirname "$0")/../.."
goal=${1:-10000000}
log=bench/results/agree.tsv
mkdir -p "$(dirname "$log")"
[ -f "$log" ] || printf 'commit\ttree\ttest\tseed\tcases\tcpu_s\toutcome\n' >"$log"
if ! git diff --quiet HEAD -- accel; then echo "accel differs from the commit: commit it first"; exit 1; fi
commit=$(git rev-parse --short=12 HEAD)
failed=0
TIMEFORMAT='%U %S'
# campaign NAME PACKAGE TEST SHARE SLICE
campaign() {
  local name=$1 package=$2 run=$3 want=$(($4 * goal / 10)) slice=$5
  local bin out cpu seed outcome done tree
  tree=$(git rev-parse --short=12 "HEAD:${package#./}")
  bin=$(mktemp) && out=$(mktemp)
  go test -c -o "$bin" "$package" || return 1
  while done=$(awk -F'\t' -v t="$tree" -v n="$name" '$2==t && $3==n && $7=="clean" {s+=$5} END {print int(s)}' "$log"); [ "$done" -lt "$want" ]; do
    seed=$((RANDOM * 32768 + RANDOM))
    cpu=$( { time (cd "$package" && "$bin" -test.run "^$run\$" -test.timeout 0 -cases "$slice" -seed "$seed" >"$out" 2>&1); echo $? >"$out.rc"; } 2>&1 | awk '{print int($1+$2)}')
    outcome=clean
    if [ "$(cat "$out.rc")" != 0 ]; then outcome=FAILED failed=1; tail -20 "$out"; fi
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$commit" "$tree" "$name" "$seed" "$slice" "$cpu" "$outcome" | tee -a "$log"
    [ $outcome = clean ] || break
  done
  rm -f "$bin" "$out" "$out.rc"
}
campaign ed25519 ./accel/ed25519 TestAgree 8 500000
campaign bls-decode ./accel/bls/internal/curve TestDecodeMany 1 500000
campaign bls-lanes ./accel/bls/internal/keysum TestLanes 1 500000
exit $failed
