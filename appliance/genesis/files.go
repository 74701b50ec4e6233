package genesis

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"

	"tutti/accel/bls"
	"tutti/appliance/host"
	"tutti/consensus"
)

// Verified is a genesis whose two files were checked in full; if it is Opened, all but the proofs of its accounts' keys. Only
// Verify, Open and Create make one. Immutable.
type Verified struct {
	*Genesis
	JSON     []byte   // genesis.json as it was read
	Counts   []uint64 // accounts by shard
	Supplies []uint64 // units by shard
	Opened   bool     // by Open

	dir string
}

// Create completes g with the description of the accounts, checks everything that Verify does, and writes genesis.json
// and accounts.bin in dir, an existing folder. Accounts ascend by id, and each partition is filled from index 0
// (Population gives them so). Nothing is overwritten: if one of the files exists the error wraps fs.ErrExist.
// genesis.json is written last, and each file whole or not at all. g itself is not modified.
func Create(dir string, g *Genesis, accounts iter.Seq[Account]) (*Verified, error) {
	path, accountsPath := filepath.Join(dir, FileName), filepath.Join(dir, AccountsName)
	for _, p := range []string{path, accountsPath} {
		if _, err := os.Lstat(p); err == nil {
			return nil, fmt.Errorf("genesis: %s: %w: a network is begun only once; name another folder, or remove the old network yourself", p, fs.ErrExist)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("genesis: %w", err)
		}
	}
	done := *g
	var p Problems
	done.validateRules(&p)
	done.validateValidators(&p)
	if len(p) == 0 {
		done.verifyPossession(&p)
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	c := newCensus(&done, true)
	var wrong error // with what is to be written; the rest of what CreateFrom says is about the disk
	err := host.CreateFrom(accountsPath, 0o644, func(w io.Writer) error {
		var err error
		if done.Accounts.SHA256, wrong, err = writeAccounts(w, c, accounts); wrong == nil && err == nil {
			digest := done.Accounts.SHA256
			done.Accounts = c.total
			done.Accounts.SHA256 = digest
			wrong = done.Validate()
		}
		return errors.Join(wrong, err)
	})
	if wrong != nil {
		return nil, wrong
	}
	if err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	v := &Verified{Genesis: &done, JSON: done.JSON(), Counts: c.counts, Supplies: c.supplies, dir: dir}
	if err := host.CreateFile(path, v.JSON, 0o644); err != nil {
		return nil, errors.Join(fmt.Errorf("genesis: %w", err), os.Remove(accountsPath))
	}
	return v, nil
}

// writeAccounts writes the accounts file as c counts its accounts. wrong is what is wrong with an account.
func writeAccounts(to io.Writer, c *census, accounts iter.Seq[Account]) (digest consensus.Hash, wrong, err error) {
	h := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(to, h), 1<<20)
	w.WriteString(accountsMagic) // the writer keeps its error
	var b []byte
	for a := range accounts {
		if wrong := c.add(a); wrong != nil {
			return digest, wrong, nil
		}
		b = AppendAccount(b[:0], a)
		w.Write(b)
	}
	if wrong := c.derive(); wrong != nil {
		return digest, wrong, nil
	}
	err = w.Flush()
	return consensus.Hash(h.Sum(nil)), nil, err
}

// Verify reads and checks a genesis file and the accounts file beside it. It costs about a millisecond for each
// validator and each account with a BLS key, 11 microseconds for one of a test crowd, and a second for 10 million accounts without.
func Verify(path string) (*Verified, error) { return read(path, true) }

// Open is Verify but for the proofs that the holders of accounts have their BLS keys. Who has verified a genesis, or takes its hash
// from somebody who has, need not check them at every start: the hash covers the keys.
func Open(path string) (*Verified, error) { return read(path, false) }

func read(path string, proven bool) (*Verified, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	g, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, path)
	}
	var p Problems
	if g.verifyPossession(&p); len(p) > 0 {
		return nil, fmt.Errorf("%w (%s)", p, path)
	}
	v := &Verified{Genesis: g, JSON: text, Opened: !proven, dir: filepath.Dir(path)}
	c := newCensus(g, proven)
	digest := sha256.New()
	var wrong error
	err = v.read(digest, func(a Account) bool {
		wrong = c.add(a)
		return wrong == nil
	})
	if err = errors.Join(err, wrong); err == nil {
		err = c.derive()
	}
	if err != nil {
		return nil, err
	}
	c.total.SHA256 = consensus.Hash(digest.Sum(nil))
	want, got := &g.Accounts, &c.total
	if want.SHA256 != got.SHA256 {
		p.add("accounts.sha256", "copy both files again from where they were made", "%s has %s", AccountsName, got.SHA256)
	}
	if want.Count != got.Count {
		p.add("accounts.count", "copy both files again from where they were made", "%s has %d", AccountsName, got.Count)
	}
	if want.Total != got.Total {
		p.add("accounts.total", "copy both files again from where they were made", "%s has %d", AccountsName, got.Total)
	}
	if len(p) > 0 {
		return nil, fmt.Errorf("%w (%s)", p, path)
	}
	v.Counts, v.Supplies = c.counts, c.supplies
	return v, nil
}

// readFile reads a file of at most maxJSON bytes.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxJSON+1)) // Parse refuses more
}

// verifyPossession checks the validators' proofs of possession.
func (g *Genesis) verifyPossession(p *Problems) {
	for s := range g.Shards {
		for i, v := range g.Shards[s].Validators {
			if !bls.VerifyPossession(v.Key, ValidatorMessage(g.Name, v.Node, v.Key), v.Possession) {
				p.add(fmt.Sprintf("shards[%d].validators[%d].possession", s, i),
					"take the whole line that 'tutti genesis entry' prints on the validator's machine for this network's name",
					"does not verify for network %q, this voting key and this node key", g.Name)
			}
		}
	}
}

// AccountsOf yields the accounts of a shard, ascending by id, until yield returns false. An error means that the file
// can no longer be read.
func (v *Verified) AccountsOf(shard consensus.ShardID, yield func(Account) bool) error {
	return v.read(io.Discard, func(a Account) bool {
		s, _ := v.Table.ShardOf(a.ID.Partition())
		return s != uint16(shard) || yield(a)
	})
}

// read yields all accounts and copies the file's bytes to also.
func (v *Verified) read(also io.Writer, yield func(Account) bool) error {
	f, err := os.Open(filepath.Join(v.dir, AccountsName))
	if err != nil {
		return fmt.Errorf("genesis: %w: it belongs beside %s", err, FileName)
	}
	defer f.Close()
	return readAccounts(bufio.NewReaderSize(io.TeeReader(f, also), 1<<20), yield)
}

// CopyTo writes both files into another existing folder, as a node's home, without overwriting any.
func (v *Verified) CopyTo(dir string) error {
	err := host.CreateFrom(filepath.Join(dir, AccountsName), 0o644, func(w io.Writer) error {
		from, err := os.Open(filepath.Join(v.dir, AccountsName))
		if err != nil {
			return err
		}
		defer from.Close()
		h := sha256.New()
		if _, err := io.CopyBuffer(io.MultiWriter(w, h), from, make([]byte, 1<<20)); err != nil {
			return err
		}
		if consensus.Hash(h.Sum(nil)) != v.Accounts.SHA256 {
			return fmt.Errorf("%s in %s has changed: copy both files again from where they were made", AccountsName, v.dir)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("genesis: %w", err)
	}
	return v.writeJSON(dir)
}

// LinkTo is CopyTo for many homes on one disk: the accounts file there is the same one under another name, where the
// file system can do that. Nobody writes to it, and everybody who reads it compares its digest.
func (v *Verified) LinkTo(dir string) error {
	err := os.Link(filepath.Join(v.dir, AccountsName), filepath.Join(dir, AccountsName))
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("genesis: %w", err)
	}
	if err != nil {
		return v.CopyTo(dir)
	}
	return v.writeJSON(dir) // which syncs the folder
}

func (v *Verified) writeJSON(dir string) error {
	if err := host.CreateFile(filepath.Join(dir, FileName), v.JSON, 0o644); err != nil {
		return fmt.Errorf("genesis: %w", err)
	}
	return nil
}
