package cpu

import (
	"runtime"
	"testing"

	"github.com/klauspost/cpuid/v2"
)

func TestHas(t *testing.T) {
	if !Has() {
		t.Error("no feature wanted, and it is missing")
	}
	if amd := runtime.GOARCH == "amd64"; Has(cpuid.SSE2) != amd {
		t.Errorf("SSE2: %v on %s", !amd, runtime.GOARCH)
	}
}
