package proof_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"tutti/appliance/proof"
	"tutti/appliance/proof/prooftest"
	"tutti/consensus"
	"tutti/state/ledger"
	"tutti/state/tx"
)

// noBlocks stands for what a ledger needs to execute blocks; this one executes none.
type noBlocks struct{}

func (noBlocks) Check(context.Context, []tx.Signed, [][32]byte, []uint16, []bool) error {
	return errors.New("no blocks")
}

func (noBlocks) Verify(uint16, ledger.Known, []byte) (ledger.ForeignHeader, error) {
	return ledger.ForeignHeader{}, errors.New("no blocks")
}

// accounts is a network whose first header carries the root of a ledger with two accounts, and proofs of one of them
// and of an account that does not exist.
func accounts(tb testing.TB) (n *prooftest.Network, rich, nobody *proof.Account) {
	tb.Helper()
	proveIn(tb, func(of *prooftest.Network, l *ledger.Ledger, final proof.Final, ids [3]tx.ID) {
		prove := func(id tx.ID) *proof.Account {
			path, err := l.AccountProof(id)
			if err != nil {
				tb.Fatal(err)
			}
			return &proof.Account{ID: id, Final: final, Path: path}
		}
		n, rich, nobody = of, prove(ids[1]), prove(ids[2])
	})
	return n, rich, nobody
}

// several is the same network, and one proof of all three.
func several(tb testing.TB) (n *prooftest.Network, all *proof.Accounts) {
	tb.Helper()
	proveIn(tb, func(of *prooftest.Network, l *ledger.Ledger, final proof.Final, ids [3]tx.ID) {
		path, err := l.AccountsProof(ids[:])
		if err != nil {
			tb.Fatal(err)
		}
		n, all = of, &proof.Accounts{IDs: ids[:], Final: final, Path: path}
	})
	return n, all
}

// proveIn calls use with such a network, its ledger and final header, two accounts and one that does not exist.
func proveIn(tb testing.TB, use func(n *prooftest.Network, l *ledger.Ledger, final proof.Final, ids [3]tx.ID)) {
	tb.Helper()
	n := prooftest.New(tb, "account", 1)
	table, err := ledger.GenesisTable(1)
	if err != nil {
		tb.Fatal(err)
	}
	p := ledger.Params{
		GenesisHash: tx.Hash(n.Genesis), GenesisBlock: tx.Hash{9}, Shards: 1, Table: table, Fees: []uint64{1}, AccountLimit: 10,
		ReceiptWindow: 10, Supplies: []uint64{300},
	}
	ids := [3]tx.ID{p.GenesisID(0), p.GenesisID(1), p.GenesisID(2)}
	genesis := func(yield func(ledger.GenesisAccount) bool) {
		_ = yield(ledger.GenesisAccount{ID: ids[0], Key: [32]byte{1}, Balance: 100}) &&
			yield(ledger.GenesisAccount{ID: ids[1], Key: [32]byte{2}, Balance: 200})
	}
	l, err := ledger.Open(ledger.Options{
		FS: vfs.NewMem(), Dir: "ledger", Create: true, Params: p, Verifier: noBlocks{}, Headers: noBlocks{},
		Possession: func([48]byte, []byte, [96]byte) bool { return false },
		Genesis:    genesis,
	})
	if err != nil {
		tb.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			tb.Error(err)
		}
	}()
	root, err := ledger.GenesisRoot(p, genesis)
	if err != nil {
		tb.Fatal(err)
	}
	n.State = consensus.Hash(root)
	n.Add(0, nil, nil)
	use(n, l, n.Finalise(0)[0].Final, ids)
}

func copyAccount(tb testing.TB, a *proof.Account) *proof.Account {
	tb.Helper()
	b, err := json.Marshal(a)
	if err != nil {
		tb.Fatal(err)
	}
	out, err := proof.DecodeAccount(b)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func TestAccount(t *testing.T) {
	n, rich, nobody := accounts(t)
	s, err := copyAccount(t, rich).Verify(n.Trust)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Exists || s.Balance != 200 || s.Nonce != 0 || s.Key != (proof.Digest{2}) || s.StateHeight != 0 || s.Where.Height != 1 {
		t.Errorf("%+v", s)
	}
	if s, err := copyAccount(t, nobody).Verify(n.Trust); err != nil || s.Exists || s.Balance != 0 {
		t.Errorf("an account that does not exist: %+v, %v", s, err)
	}
	elsewhere, err := proof.NewTrust(n.Genesis, n.Committees, func(tx.ID) consensus.ShardID { return 3 })
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		trust *proof.Trust
		spoil func(*proof.Account)
		want  error
	}{
		"another account":    {n.Trust, func(a *proof.Account) { a.ID = nobody.ID }, proof.ErrAccount},
		"another's path":     {n.Trust, func(a *proof.Account) { a.Path = nobody.Path }, proof.ErrAccount},
		"another root":       {n.Trust, func(a *proof.Account) { a.Final.Headers[0].State[0]++ }, proof.ErrCertificate},
		"another network":    {prooftest.New(t, "other", 1).Trust, nil, proof.ErrGenesis},
		"kept elsewhere":     {elsewhere, nil, proof.ErrShard},
		"signature changed":  {n.Trust, func(a *proof.Account) { a.Final.Cert.Signature[0]++ }, proof.ErrCertificate},
		"no header's quorum": {n.Trust, func(a *proof.Account) { a.Final.Cert.Signers[0] = 1 }, consensus.ErrNoQuorum},
	} {
		t.Run(name, func(t *testing.T) {
			a := copyAccount(t, rich)
			if tc.spoil != nil {
				tc.spoil(a)
			}
			if s, err := a.Verify(tc.trust); !errors.Is(err, tc.want) {
				t.Errorf("got %+v, %v; want %v", s, err, tc.want)
			}
		})
	}
}

func TestAccountFile(t *testing.T) {
	n, rich, _ := accounts(t)
	good, err := json.MarshalIndent(rich, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "account.json", append(good, '\n'))
	for name, change := range map[string][2]string{
		"format":       {"tutti-account/1", "tutti-account/2"},
		"place lies":   {`"height": 1`, `"height": 2`},
		"state lies":   {`"state_height": 0`, `"state_height": 1`},
		"unknown":      {`"path"`, `"note": "", "path"`},
		"path cut":     {`"path": "00`, `"path": "`},
		"other header": {`"headers": [`, `"headers": [], "x": [`},
	} {
		b := bytes.Replace(good, []byte(change[0]), []byte(change[1]), 1)
		if _, err := proof.DecodeAccount(b); !errors.Is(err, proof.ErrMalformed) || bytes.Equal(b, good) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b, err := os.ReadFile("testdata/account.json")
	if err != nil {
		t.Fatal(err)
	}
	a, err := proof.DecodeAccount(b)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := a.Verify(n.Trust); err != nil || s.Balance != 200 {
		t.Errorf("the golden file proves %+v, %v", s, err)
	}
}

func FuzzDecodeAccount(f *testing.F) {
	n, rich, nobody := accounts(f)
	for _, a := range []*proof.Account{rich, nobody} {
		b, err := json.Marshal(a)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := proof.DecodeAccount(b)
		if err != nil {
			return
		}
		again := copyAccount(t, a)
		if again.ID != a.ID || !cmp.Equal(again.Path.Append(nil), a.Path.Append(nil)) {
			t.Errorf("%s became %s", a.ID, again.ID)
		}
		_, _ = a.Verify(n.Trust) // must not panic
	})
}
