package main

import (
	"bytes"
	"math"
	"testing"

	"tutti/appliance/api"
)

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		n    int64
		want string
	}{{0, "0"}, {7, "7"}, {999, "999"}, {1000, "1,000"}, {-1234567, "-1,234,567"}, {math.MinInt64, "-9,223,372,036,854,775,808"}} {
		if got := number(c.n); got != c.want {
			t.Errorf("number(%d) = %s", c.n, got)
		}
	}
	if got := number(uint64(math.MaxUint64)); got != "18,446,744,073,709,551,615" {
		t.Error(got)
	}
	for text, want := range map[string]uint64{
		"1": 1, "1500": 1500, "1,500": 1500, "12_345_678": 12345678, "18,446,744,073,709,551,615": math.MaxUint64,
	} {
		if got, err := parseAmount(text); err != nil || got != want {
			t.Errorf("parseAmount(%s) = %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "+1", "1.5", "1,5", "1,5000", "12,34,567", ",100", "100,", "1,,000", "0x10", "1e3", "18446744073709551616", "1 000"} {
		if got, err := parseAmount(text); err == nil {
			t.Errorf("parseAmount(%q) = %d", text, got)
		}
	}
	for n, want := range map[uint64]string{0: "0 KiB", 5 << 20: "5,120 KiB", 64 << 20: "64 MiB", 23 << 30: "23 GiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("bytesText(%d) = %s", n, got)
		}
	}
}

// TestSyncStatus: what a person reads while a node copies its state.
func TestSyncStatus(t *testing.T) {
	left := 17.2
	st := api.Status{Chain: "mainnet", Role: "validator", Shards: 2, Syncing: true, Sync: &api.SyncStatus{
		Step: "accounts", Share: 0.4371, LeftS: &left, Bytes: 280 << 20, TotalBytes: 640 << 20, BytesPerSecond: 20.4 * (1 << 20),
		Accounts: 4_371_000, TotalAccounts: 10_000_000, Height: 900, Tip: 1234,
		Peers: []api.SyncPeer{
			{Name: "s0v1 (00112233)", Answers: 70, Bytes: 280 << 20},
			{Name: "s0v2 (44556677)", Trouble: "chunk 3 of partition 9: it is chunk 4 of partition 9", Dropped: true},
		},
	}}
	var out bytes.Buffer
	a := app{stdout: &out}
	a.saySync(&st)
	want := `node      00000000… validator of shard 0 of 2, syncing: 43 %, 18 s left
network   mainnet, genesis 00000000…
now       accounts
accounts  4,371,000 of 10,000,000
data      280 of 640 MiB, 20 MiB/s
blocks    900 of 1,234

source           answers  MiB
s0v1 (00112233)       70  280
s0v2 (44556677)        0    0  dropped, it sent something wrong: chunk 3 of partition 9: it is chunk 4 of partition 9
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
	st.Sync = &api.SyncStatus{Step: "finding peers"}
	if got := st.Sync.String(); got != "finding peers" {
		t.Errorf("before anything is known: %q", got)
	}
}

func TestTable(t *testing.T) {
	tab := newTable(1)
	tab.row("shard", "height", "state")
	tab.row("0", number(1234), "\x1b[32mok\x1b[0m")
	tab.row("12", "7", "fähig")
	var out bytes.Buffer
	tab.write(&out)
	want := "shard  height  state\n0       1,234  \x1b[32mok\x1b[0m\n12          7  fähig\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
	a := app{stdout: &out}
	if a.colour(bad, "x") != "x" {
		t.Error("colour without a terminal")
	}
}
