package localnet

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestProgress shows nothing of quick work, lines now and then elsewhere, and draws over on a terminal.
func TestProgress(t *testing.T) {
	run := func(terminal bool, seconds int) string {
		var out strings.Builder
		at := time.Unix(1000, 0)
		p := &progress{out: &out, terminal: terminal, what: "making 10,000,000 accounts", total: 60, begun: at, now: func() time.Time { return at }}
		for s := range seconds {
			at = time.Unix(1000+int64(s), 0)
			p.at(uint64(s))
		}
		p.end(nil)
		return out.String()
	}
	if got := run(false, 2); got != "" {
		t.Errorf("quick work shows %q", got)
	}
	if got, want := run(false, 10), "making 10,000,000 accounts: 3 %\nmaking 10,000,000 accounts: 11 %\nmaking 10,000,000 accounts: done after 9 s\n"; got != want {
		t.Errorf("lines %q, want %q", got, want)
	}
	if got := run(true, 10); strings.Count(got, "\r\x1b[K") != 9 || strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, "done after 9 s\n") {
		t.Errorf("terminal %q", got)
	}
	var out strings.Builder
	p := &progress{out: &out, what: "work", last: time.Unix(1, 0), now: func() time.Time { return time.Unix(3, 0) }, begun: time.Unix(0, 0)}
	p.end(errors.New("no"))
	if out.String() != "work: failed after 3 s\n" {
		t.Errorf("%q", out.String())
	}
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 12_345_678: "12,345,678"} {
		if got := number(n); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
}
