package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tutti/accel"
)

// TestPrintAccel prints a machine of which one feature is switched off and one kernel is wrong.
func TestPrintAccel(t *testing.T) {
	cost := func(ns ...float64) (c []accel.Cost) {
		for i, size := range []int{1, 8, 512}[:len(ns)] {
			c = append(c, accel.Cost{Size: size, Ns: ns[i], Guessed: ns[i] > 9999})
		}
		return c
	}
	verdicts := []accel.Verdict{
		{Operation: "sign", Backend: "lanes", Item: "signature", Reason: "not used: the setting switches AVX512IFMA off"},
		{Operation: "sign", Backend: "batch", Item: "signature", Passed: true, Chosen: true, Uses: []accel.Span{{From: 3}}, Reason: "the fastest there", Costs: cost(300, 99.94, 20), Cached: true},
		{Operation: "sign", Backend: "single", Item: "signature", Passed: true, Chosen: true, Uses: []accel.Span{{From: 1, To: 2}}, Reason: "the fastest there", Costs: cost(200, 190.6, 10000), Cached: true},
		{Operation: "hash", Backend: "wrong", Item: "pair", Failed: true, Reason: "disabled: known answer 3 is 0"},
	}
	cpu := accel.CPU{Name: "A CPU", Usable: 2, Features: []string{"AVX2", "SHA"}, Missing: []string{"GFNI"}, Off: []string{"AVX512IFMA"}, Setting: "-avx512ifma", Notes: []string{"read this"}}
	r := newAccelReport(cpu, verdicts, "/x", []string{"and this"})
	r.Words = []string{"-avx2", "sign=lanes"}
	var b bytes.Buffer
	(&app{stdout: &b}).printAccel(r)
	const want = `processor     A CPU, 2 hardware threads
features      AVX2 SHA
missing       GFNI
switched off  AVX512IFMA
setting       -avx512ifma
timings       from an earlier process, kept in /x
note          and this
note          read this

sign: single up to 2, then batch
  ns per signature  of 1  of 8   of 512  used for
  lanes                -     -        -  -           not used: the setting switches AVX512IFMA off
  batch              300  99.9     20.0  3 and more  the fastest there
  single             200   191  ~10,000  1-2         the fastest there

hash: nothing is left
  ns per pair  used for
  wrong        -         disabled: known answer 3 is 0

~ was not measured, for lack of time or of any prospect: the figure of the size before it.
can be left out  -avx2
can be chosen    sign=lanes
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if u := r.Operations[0].Uses; len(u) != 2 || u[0].Backend != "single" || u[1].Backend != "batch" || strings.Join(r.features(), "") != "-avx2" {
		t.Errorf("uses %+v, features %v", u, r.features())
	}
}
