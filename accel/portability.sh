#!/usr/bin/env bash
# Runs accel's tests as other machines would, by qemu's user-mode emulation, from an x86-64 Linux machine:
#
#   1. arm64 without cgo;
#   2. an x86-64 CPU without ADX (an early Haswell), cgo build with blst made portable;
#   3. the same CPU, build without cgo;
#   4. one without AVX either (Nehalem): the self-tests must choose what works there;
#   5. the canary: blst's default build must die of SIGILL on 2's CPU. If it does not, 2 proves nothing.
#
# Usage: accel/portability.sh [package...]   (default ./accel/... without the benchmarks)
# Without qemu it says so and succeeds, but fails where CI is true. Debian: apt-get install qemu-user
set -euo pipefail
cd "$(dirname "$0")/.."

go=${GO:-go}
packages=("$@")
[ ${#packages[@]} -gt 0 ] || mapfile -t packages < <($go list ./accel/... | grep -v /internal/rows) # the rows only measure
portable="-O2 -D__BLST_PORTABLE__"
timeout=60m
# These start themselves again as another process, which an emulated one can't do.
itself='^(TestConfigure|TestOnce)$'

for tool in qemu-aarch64 qemu-x86_64; do
  if ! command -v "$tool" >/dev/null; then
    echo "SKIPPED: no $tool here, so nothing was shown about other machines (Debian: apt-get install qemu-user)"
    [ "${CI:-}" = true ] && exit 1
    exit 0
  fi
done
if [ "$($go env GOHOSTARCH)" != amd64 ]; then
  echo "SKIPPED: this script runs on x86-64 machines"
  [ "${CI:-}" = true ] && exit 1
  exit 0
fi

# quiet drops qemu's remarks on features of a CPU model that it does not emulate.
quiet() { grep -v "warning: TCG doesn't support requested feature" || true; }

echo "== arm64, no cgo"
CGO_ENABLED=0 GOARCH=arm64 $go test -short -timeout $timeout -skip "$itself" -exec qemu-aarch64 "${packages[@]}" 2>&1 | quiet

echo "== x86-64 without ADX, portable blst"
CGO_ENABLED=1 CGO_CFLAGS="$portable" $go test -short -timeout $timeout -skip "$itself" -exec "qemu-x86_64 -cpu Haswell,-adx" "${packages[@]}" 2>&1 | quiet

echo "== x86-64 without ADX, no cgo"
CGO_ENABLED=0 $go test -short -timeout $timeout -skip "$itself" -exec "qemu-x86_64 -cpu Haswell,-adx" "${packages[@]}" 2>&1 | quiet

echo "== x86-64 without AVX, portable blst and no cgo: self-tests"
CGO_ENABLED=1 CGO_CFLAGS="$portable" $go test -timeout $timeout -run 'SelfTest' -exec "qemu-x86_64 -cpu Nehalem" ./accel 2>&1 | quiet
CGO_ENABLED=0 $go test -timeout $timeout -run 'SelfTest' -exec "qemu-x86_64 -cpu Nehalem" ./accel 2>&1 | quiet

echo "== canary: blst's default build without ADX"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
CGO_ENABLED=1 CGO_CFLAGS="-O2" $go test -c -o "$dir/bls.test" ./accel/bls
if qemu-x86_64 -cpu Haswell,-adx "$dir/bls.test" -test.run SelfTest >"$dir/out" 2>&1; then
  echo "FAIL: the default build runs on a CPU without ADX, so this emulation does not check for it"
  exit 1
fi
grep -q "Caught SIGILL in blst_cgo_init" "$dir/out" || { cat "$dir/out"; exit 1; }
echo "ok  	dies as expected: $(grep SIGILL "$dir/out")"
