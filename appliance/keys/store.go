package keys

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tutti/appliance/host"
	"tutti/state/tx"
)

// Store is a folder of named wallets. NAME.json is a wallet's keystore; it is written once. NAME.accounts.json, which may
// be written again, lists the accounts that the key has on networks, once they are known. Other files are left alone.
type Store struct{ Dir string }

// Account is the account of a wallet's key on one network.
type Account struct {
	Genesis tx.Hash // of the network
	ID      tx.ID
	Shard   uint16 // that keeps the account at genesis
}

// Entry is one wallet, as far as it is known without its password.
type Entry struct {
	Name     string
	Key      [32]byte // Ed25519 public key
	Accounts []Account
	Weak     bool  // see Keystore.Weak
	Err      error // the wallet's files cannot be read; only Name is valid
}

// Account is the wallet's account on the network with the given genesis hash.
func (e *Entry) Account(genesis tx.Hash) (Account, bool) {
	i := slices.IndexFunc(e.Accounts, func(a Account) bool { return a.Genesis == genesis })
	if i < 0 {
		return Account{}, false
	}
	return e.Accounts[i], true
}

// Limits of a store.
const (
	maxWallets  = 10_000
	maxAccounts = 64 // networks of one wallet
	maxName     = 64
)

const (
	keySuffix     = ".json"
	accountSuffix = ".accounts.json"
)

// CheckName accepts a wallet's name: 1 to 64 letters, digits, '-' and '_', not beginning with '-'.
func CheckName(name string) error {
	ok := name != "" && len(name) <= maxName && name[0] != '-'
	for _, c := range name {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_')
	}
	if !ok {
		return fmt.Errorf("keys: %.80q cannot be a wallet's name: use 1 to %d letters, digits, '-' and '_'", name, maxName)
	}
	return nil
}

// Path is where the named wallet's keystore lies.
func (s Store) Path(name string) string { return filepath.Join(s.Dir, name+keySuffix) }

// Add saves a new wallet. It never overwrites one (fs.ErrExist).
func (s Store) Add(name string, k *Keystore) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if k.Type() != Wallet {
		return fmt.Errorf("keys: %s is not a wallet", k.Type().Title())
	}
	return k.Save(s.Path(name))
}

// Keystore is the named wallet's encrypted key.
func (s Store) Keystore(name string) (*Keystore, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	k, err := LoadType(s.Path(name), Wallet)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("keys: no wallet is named %q in %s: 'tutti wallet list' shows those there are", name, s.Dir)
	}
	return k, err
}

// Get is the named wallet without its secret.
func (s Store) Get(name string) (Entry, error) {
	k, err := s.Keystore(name)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Name: name, Key: [32]byte(k.Public()), Weak: k.Weak()}
	e.Accounts, err = s.accounts(name)
	return e, err
}

// List is all wallets, by name. A folder that does not exist holds none.
func (s Store) List() ([]Entry, error) {
	files, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	var out []Entry
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), keySuffix)
		if !ok || CheckName(name) != nil {
			continue
		}
		if len(out) == maxWallets {
			return nil, fmt.Errorf("keys: more than %d wallets in %s: use more than one folder", maxWallets, s.Dir)
		}
		e, err := s.Get(name)
		if err != nil {
			e = Entry{Name: name, Err: err}
		}
		out = append(out, e)
	}
	return out, nil
}

// SetAccount records the account that the named wallet has on a network, in place of what was known of that network.
func (s Store) SetAccount(name string, a Account) error {
	if _, err := s.Keystore(name); err != nil {
		return err
	}
	all, err := s.accounts(name)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(b Account) bool { return b.Genesis == a.Genesis })
	all = append(all, a)
	all = all[max(0, len(all)-maxAccounts):] // the networks not used for longest are forgotten
	file := accountsFile{Accounts: make([]accountJSON, len(all))}
	for i, a := range all {
		file.Accounts[i] = accountJSON{Genesis: a.Genesis.String(), ID: a.ID, Shard: a.Shard}
	}
	b, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	return host.ReplaceFile(filepath.Join(s.Dir, name+accountSuffix), append(b, '\n'), 0o600)
}

type accountsFile struct {
	Accounts []accountJSON `json:"accounts"`
}

type accountJSON struct {
	Genesis string `json:"genesis"`
	ID      tx.ID  `json:"account"`
	Shard   uint16 `json:"shard"`
}

func (s Store) accounts(name string) ([]Account, error) {
	path := filepath.Join(s.Dir, name+accountSuffix)
	b, err := readPrivate(path, MaxFileBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out, err := decodeAccounts(b)
	if err != nil {
		return nil, fmt.Errorf("keys: %s: %w: remove it; the key itself is in %s", path, err, s.Path(name))
	}
	return out, nil
}

func decodeAccounts(b []byte) ([]Account, error) {
	var file accountsFile
	if err := json.Unmarshal(b, &file); err != nil {
		return nil, err
	}
	if len(file.Accounts) > maxAccounts {
		return nil, fmt.Errorf("%d accounts, limit %d", len(file.Accounts), maxAccounts)
	}
	out := make([]Account, len(file.Accounts))
	for i, a := range file.Accounts {
		var genesis []byte
		if err := field(&genesis, "genesis", a.Genesis, 32, 32); err != nil {
			return nil, err
		}
		out[i] = Account{Genesis: tx.Hash(genesis), ID: a.ID, Shard: a.Shard}
	}
	return out, nil
}
