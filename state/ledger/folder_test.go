package ledger

import (
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/state/store"
	"tutti/state/tx"
)

// A build writes folders of its own format only: testdata/folder-v1 can be made by builds with store.Version 1 alone,
// and is kept so that later ones are tried on what such a build left behind.
var makeFolder = flag.Bool("make-folder", false, "write testdata/folder-v(the store's version), which must not exist")

const (
	folderBlocks   = 36
	folderExtra    = 12 // blocks that tests execute on top of a folder
	folderAccounts = 300
	folderReopened = 20 // height at which the folder was closed and opened again, so that it has sorted tables too
)

// newFolderStory is the chain of shard 0 of 4 in the golden folders: openings with and without BLS keys in every block,
// and three channels. Shard 1 acknowledges promptly and sends receipts, some of which go back; shard 2 has never taken
// any; shard 3 took some once, so long ago that no difference from before is kept.
func newFolderStory(t testing.TB) *story {
	s := &story{p: testParams(t, 0, 4, folderAccounts)}
	s.p.Table = PartitionTable{{First: 0, Log2: 1, Shard: 0}, {First: 2, Log2: 0, Shard: 1}, {First: 3, Log2: 0, Shard: 2}, {First: 4, Log2: 0, Shard: 3}}
	s.genesis = withBLS(folderGenesis)
	m := newModel(&s.p, s.genesis)
	s.models, s.txs, s.in = []*model{m}, [][]tx.Signed{nil}, [][]tx.Bundle{nil}
	var received []tx.Receipt
	for h := uint64(1); h <= folderBlocks+folderExtra; h++ {
		txs := folderTxs(&s.p, m, h)
		var in []tx.Bundle
		if h%2 == 0 {
			r := []tx.Receipt{{From: tx.MakeID(2, 1), To: tx.MakeID(1, 3), Amount: 4}, {From: tx.MakeID(2, 1), To: tx.MakeID(0, 1<<20), Amount: 6, Tx: blockName(h)}}
			acked := uint64(len(s.models[max(h, 4)-4].channels[1].sent))
			in = append(in, receiptBundle(&s.p, 1, h, uint64(len(received)), acked, r, received...))
			received = append(received, r...)
		}
		if h == 6 {
			in = append(in, receiptBundle(&s.p, 3, h, 0, uint64(len(s.models[4].channels[3].sent)), nil))
		}
		m, _ = m.block(txs, in)
		s.models, s.txs, s.in = append(s.models, m), append(s.txs, txs), append(s.in, in)
	}
	return s
}

// folderGenesis fills a page and begins the next one in partition 0; partition 1 is the one that openings fill.
func folderGenesis(yield func(GenesisAccount) bool) {
	for i := range uint32(folderAccounts) {
		id := tx.MakeID(0, i)
		if i >= folderAccounts-30 {
			id = tx.MakeID(1, i-(folderAccounts-30))
		}
		if !yield(GenesisAccount{ID: id, Key: keyOf(id), Balance: testBalance}) {
			return
		}
	}
}

func folderTxs(p *Params, m *model, h uint64) []tx.Signed {
	from := func(i uint64) tx.ID { return tx.MakeID(0, uint32((h*7+i)%270)) }
	pay := func(i uint64, to tx.ID, amount uint64) tx.Signed {
		return transfer(p, from(i), to, amount, m.accounts[from(i)].Nonce)
	}
	txs := []tx.Signed{
		pay(0, tx.MakeID(2, 7), 11), pay(1, tx.MakeID(3, 7), 12), pay(2, tx.MakeID(4, 7), 13), pay(3, tx.MakeID(1, uint32(h%30)), 14),
		opening(p, from(4), 9, m.accounts[from(4)].Nonce, keyOf(tx.ID(h)<<40)),
	}
	if h%3 != 0 {
		x := opening(p, from(5), 8, m.accounts[from(5)].Nonce, keyOf(tx.ID(h)<<40+1))
		x.BLS = &tx.BLSKey{Key: [48]byte{byte(h), 2, 3}}
		d := sha256.Sum256(append(x.BLS.Key[:], tx.PossessionMessage(p.GenesisHash, x.Key, x.BLS.Key)...))
		copy(x.BLS.Possession[:], d[:])
		fakeSign(p.GenesisHash, &x, keyOf(from(5)))
		txs = append(txs, x)
	}
	return txs
}

// folderOptions are those with which the golden folders were made: one second to a block, ten to a cycle of pages.
func folderOptions(s *story, fs vfs.FS, dir string, create bool) (Options, *clock) {
	o := s.options(fs, create)
	c := &clock{time.Unix(1e9, 0)}
	o.Dir, o.Now, o.PageCycle = dir, c.now, 10*time.Second
	return o, c
}

func folderName(version int) string { return fmt.Sprintf("testdata/folder-v%d", version) }

// TestMakeFolder makes a folder in the format of this build.
func TestMakeFolder(t *testing.T) {
	s := newFolderStory(t)
	name, fs := filepath.Join(t.TempDir(), "folder"), vfs.FS(vfs.Default)
	if *makeFolder {
		name = folderName(store.Version)
		if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s exists: %v", name, err)
		}
	}
	o, clock := folderOptions(s, fs, name+"/ledger", true)
	l, err := Open(o)
	for h := uint64(1); h <= folderBlocks && err == nil; h++ {
		clock.at = clock.at.Add(time.Second)
		if err = s.extend(l); err == nil && h == folderReopened {
			o.Create = false
			if err = l.Close(); err == nil {
				l, err = Open(o)
			}
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.models[folderBlocks].agrees(l), l.Close(), os.WriteFile(name+"/expected.txt", []byte(expected(s.models[folderBlocks])), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// expected says in words what is in a golden folder, by the model.
func expected(m *model) string {
	var b strings.Builder
	fmt.Fprintf(&b, "height %d\nblock %v\nroot %v\n", m.height, blockName(m.height), m.root())
	fmt.Fprintf(&b, "fees %d, deposits %d, treasury %d, accounts %d, BLS keys %d\n", m.fees, m.deposits, m.treasury, len(m.accounts), len(m.keys))
	for _, s := range slices.Sorted(maps.Keys(m.channels)) {
		c := m.channels[s]
		fmt.Fprintf(&b, "shard %d: sent %d, acknowledged %d, received %d\n", s, len(c.sent), c.acked, len(c.received))
	}
	for _, id := range []tx.ID{tx.MakeID(0, 0), tx.MakeID(0, 257), tx.MakeID(1, 3), tx.MakeID(1, 30), tx.MakeID(1, 31)} {
		fmt.Fprintf(&b, "account %d of partition %d: %+v\n", id.Index(), id.Partition(), m.accounts[id])
	}
	return b.String()
}

// TestGoldenFolder opens a copy of each committed folder, finds in it what was put there, and goes on.
func TestGoldenFolder(t *testing.T) {
	s := newFolderStory(t)
	for version := 1; version <= store.Version; version++ {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			fs := vfs.NewMem()
			if ok, err := vfs.Clone(vfs.Default, fs, folderName(version)+"/ledger", "ledger"); err != nil || !ok {
				t.Fatal(ok, err)
			}
			want, err := os.ReadFile(folderName(version) + "/expected.txt")
			if err != nil || string(want) != expected(s.models[folderBlocks]) {
				t.Fatalf("%v; the story is another one:\n%s", err, expected(s.models[folderBlocks]))
			}
			o, _ := folderOptions(s, fs, "ledger", false)
			l := mustOpen(t, o)
			if h, name := l.Final(); h != folderBlocks || name != blockName(h) {
				t.Fatal(h, name)
			}
			if version > 1 { // for version 1 see TestUpgradeCrash
				if err := outboxAgrees(s.models[folderBlocks], l); err != nil {
					t.Fatal(err)
				}
			}
			for range folderExtra {
				if err := s.models[l.Stats().Height].agrees(l); err != nil {
					t.Fatal(err)
				}
				if err := s.extend(l); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.models[folderBlocks+folderExtra].agrees(l); err != nil {
				t.Fatal(err)
			}
		})
	}
}
