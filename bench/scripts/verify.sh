#!/usr/bin/env bash
# Runs $1 seeds of the simulator and as many Twins schedules (default 100,000 each), in slices, and appends commit, tree,
# test, first seed, count, CPU seconds, outcome and what the test said to bench/results/sim.tsv and twins.tsv. The tree is a
# hash over the sources of the machine and of the simulator: what clean slices did on the same one counts, so an interrupted
# campaign goes on where it stopped. A slice that fails stays listed, and its test goes no further on this tree.
set -uo pipefail
cd "$(dirname "$0")/../.."
goal=${1:-100000}
sources=(consensus/*.go consensus/simplex consensus/shred consensus/sim)
if ! git diff --quiet HEAD -- consensus; then echo "consensus differs from the commit: commit it first"; exit 1; fi
commit=$(git rev-parse --short=12 HEAD)
tree=$(git ls-tree -r HEAD "${sources[@]}" | git hash-object --stdin | cut -c1-12)
bin=$(mktemp) && out=$(mktemp)
trap 'rm -f "$bin" "$out" "$out.rc"' EXIT
go test -c -o "$bin" ./consensus/sim || exit 1
failed=0
TIMEFORMAT='%U %S'
# campaign LOG TEST COUNT SLICE FLAG...: FLAG takes the size of a slice
campaign() {
  local log=bench/results/$1 run=$2 want=$3 slice=$4 flags=("${@:5}")
  local done count cpu outcome
  mkdir -p bench/results
  [ -f "$log" ] || printf 'commit\ttree\ttest\tfirst\tcount\tcpu_s\toutcome\tsaid\n' >"$log"
  if awk -F'\t' -v t="$tree" -v n="$run" '$2==t && $3==n && $7!="clean" {f=1} END {exit !f}' "$log"; then
    echo "$run has failed on this tree: see $log"; failed=1; return
  fi
  while done=$(awk -F'\t' -v t="$tree" -v n="$run" '$2==t && $3==n {s+=$5} END {print int(s)}' "$log"); [ "$done" -lt "$want" ]; do
    count=$((want - done < slice ? want - done : slice))
    cpu=$( { time (cd consensus/sim && "$bin" -test.run "^$run\$" -test.timeout 0 -test.v -first $((done + 1)) "${flags[@]}" "$count" >"$out" 2>&1); echo $? >"$out.rc"; } 2>&1 | awk '{print int($1+$2)}')
    outcome=clean
    if [ "$(cat "$out.rc")" != 0 ]; then outcome=FAILED failed=1; tail -20 "$out"; fi
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$commit" "$tree" "$run" $((done + 1)) "$count" "$cpu" "$outcome" \
      "$(grep -oE 'seeds? [0-9]+.*' "$out" | head -1)" | tee -a "$log"
    [ $outcome = clean ] || break
  done
}
campaign sim.tsv TestVerifySeeds "$goal" 5000 -seeds
campaign sim.tsv TestVerifyLostDisks $((goal / 2)) 5000 -lost
campaign twins.tsv TestVerifyTwins "$goal" 5000 -schedules
campaign twins.tsv TestVerifyTwinsEnumerated $((2 * goal < 196608 ? 2 * goal : 196608)) 20000 -each -schedules
campaign twins.tsv TestVerifyAbove "$goal" 20000 -schedules
exit $failed
