package ledger

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/state/store"
	"tutti/state/tx"
)

// The flags turn TestPowerCampaign into a campaign; `make soak-state-crash` gives them.
var (
	powerRecoveries = flag.Int("recoveries", 200, "recoveries of TestPowerCampaign")
	powerRuns       = flag.Int("runs", 1<<40, "its runs, at most; each ends with some recoveries")
	powerSeed       = flag.Uint64("seed", 1, "seed of its first run; the next runs have the next ones")
)

// certified is a block with what headers would say about it.
type certified struct {
	name   tx.Hash
	parent *certified // nil: genesis
	model  *model
	root   tx.Hash
	diff   tx.Hash
}

func newCertified(name tx.Hash, parent *certified, m *model) *certified {
	c := &certified{name: name, parent: parent, model: m, root: m.root()}
	if parent != nil {
		c.diff = m.diff(parent.model)
	}
	return c
}

// commitments are those of a child's header.
func (c *certified) commitments(child *model) Commitments {
	w := Commitments{Outcomes: modelListRoot(child.outcomes), Links: child.links(), State: c.root}
	if c.parent != nil {
		w.State, w.Diff = c.parent.root, c.parent.diff
		if c.parent.parent == nil {
			w.Diff = tx.Hash{}
		}
	}
	return w
}

// powerRun is the life of one disk: a ledger that is opened, executes, finalises, and ends badly, again and again.
type powerRun struct {
	rng   *rand.Rand
	p     Params
	o     Options
	clock *clock
	disk  *vfs.MemFS
	final []*certified // by height; what is finalised, or perhaps is
	told  int          // the last height that Finalise returned nil for; -1: no ledger yet
	names uint64

	recoveries int
	damaged    int
	ends       map[string]int // how lives ended, and what became of damage

	skipSync string // planted: one sync of a file of this kind is left out in each life
}

func newPowerRun(t testing.TB, seed uint64) *powerRun {
	r := &powerRun{rng: rand.New(rand.NewPCG(seed, 4)), clock: &clock{time.Unix(1e9, 0)}, told: -1, disk: vfs.NewCrashableMem(), ends: map[string]int{}}
	accounts := 20 + r.rng.Uint64N(60)
	log2 := uint8(r.rng.IntN(4))
	if r.rng.IntN(4) == 0 {
		accounts, log2 = 520+r.rng.Uint64N(20), 0 // three pages, the last one growing
	}
	r.p = testParams(t, 0, 2, accounts)
	r.p.Table = PartitionTable{{First: 0, Log2: log2, Shard: 0}, {First: 1 << log2, Log2: 0, Shard: 1}}
	r.p.ReceiptWindow = 1 + r.rng.Uint64N(40)
	r.o = testOptions(r.p, accounts)
	r.o.Genesis = withBLS(r.o.Genesis)
	r.o.Now, r.o.PageCycle = r.clock.now, time.Duration(1+r.rng.IntN(10))*time.Second
	r.o.Workers = [...]int{1, 1, 2, 3}[r.rng.IntN(4)]
	r.final = []*certified{newCertified(r.p.GenesisBlock, nil, newModel(&r.p, r.o.Genesis))}
	return r
}

// live opens the disk as the last crash left it, compares, goes on, and crashes.
func (r *powerRun) live() error {
	d := newPowerDisk(r.disk, r.rng, r.told)
	if r.skipSync != "" {
		d.skipKind, d.skipLeft = r.skipSync, 1+r.rng.IntN(4)
	}
	end, err := r.life(d)
	if err != nil {
		return fmt.Errorf("%s, told %d: %w", d.what, r.told, err)
	}
	r.ends[end]++
	disk, span := d.crash()
	r.disk = disk
	if r.told = span[0]; r.told < 0 {
		return r.createAgain()
	}
	r.final = r.final[:min(len(r.final), span[1]+1)]
	return r.recovered()
}

// createAgain deletes what an interrupted creation left behind, as the remedy says, unless it was complete.
func (r *powerRun) createAgain() error {
	o := r.o
	o.FS, o.Create = r.disk, false
	l, err := Open(o)
	switch {
	case err == nil:
		r.told, r.final = 0, r.final[:1]
		return errors.Join(r.final[0].agrees(l), l.Close())
	case errors.Is(err, store.ErrMissing), errors.Is(err, store.ErrIncomplete):
		r.disk = vfs.NewCrashableMem()
		return nil
	}
	return fmt.Errorf("after an interrupted creation: %w", err)
}

// recovered opens a copy of the disk and checks that nothing is lost that was told, and nothing is there that never was.
// The next life opens the disk itself, and may fail while it recovers.
func (r *powerRun) recovered() error {
	o := r.o
	o.FS, o.Create = r.disk.CrashClone(vfs.CrashCloneCfg{}), false
	l, err := Open(o)
	if err != nil {
		return fmt.Errorf("recovery: %w", err)
	}
	r.recoveries++
	if err = r.check(l); err == nil && l.Stats().Unfinalised != 0 {
		err = fmt.Errorf("%d unfinalised blocks after recovery", l.Stats().Unfinalised)
	}
	return errors.Join(err, l.Close())
}

// check compares a ledger with the model of its height.
func (r *powerRun) check(l *Ledger) error {
	height, name := l.Final()
	if int(height) < r.told || int(height) >= len(r.final) {
		return fmt.Errorf("recovered height %d, %d was told and %d begun", height, r.told, len(r.final)-1)
	}
	r.final, r.told = r.final[:height+1], int(height)
	c := r.final[height]
	if name != c.name {
		return fmt.Errorf("block %v at height %d, want %v", name, height, c.name)
	}
	if err := c.agrees(l); err != nil {
		return err
	}
	for _, f := range r.final {
		if err := f.model.effects(l); err != nil {
			return err
		}
	}
	return r.proves(l)
}

// agrees compares a final state with the model's.
func (c *certified) agrees(l *Ledger) error {
	if root := l.Stats().Root; root != c.root {
		return fmt.Errorf("root %v at height %d, certified is %v", root, c.model.height, c.root)
	}
	return c.model.agrees(l)
}

// proves checks a proof under the root that the final header carries.
func (r *powerRun) proves(l *Ledger) error {
	base := r.final[max(0, len(r.final)-1-StateLag)]
	id := r.account()
	proof, err := l.AccountProof(id)
	if err != nil {
		return err
	}
	rec, exists, err := VerifyAccountProof(base.root, id, proof)
	if want, ok := base.model.accounts[id]; err != nil || exists != ok || rec != want {
		return fmt.Errorf("proof of %x at height %d: %+v, %v, %w", uint64(id), base.model.height, rec, exists, err)
	}
	return nil
}

// life is one process on a disk. It returns how it ended; an error is a fault of the ledger.
func (r *powerRun) life(d *powerDisk) (string, error) {
	o := r.o
	o.FS, o.Create = d, r.told < 0
	l, err := Open(o)
	if err != nil {
		var fatal *store.FatalError
		if !excused(d, err) || !errors.As(err, &fatal) {
			return "", fmt.Errorf("opening: %w", err)
		}
		return "did not open, " + d.what.String(), nil
	}
	defer l.Close()
	if r.told < 0 {
		d.note(0, 0)
		r.told, r.final = 0, r.final[:1]
	}
	if d.what == powerCut && d.happened() {
		return "power cut at opening", nil
	}
	if err := r.check(l); err != nil {
		return "", err
	}
	for blocks := r.rng.IntN(16); blocks > 0; blocks-- {
		err := r.height(l, d)
		switch {
		case err != nil && excused(d, err) && errors.Is(err, ErrFatal):
			return "died, " + d.what.String(), nil
		case err != nil:
			return "", err
		case d.what == powerCut && d.happened():
			return "power cut", nil
		}
	}
	if r.rng.IntN(4) == 0 {
		if err := l.Close(); err != nil && !excused(d, err) {
			return "", err
		}
		return "closed", nil
	}
	return "killed", nil
}

// excused reports whether an error is what a failing disk leads to.
func excused(d *powerDisk, err error) bool {
	return d.what != powerCut && d.happened() && (errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENOSPC))
}

// height executes some blocks on the final one and finalises one of them.
func (r *powerRun) height(l *Ledger, d *powerDisk) error {
	final := r.final[len(r.final)-1]
	first, err := r.block(l, final)
	if err != nil {
		return err
	}
	tree := []*certified{first}
	for range r.rng.IntN(4) {
		b, err := r.block(l, append(tree, final)[r.rng.IntN(len(tree)+1)])
		if err != nil {
			return err
		}
		tree = append(tree, b)
	}
	if r.rng.IntN(3) == 0 && len(tree) > 1 {
		l.Abandon(tree[1+r.rng.IntN(len(tree)-1)].name)
	}
	r.clock.at = r.clock.at.Add(time.Duration(r.rng.IntN(3)) * time.Second)
	r.final = append(r.final, first)
	d.note(r.told, r.told+1)
	if err := l.Finalise(context.Background(), first.name); err != nil {
		return err
	}
	r.told++
	d.note(r.told, r.told)
	return nil
}

// proposed is a block as a leader sends it.
type proposed struct {
	*certified
	txs      []tx.Signed
	bundles  []tx.Bundle
	outcomes []bool
	body     []byte
	want     Commitments
}

// propose makes a random block on a parent.
func (r *powerRun) propose(parent *certified) *proposed {
	p := &proposed{txs: r.txs(parent.model)}
	if r.rng.IntN(2) == 0 {
		p.bundles = append(p.bundles, r.bundle(parent.model))
	}
	m, outcomes := parent.model.block(p.txs, p.bundles)
	body := tx.Body{Txs: p.txs, Bundles: p.bundles, Outcomes: outcomes}
	r.names++
	p.certified, p.outcomes = newCertified(blockName(r.names), parent, m), outcomes
	p.body, p.want = body.Append(nil), parent.commitments(m)
	return p
}

// execute executes a block. The ledger must agree with all that the model commits to.
func (p *proposed) execute(l *Ledger) (*Executed, error) {
	done, err := l.Execute(context.Background(), ExecuteInput{
		Parent: p.parent.name, Block: p.name, Height: p.model.height, Body: p.body, Want: p.want,
	})
	if err == nil && done.Root != p.root {
		err = fmt.Errorf("block at height %d: root %v, the model's is %v", p.model.height, done.Root, p.root)
	}
	return done, err
}

// block executes a random block on a parent.
func (r *powerRun) block(l *Ledger, parent *certified) (*certified, error) {
	p := r.propose(parent)
	_, err := p.execute(l)
	return p.certified, err
}

func (r *powerRun) account() tx.ID {
	n := uint64(len(r.final[0].model.accounts))
	if r.rng.IntN(2) == 0 {
		n = 6 // hot ones
	}
	return r.p.GenesisID(r.rng.Uint64N(n))
}

func (r *powerRun) txs(m *model) []tx.Signed {
	nonces := map[tx.ID]uint32{}
	var out []tx.Signed
	for range r.rng.IntN(8) {
		from := r.account()
		if _, ok := nonces[from]; !ok {
			nonces[from] = m.accounts[from].Nonce
		}
		t := tx.Tx{Kind: tx.Transfer, From: from, To: r.account(), Amount: r.rng.Uint64N(2000), Nonce: nonces[from], Expiry: 1 << 30}
		switch r.rng.IntN(8) {
		case 0, 1:
			r.open(&t)
		case 2:
			t.To = tx.MakeID(1<<r.p.Table[0].Log2, r.rng.Uint32N(4))
		}
		if t.Kind == tx.Transfer && t.From == t.To {
			continue
		}
		nonces[from]++
		s := tx.Signed{Tx: t}
		fakeSign(r.p.GenesisHash, &s, m.accounts[from].Key)
		out = append(out, s)
	}
	return out
}

// open makes a transaction an opening, of an account with a BLS key or without.
func (r *powerRun) open(t *tx.Tx) {
	t.Kind, t.To = tx.Open, 0
	t.Key = keyOf(tx.ID(r.rng.Uint64()))
	if r.rng.IntN(2) == 0 {
		return
	}
	t.BLS = &tx.BLSKey{Key: [48]byte(append(t.Key[:], t.Key[:16]...))}
	d := sha256.Sum256(append(t.BLS.Key[:], tx.PossessionMessage(r.p.GenesisHash, t.Key, t.BLS.Key)...))
	copy(t.BLS.Possession[:], d[:])
}

// bundle makes up what the other shard sends next.
func (r *powerRun) bundle(m *model) tx.Bundle {
	ch := m.channels[1]
	u := tx.Bundle{Source: 1, First: uint64(len(ch.received))}
	for range r.rng.IntN(5) {
		to := r.account()
		if r.rng.IntN(3) == 0 {
			to = tx.MakeID(0, 1<<20) // nobody: goes back
		}
		u.Receipts = append(u.Receipts, tx.Receipt{
			From: tx.MakeID(1<<r.p.Table[0].Log2, 5), To: to, Amount: r.rng.Uint64N(500), Tx: blockName(r.rng.Uint64()), Return: r.rng.IntN(5) == 0,
		})
	}
	next := m.clone()
	next.channels[1].received = append(slices.Clip(ch.received), u.Receipts...)
	known := Known{max(1, ch.known.Epoch), ch.known.Committee}
	if r.rng.IntN(4) == 0 {
		known = nextKnown(known)
	}
	u.Proof = fakeProof(ForeignHeader{Shard: 1, Known: known, Height: ch.height + 1, Links: []Link{{
		Shard: 0, Sent: u.First + uint64(len(u.Receipts)), Root: next.receivedRange(1).Root(),
		Received: ch.acked + r.rng.Uint64N(uint64(len(ch.sent))-ch.acked+1),
	}}})
	return u
}

// run lives several lives and then damages what is left.
func (r *powerRun) run() error {
	for life := range 2 + r.rng.IntN(5) {
		if err := r.live(); err != nil {
			return fmt.Errorf("life %d: %w", life, err)
		}
	}
	if r.told < 0 {
		return nil
	}
	for range 2 {
		if err := r.damage(); err != nil {
			return err
		}
	}
	return nil
}

// damage changes a copy of the disk and opens it: either that is said, or the state is a certified one.
func (r *powerRun) damage() error {
	disk := r.disk.CrashClone(vfs.CrashCloneCfg{})
	how, err := spoilDisk(disk, r.rng)
	if err != nil {
		return err
	}
	r.damaged++
	o := r.o
	o.FS, o.Create = disk, false
	l, err := Open(o)
	if err != nil {
		return r.said(how, err)
	}
	defer l.Close()
	height, _ := l.Final()
	if int(height) >= len(r.final) {
		return fmt.Errorf("%s: height %d, the highest is %d", how, height, len(r.final)-1)
	}
	if err := r.final[height].agrees(l); err != nil {
		return r.said(how, err)
	}
	if int(height) < r.told {
		r.ends["damage: an earlier certified state"]++
	} else {
		r.ends["damage: no harm"]++
	}
	return nil
}

func (r *powerRun) said(how string, err error) error {
	var refused *store.RefusedError
	if !errors.As(err, &refused) || refused.Remedy == "" {
		return fmt.Errorf("%s: not said as damage: %w", how, err)
	}
	r.ends["damage: refused, "+refused.Reason.Error()]++
	return nil
}

// spoilDisk flips a bit, blanks or repeats a block, or cuts the end of a random file of the ledger.
func spoilDisk(fs *vfs.MemFS, rng *rand.Rand) (string, error) {
	var files []string
	for _, dir := range []string{"ledger", "ledger/db"} {
		names, err := fs.List(dir)
		if err != nil {
			return "", err
		}
		slices.Sort(names)
		for _, n := range names {
			path := dir + "/" + n
			if info, err := fs.Stat(path); err == nil && !info.IsDir() && info.Size() > 0 {
				files = append(files, path)
			}
		}
	}
	for i, n := 0, len(files); i < n; i++ { // those with content of ours more often
		if ext := files[i][len(files[i])-4:]; ext == ".sst" || ext == ".log" {
			files = append(files, files[i], files[i])
		}
	}
	path := files[rng.IntN(len(files))]
	b, err := readFile(fs, path)
	if err != nil {
		return "", err
	}
	at := rng.IntN(len(b))
	block := at &^ 511
	var how string
	switch rng.IntN(5) {
	case 0, 1:
		b[at] ^= 1 << rng.IntN(8)
		how = "a flipped bit"
	case 2:
		clear(b[block:min(len(b), block+512)])
		how = "a blank block"
	case 3:
		copy(b[block:min(len(b), block+512)], b[:512*min(1, len(b)/512)])
		how = "a misplaced block"
	case 4:
		b, how = b[:at], "a cut"
	}
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	return fmt.Sprintf("%s in %s at %d", how, path, at), errors.Join(err, f.Sync(), f.Close())
}

func readFile(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	return b, errors.Join(err, f.Close())
}

// TestPowerCampaign lets ledgers end badly: a power cut or a failing disk at a random operation of a file system that
// loses what was not synced, in part. Whatever is left must open at a certified root, no lower than what was told. Then
// it damages what is left: that must be said, or the state be a certified one.
func TestPowerCampaign(t *testing.T) {
	recoveries, damaged, runs, ends := 0, 0, 0, map[string]int{}
	for seed := *powerSeed; recoveries < *powerRecoveries && runs < *powerRuns && !t.Failed(); seed++ {
		r := newPowerRun(t, seed)
		if err := r.run(); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		runs++
		recoveries, damaged = recoveries+r.recoveries, damaged+r.damaged
		for k, n := range r.ends {
			ends[k] += n
		}
	}
	t.Logf("%d recoveries, %d damaged disks in %d runs: %v", recoveries, damaged, runs, ends)
}
