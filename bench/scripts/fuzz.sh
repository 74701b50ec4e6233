#!/usr/bin/env bash
# Fuzzes every fuzz target of the tree until each has had $1 CPU-seconds (default 600) of clean slices in all, a fifth of
# them at least on the package as it is now, and appends commit, the package's git tree, target, CPU seconds, executions and
# outcome to bench/results/fuzz.tsv. An interrupted campaign goes on where it stopped; failed slices stay listed, and what
# was clean before one does not count. Minimising is bounded by runs: bounded by time it stalls the fuzzer. FUZZ=regexp
# narrows the targets.
set -uo pipefail
cd "$(dirname "$0")/../.."
goal=${1:-600}
only=${FUZZ:-.}
slice=60s
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
  lacks() { # true while there is something left to do
    awk -F'\t' -v t="$tree" -v p="$dir" -v n="$target" -v goal="$goal" '
      $3==p && $4==n && $7!="clean" {all=0; now=0}
      $3==p && $4==n && $7=="clean" {all+=$5; if ($2==t) now+=$5}
      END {exit !(all<goal || now<goal/5)}' "$log"
  }
  lacks || continue
  go test -run '^$' -fuzz "^$target\$" -fuzztime 1x "./$dir" >/dev/null 2>&1 # compiled here, so that it does not count
  while lacks; do
    out=$(mktemp)
    cpu=$( { time go test -run '^$' -fuzz "^$target\$" -fuzztime "$slice" -fuzzminimizetime 20x "./$dir" >"$out" 2>&1; echo "$?" >"$out.rc"; } 2>&1 | awk '{print int($1+$2)}')
    execs=$(grep -oE 'execs: [0-9]+' "$out" | tail -1 | grep -oE '[0-9]+')
    outcome=clean
    if [ "$(cat "$out.rc")" != 0 ]; then outcome=FAILED; failed=1; tail -20 "$out"; fi
    rm -f "$out" "$out.rc"
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$commit" "$tree" "$dir" "$target" "$cpu" "${execs:-0}" "$outcome" | tee -a "$log"
    [ "$outcome" = clean ] || break
  done
done < <(git grep -noE '^func Fuzz[A-Za-z0-9_]+' -- '*_test.go' | sed -E 's#:[0-9]+:func #:#' | sort)
exit $failed
