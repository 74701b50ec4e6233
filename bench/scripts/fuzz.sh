#!/usr/bin/env bash
# Fuzzes every fuzz target of the tree until each has had $1 CPU-seconds (default 600) of clean slices in all, a fifth of
# them at least on the package as it is now, and appends commit, the package's git tree, target, CPU seconds, executions and
# outcome to bench/results/fuzz.tsv. An interrupted campaign goes on where it stopped; failed slices stay listed, and what
# was clean before one does not count. A slice that Go's fuzzer ended with its own deadline for an error and without an
# input (golang/go#75804) is listed as deadline and counts for nothing. A slice is a minute, the last one as long as what
# is left takes on all cores. Minimising is bounded by runs: bounded by time it stalls the fuzzer. FUZZ=regexp narrows the
# targets.
set -uo pipefail
cd "$(dirname "$0")/../.."
goal=${1:-600}
only=${FUZZ:-.}
cores=$(nproc)
log=bench/results/fuzz.tsv
mkdir -p "$(dirname "$log")"
[ -f "$log" ] || printf 'commit\ttree\tpackage\ttarget\tcpu_s\texecs\toutcome\n' >"$log"
commit=$(git rev-parse --short=12 HEAD)
failed=0
TIMEFORMAT='%U %S'
while IFS=: read -r file target; do
  dir=$(dirname "$file")
  [[ "$dir/$target" =~ $only ]] || continue
  tree=$(git rev-parse --short=12 "HEAD:$dir")
  if ! git diff --quiet HEAD -- "$dir"; then echo "$dir differs from the commit: commit it first"; failed=1; continue; fi
  left() { # CPU-seconds that are still to be done
    awk -F'\t' -v t="$tree" -v p="$dir" -v n="$target" -v goal="$goal" '
      $3==p && $4==n && $7=="FAILED" {all=0; now=0}
      $3==p && $4==n && $7=="clean" {all+=$5; if ($2==t) now+=$5}
      END {l=goal-all; if (goal/5-now>l) l=goal/5-now; print (l>0 ? int(l+0.999) : 0)}' "$log"
  }
  [ "$(left)" -gt 0 ] || continue
  go test -run '^$' -fuzz "^$target\$" -fuzztime 1x "./$dir" >/dev/null 2>&1 # compiled here, so that it does not count
  while lack=$(left); [ "$lack" -gt 0 ]; do
    slice=$((lack / cores + 2))
    out=$(mktemp)
    cpu=$( { time go test -run '^$' -fuzz "^$target\$" -fuzztime "$((slice < 60 ? slice : 60))s" -fuzzminimizetime 20x "./$dir" >"$out" 2>&1; echo "$?" >"$out.rc"; } 2>&1 | awk '{print int($1+$2)}')
    execs=$(grep -oE 'execs: [0-9]+' "$out" | tail -1 | grep -oE '[0-9]+')
    outcome=clean
    if [ "$(cat "$out.rc")" != 0 ]; then
      tail -20 "$out"
      outcome=FAILED
      if [ "$(grep -A1 -- '^--- FAIL: ' "$out" | tail -n +2)" = '    context deadline exceeded' ]; then outcome=deadline; else failed=1; fi
    fi
    rm -f "$out" "$out.rc"
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$commit" "$tree" "$dir" "$target" "$cpu" "${execs:-0}" "$outcome" | tee -a "$log"
    [ "$outcome" != FAILED ] || break
  done
done < <(git grep -noE '^func Fuzz[A-Za-z0-9_]+' -- '*_test.go' | sed -E 's#:[0-9]+:func #:#' | sort)
exit $failed
