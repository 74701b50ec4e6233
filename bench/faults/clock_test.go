package faults

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A namespace can't shift the wall clock, so the programs whose clock is to jump are built with another package time
// (go build -overlay): what Now says of the wall clock is off by what the file TUTTI_CLOCK holds, which is mapped, so that
// a jump takes effect at once. The monotonic clock stays as it is, as it does when an operator or a time service sets the
// clock. The tree and the product know nothing of it.

const clockNow = `	sec, nsec, mono := runtimeNow()
	if mono == 0 {
		return Time{uint64(nsec), sec + unixToInternal, Local}
	}
	mono -= startNano
	sec += unixToInternal - minWall
`

const clockShifted = `	sec, nsec, mono := runtimeNow()
	if shift := ClockShift.Load(); shift != nil {
		ns := int64(nsec) + atomic.LoadInt64(shift)
		sec += ns / 1e9
		if nsec = int32(ns % 1e9); nsec < 0 {
			sec, nsec = sec-1, nsec+1e9
		}
	}
	if mono == 0 {
		return Time{uint64(nsec), sec + unixToInternal, Local}
	}
	mono -= startNano
	sec += unixToInternal - minWall
`

const clockShift = `package time

import "sync/atomic"

// ClockShift is what Now adds to the wall clock, in nanoseconds.
var ClockShift atomic.Pointer[int64]
`

const clockMapped = `package main

import (
	"os"
	"syscall"
	"time"
	"unsafe"
)

func init() {
	f, err := os.Open(os.Getenv("TUTTI_CLOCK"))
	if err != nil {
		panic(err)
	}
	defer f.Close()
	b, err := syscall.Mmap(int(f.Fd()), 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	time.ClockShift.Store((*int64)(unsafe.Pointer(&b[0])))
}
`

// clockOverlay writes an overlay for go build by which the program in a folder has a clock that can be set.
func clockOverlay(t *testing.T, program string) (path string) {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatalf("go env: %v", err)
	}
	goTime := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	source, err := os.ReadFile(filepath.Join(goTime, "time.go"))
	if err != nil {
		t.Fatal(err)
	}
	edited := string(source)
	for _, e := range [][2]string{{clockNow, clockShifted}, {"import (\n", "import (\n\t\"sync/atomic\"\n"}} {
		if n := strings.Count(edited, e[0]); n != 1 {
			t.Fatalf("%q is %d times in this Go's time.go, not once: say again how to shift its clock", e[0], n)
		}
		edited = strings.Replace(edited, e[0], e[1], 1)
	}
	if program, err = filepath.Abs(program); err != nil {
		t.Fatal(err)
	}
	replace := map[string]string{}
	for path, text := range map[string]string{
		filepath.Join(goTime, "time.go"):          edited,
		filepath.Join(goTime, "shift.go"):         clockShift,
		filepath.Join(program, "clock_mapped.go"): clockMapped,
	} {
		at := filepath.Join(dir, fmt.Sprintf("%d.go", len(replace)))
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[path] = at
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestClockOverlay: this Go's package time takes the shift. (Programs with it are built for campaigns, since that builds
// the whole standard library anew.)
func TestClockOverlay(t *testing.T) {
	if out, err := exec.Command("go", "build", "-overlay", clockOverlay(t, t.TempDir()), "time").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
