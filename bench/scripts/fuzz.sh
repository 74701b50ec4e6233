#!/usr/bin/env bash
# Fuzzes every fuzz target of the tree for $1 of wall time each (default 10m, one worker, so wall is CPU), and
# appends commit, target, duration and outcome to bench/results/fuzz.tsv. Targets that already ran clean for that
# long at this commit are skipped, so an interrupted campaign resumes. FUZZ=regexp narrows it.
set -uo pipefail
cd "$(dirname "$0")/../.."
each=${1:-10m}
only=${FUZZ:-.}
log=bench/results/fuzz.tsv
commit=$(git rev-parse --short=12 HEAD)
[ -f "$log" ] || printf 'commit\tpackage\ttarget\tduration\texecs\toutcome\n' >"$log"
failed=0
while IFS=: read -r file target; do
  pkg=./$(dirname "$file")
  [[ "$pkg/$target" =~ $only ]] || continue
  grep -qF "$(printf '%s\t%s\t%s\t%s\t' "$commit" "$pkg" "$target" "$each")" "$log" && continue
  out=$(go test -run '^$' -fuzz "^$target\$" -fuzztime "$each" -parallel 1 "$pkg" 2>&1)
  if [ $? = 0 ]; then outcome=clean; else outcome=FAILED; failed=1; echo "$out" | tail -20; fi
  execs=$(grep -oE 'execs: [0-9]+' <<<"$out" | tail -1 | grep -oE '[0-9]+')
  printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$commit" "$pkg" "$target" "$each" "${execs:-0}" "$outcome" | tee -a "$log"
done < <(grep -rnoE --include='*_test.go' '^func (Fuzz[A-Za-z0-9_]+)' . | sed -E 's#^\./##; s#:[0-9]+:func #:#' | sort)
exit $failed
