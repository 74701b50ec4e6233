package proof_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"testing"

	"tutti/appliance/proof"
	"tutti/appliance/proof/prooftest"
	"tutti/consensus"
	"tutti/state/ledger"
	"tutti/state/tx"
)

func copyAccounts(tb testing.TB, a *proof.Accounts) *proof.Accounts {
	tb.Helper()
	b, err := json.Marshal(a)
	if err != nil {
		tb.Fatal(err)
	}
	out, err := proof.DecodeAccounts(b)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func TestAccounts(t *testing.T) {
	n, all := several(t)
	got, err := copyAccounts(t, all).Verify(n.Trust)
	if err != nil || len(got) != 3 {
		t.Fatal(got, err)
	}
	for i, want := range []uint64{100, 200, 0} {
		s := got[i]
		if s.ID != all.IDs[i] || s.Exists != (want > 0) || s.Balance != want || s.StateHeight != 0 || s.Where.Height != 1 || s.Chain != proof.Digest(n.Genesis) {
			t.Errorf("account %d: %+v", i, s)
		}
	}
	elsewhere, err := proof.NewTrust(n.Genesis, n.Committees, func(id tx.ID) consensus.ShardID { return consensus.ShardID(id.Partition()) })
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		trust *proof.Trust
		spoil func(*proof.Accounts)
		want  error
	}{
		"another account":    {n.Trust, func(a *proof.Accounts) { a.IDs[1]++ }, proof.ErrAccount},
		"one account less":   {n.Trust, func(a *proof.Accounts) { a.IDs = a.IDs[:2] }, proof.ErrAccount},
		"twice":              {n.Trust, func(a *proof.Accounts) { a.IDs[1] = a.IDs[0] }, proof.ErrMalformed},
		"another root":       {n.Trust, func(a *proof.Accounts) { a.Final.Headers[0].State[0]++ }, proof.ErrCertificate},
		"another network":    {prooftest.New(t, "other", 1).Trust, nil, proof.ErrGenesis},
		"one kept elsewhere": {elsewhere, nil, proof.ErrShard},
	} {
		t.Run(name, func(t *testing.T) {
			a := copyAccounts(t, all)
			if tc.spoil != nil {
				tc.spoil(a)
			}
			if s, err := a.Verify(tc.trust); !errors.Is(err, tc.want) || s != nil {
				t.Errorf("got %+v, %v; want %v", s, err, tc.want)
			}
		})
	}
}

func TestAccountsFile(t *testing.T) {
	n, all := several(t)
	good, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "accounts.json", append(good, '\n'))
	last := `"` + all.IDs[2].String() + `"`
	for name, change := range map[string][2]string{
		"format":      {"tutti-accounts/1", "tutti-account/1"},
		"place lies":  {`"height": 1`, `"height": 2`},
		"state lies":  {`"state_height": 0`, `"state_height": 1`},
		"unknown":     {`"path"`, `"note": "", "path"`},
		"path cut":    {`"path": "00`, `"path": "`},
		"no place":    {last, `"` + (all.IDs[2] + ledger.AccountsPerPartition).String() + `"`},
		"an id twice": {last, last + ", " + last},
	} {
		b := bytes.Replace(good, []byte(change[0]), []byte(change[1]), 1)
		if _, err := proof.DecodeAccounts(b); !errors.Is(err, proof.ErrMalformed) || bytes.Equal(b, good) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b, err := os.ReadFile("testdata/accounts.json")
	if err != nil {
		t.Fatal(err)
	}
	a, err := proof.DecodeAccounts(b)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := a.Verify(n.Trust); err != nil || s[1].Balance != 200 {
		t.Errorf("the golden file proves %+v, %v", s, err)
	}
}

func FuzzDecodeAccounts(f *testing.F) {
	n, all := several(f)
	b, err := json.Marshal(all)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := proof.DecodeAccounts(b)
		if err != nil {
			return
		}
		again := copyAccounts(t, a)
		if !slices.Equal(again.IDs, a.IDs) || !bytes.Equal(again.Path.Append(nil), a.Path.Append(nil)) {
			t.Errorf("%s became %s", a.IDs, again.IDs)
		}
		_, _ = a.Verify(n.Trust) // must not panic
	})
}
