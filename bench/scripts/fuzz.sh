#!/usr/bin/env bash
# Fuzzes every fuzz target of the tree for $1 of wall time each (default 10m) with one worker, so that wall is at least
# the CPU time, and appends commit, the package's git tree, target, duration, executions and outcome to
# bench/results/fuzz.tsv. Minimising is bounded by runs: bounded by time it stalls the fuzzer.
# A target that already ran clean for that long on the same package tree is skipped, so an interrupted campaign goes on
# where it stopped; failed runs stay listed. FUZZ=regexp narrows it.
set -uo pipefail
cd "$(dirname "$0")/../.."
each=${1:-10m}
only=${FUZZ:-.}
log=bench/results/fuzz.tsv
commit=$(git rev-parse --short=12 HEAD)
[ -f "$log" ] || printf 'commit\ttree\tpackage\ttarget\tduration\texecs\toutcome\n' >"$log"
failed=0
while IFS=: read -r file target; do
  dir=$(dirname "$file")
  [[ "$dir/$target" =~ $only ]] || continue
  tree=$(git rev-parse --short=12 "HEAD:$dir")
  grep -qP "\t$tree\t\Q$dir\E\t$target\t$each\t[0-9]+\tclean$" "$log" && continue
  out=$(go test -run '^$' -fuzz "^$target\$" -fuzztime "$each" -fuzzminimizetime 20x -parallel 1 "./$dir" 2>&1)
  if [ $? = 0 ]; then outcome=clean; else outcome=FAILED; failed=1; echo "$out" | tail -20; fi
  execs=$(grep -oE 'execs: [0-9]+' <<<"$out" | tail -1 | grep -oE '[0-9]+')
  printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$commit" "$tree" "$dir" "$target" "$each" "${execs:-0}" "$outcome" | tee -a "$log"
done < <(git grep -noE '^func Fuzz[A-Za-z0-9_]+' -- '*_test.go' | sed -E 's#:[0-9]+:func #:#' | sort)
exit $failed
