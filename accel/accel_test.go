package accel

import (
	"encoding/json"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/cpuid/v2"

	"tutti/accel/internal/cpu"
)

func TestDetect(t *testing.T) {
	c := Detect()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", b)
	if c.Name == "" || c.Arch != runtime.GOARCH || c.Usable < 1 {
		t.Errorf("%+v", c)
	}
	if n := len(cpu.Known()); len(c.Features)+len(c.Missing)+len(c.Off) != n || !slices.IsSorted(c.Features) || !slices.IsSorted(c.Missing) {
		t.Errorf("features %v, missing %v, off %v of %d", c.Features, c.Missing, c.Off, n)
	}
}

func TestNotes(t *testing.T) {
	with := func(features ...cpuid.FeatureID) func(cpuid.FeatureID) bool {
		return func(f cpuid.FeatureID) bool { return slices.Contains(features, f) }
	}
	for _, tc := range []struct {
		name     string
		arch     string
		has      func(cpuid.FeatureID) bool
		adxBuild bool
		want     []string // a word of each note
	}{
		{"new x86, portable", "amd64", with(cpuid.AVX2, cpuid.SHA), false, nil},
		{"new x86, built for ADX", "amd64", with(cpuid.AVX2, cpuid.SHA), true, []string{"__BLST_PORTABLE__"}},
		{"x86 without SHA", "amd64", with(cpuid.AVX2), false, []string{"SHA-256"}},
		{"old x86", "amd64", with(), false, []string{"AVX2", "SHA-256"}},
		{"arm", "arm64", with(cpuid.SHA2), false, nil},
		{"arm without SHA", "arm64", with(), false, []string{"SHA-256"}},
	} {
		got := notes(tc.arch, tc.has, tc.adxBuild)
		if len(got) != len(tc.want) {
			t.Errorf("%s: %q, want %d notes", tc.name, got, len(tc.want))
			continue
		}
		for i := range got {
			if !strings.Contains(got[i], tc.want[i]) {
				t.Errorf("%s: %q, want one about %s", tc.name, got[i], tc.want[i])
			}
		}
	}
}

// TestSelfTest wants every backend of this build to pass on this machine.
func TestSelfTest(t *testing.T) {
	verdicts := SelfTest()
	for _, v := range verdicts {
		t.Logf("%+v", v)
		if v.Failed {
			t.Errorf("%s by %s: %s", v.Operation, v.Backend, v.Reason)
		}
	}
	err := Ready(verdicts)
	if err != nil {
		t.Error(err)
	}
}

func TestReady(t *testing.T) {
	bad := func(op, backend string) Verdict {
		return Verdict{Operation: op, Backend: backend, Reason: "disabled: wrong"}
	}
	good := Verdict{Operation: "hash", Backend: "b", Passed: true, Chosen: true}
	for _, tc := range []struct {
		name     string
		verdicts []Verdict
		want     string // in the error; empty for none
	}{
		{"nothing", nil, ""},
		{"one of two backends fails", []Verdict{bad("hash", "a"), good}, ""},
		{"all backends of one operation fail", []Verdict{good, bad("sign", "a"), bad("sign", "b")}, "sign (a: disabled: wrong)"},
		{"two operations fail", []Verdict{bad("sign", "a"), good, bad("verify", "a")}, "sign (a: disabled: wrong); verify"},
	} {
		if err := Ready(tc.verdicts); (err != nil) != (tc.want != "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.want)
		}
	}
}
