#!/usr/bin/env bash
# Lets ledgers end badly on a file system that loses what was not synced, until they recovered $1 times (default 10,000),
# in slices, and appends commit, git tree of state, seed of the slice's first run, runs, recoveries, damaged disks, CPU
# seconds and outcome to bench/results/state-crash.tsv. What clean slices did on the same tree counts, so an interrupted
# campaign goes on where it stopped; failed ones stay listed with the seed of the run that failed. With $2 it runs that
# seed alone, 20 times since pebble's goroutines are not seeded, and lists nothing. The canaries come first.
set -uo pipefail
cd "$(dirname "$0")/../.."
goal=${1:-10000}
only=${2:-}
slice=500
log=bench/results/state-crash.tsv
[ -f "$log" ] || printf 'commit\ttree\tseed\truns\trecoveries\tdamaged\tcpu_s\toutcome\n' >"$log"
bin=$(mktemp) && out=$(mktemp)
trap 'rm -f "$bin" "$out" "$out.rc"' EXIT
go test -c -o "$bin" ./state/ledger || exit 1
cd state/ledger
if [ -n "$only" ]; then
  exec "$bin" -test.run '^TestPowerCampaign$' -test.v -test.count 20 -runs 1 -seed "$only"
fi
if ! git diff --quiet HEAD -- ..; then echo "state differs from the commit: commit it first"; exit 1; fi
commit=$(git rev-parse --short=12 HEAD)
tree=$(git rev-parse --short=12 HEAD:state)
log=../../$log
TIMEFORMAT='%U %S'
line() { printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$commit" "$tree" "$@" | tee -a "$log"; }
if ! awk -F'\t' -v t="$tree" '$2==t && $8 ~ /^canary/ {found=1} END {exit !found}' "$log"; then
  if ! "$bin" -test.run '^(TestSkippedSync|TestPlantedBugs)$' -test.v >"$out" 2>&1; then
    tail -20 "$out"
    line 1 0 0 0 0 "canary FAILED: a planted bug was not caught"
    exit 1
  fi
  awk '/^=== RUN .*\// {sub(/^=== RUN +/, ""); name=$0} /caught in run/ {match($0, /caught in run [0-9]+/); print name ": " substr($0, RSTART, RLENGTH)}' "$out" |
    while read -r caught; do line 1 0 0 0 0 "canary $caught"; done
fi
failed=0
while done=$(awk -F'\t' -v t="$tree" '$2==t && $8=="clean" {s+=$5} END {print int(s)}' "$log"); [ "$done" -lt "$goal" ]; do
  seed=$((RANDOM * 32768 + RANDOM))
  want=$((goal - done < slice ? goal - done : slice))
  cpu=$( { time ("$bin" -test.run '^TestPowerCampaign$' -test.v -test.timeout 0 -recoveries "$want" -seed "$seed" >"$out" 2>&1; echo $? >"$out.rc"); } 2>&1 | awk '{print int($1+$2)}')
  read -r recoveries damaged runs < <(sed -nE 's/.*: ([0-9]+) recoveries, ([0-9]+) damaged disks in ([0-9]+) runs:.*/\1 \2 \3/p' "$out")
  outcome=clean
  if [ "$(cat "$out.rc")" != 0 ]; then
    outcome="FAILED $(grep -oE 'seed [0-9]+: .*' "$out" | head -1 | cut -c1-200)" failed=1
    tail -20 "$out"
  fi
  line "$seed" "${runs:-0}" "${recoveries:-0}" "${damaged:-0}" "$cpu" "$outcome"
  [ "$outcome" = clean ] || break
done
exit $failed
