package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"tutti/appliance/config"
	"tutti/appliance/keys"
)

func keysCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "keys",
		Short: "Make, show, import and back up the keys of a node",
		Long: `Make, show, import and back up the keys of a node.

A node has two: the BLS voting key that signs votes and the Ed25519 node key that names it on the network. Both lie
encrypted (EIP-2335) in the home folder's keys/. Wallet keys: see 'tutti wallet'.

Never let two nodes run with one voting key: two votes for different blocks are proof of misbehaviour.`,
	}
	c.AddCommand(keysNewCommand(a), keysShowCommand(a), keysImportCommand(a), keysBackupCommand(a))
	return c
}

// kinds are the words for key types on the command line.
var kinds = map[string]keys.Type{"voting": keys.Voting, "node": keys.Node, "wallet": keys.Wallet}

// keyPath is where a node's key of a type lies.
func keyPath(h config.Home, t keys.Type) string {
	if t == keys.Voting {
		return h.VotingKey()
	}
	return h.NodeKey()
}

// keyPasswordFile is the file with the password of a node's keys, as its options say; empty where they say to ask.
func keyPasswordFile(h config.Home) string {
	c, err := config.Load(h.Config())
	switch {
	case err != nil: // init is not complete, or the file is broken: then the usual place
		return h.KeyPassword()
	case c.Keys.PasswordFile == "":
		return ""
	}
	return h.Resolve(c.Keys.PasswordFile)
}

// keyInfo describes a keystore to programs.
type keyInfo struct {
	Type      keys.Type `json:"type"`
	PublicKey string    `json:"public_key"`
	File      string    `json:"file"`
	Weak      bool      `json:"weak"` // cheap to guess at: a key of a throw-away local network
}

func infoOf(k *keys.Keystore, file string) keyInfo {
	return keyInfo{Type: k.Type(), PublicKey: hex.EncodeToString(k.Public()), File: file, Weak: k.Weak()}
}

// newKey draws a key and saves it, encrypted, in a new file.
func (a *app) newKey(t keys.Type, path string, p keys.Password) (*keys.Keystore, error) {
	s, err := keys.New(t)
	if err != nil {
		return nil, err
	}
	k, err := keys.Seal(s, p, a.cost, "Tutti "+t.Title())
	if err != nil {
		return nil, err
	}
	return k, k.Save(path)
}

func keysNewCommand(a *app) *cobra.Command {
	var passwordFile string
	c := &cobra.Command{
		Use:   "new voting|node",
		Short: "Draw a new key and save it encrypted in the home folder",
		Example: `  tutti keys new voting
  tutti keys new node --password-file ~/tutti.password`,
		Args:      arguments("voting or node"),
		ValidArgs: []string{"voting", "node"},
		RunE: func(_ *cobra.Command, args []string) error {
			t := kinds[args[0]]
			if t != keys.Voting && t != keys.Node {
				return usagef("unknown kind of key %q: give voting or node; 'tutti wallet new' makes wallets", args[0])
			}
			h, err := a.existingHome()
			if err != nil {
				return err
			}
			path := keyPath(h, t)
			if _, err := os.Lstat(path); err == nil {
				return fmt.Errorf("%s exists and is never overwritten: move it away if you mean to replace it", path)
			}
			p, err := a.password(passwordSource{passwordFile, keyPasswordFile(h), "Password for the new key", true})
			if err != nil {
				return err
			}
			k, err := a.newKey(t, path, p)
			if err != nil {
				return err
			}
			return a.showKeys([]keyInfo{infoOf(k, path)})
		},
	}
	c.Flags().StringVar(&passwordFile, "password-file", "", "file with the password, mode 0600 (default: keys/password in the home folder, else asked for)")
	return a.jsonFlag(c)
}

// showKeys prints public keys.
func (a *app) showKeys(all []keyInfo) error {
	if a.json {
		return a.printJSON(all)
	}
	t := newTable()
	for _, k := range all {
		t.row(k.Type.Title(), k.PublicKey, k.File)
	}
	t.write(a.stdout)
	return nil
}

func keysShowCommand(a *app) *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:     "show",
		Short:   "Print the node's public keys; no password is needed",
		Example: "  tutti keys show\n  tutti keys show --json",
		Args:    arguments(),
		RunE: func(*cobra.Command, []string) error {
			h, err := a.existingHome()
			if err != nil {
				return err
			}
			var all []keyInfo
			for _, t := range []keys.Type{keys.Voting, keys.Node} {
				k, err := keys.LoadType(keyPath(h, t), t)
				if err != nil {
					return err
				}
				all = append(all, infoOf(k, keyPath(h, t)))
			}
			return a.showKeys(all)
		},
	})
}

func keysImportCommand(a *app) *cobra.Command {
	var passwordFile, sourcePasswordFile, name string
	c := &cobra.Command{
		Use:   "import voting|node|wallet FILE",
		Short: "Take over a key from an EIP-2335 keystore, of Tutti or of another tool",
		Long: `Take over a key from an EIP-2335 keystore, of Tutti or of another tool.

The file is opened with its own password, and the key is encrypted afresh with the password of this home. The file stays
where it is.`,
		Example: `  tutti keys import voting keystore-m_12381_3600_0_0_0.json
  tutti keys import wallet backup/wallets/alice.json --name alice`,
		Args: arguments("the kind of key", "FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			t, known := kinds[args[0]]
			if !known {
				return usagef("unknown kind of key %q: give voting, node or wallet", args[0])
			}
			if (t == keys.Wallet) != (name != "") {
				return usagef("--name NAME is needed for a wallet, and only for a wallet")
			}
			h, err := a.existingHome()
			if err != nil {
				return err
			}
			path, homePassword := keyPath(h, t), keyPasswordFile(h)
			if t == keys.Wallet {
				if err := keys.CheckName(name); err != nil {
					return err
				}
				path, homePassword = keys.Store{Dir: h.Wallets()}.Path(name), h.WalletPassword()
			}
			source, err := keys.LoadType(args[1], t)
			if err != nil {
				return err
			}
			old, err := a.password(passwordSource{flag: sourcePasswordFile, question: "Password of " + args[1]})
			if err != nil {
				return err
			}
			secret, err := source.Open(old)
			if err != nil {
				return fmt.Errorf("%w (%s)", err, args[1])
			}
			p, err := a.password(passwordSource{passwordFile, homePassword, "Password for the key in this home", true})
			if err != nil {
				return err
			}
			k, err := keys.Seal(secret, p, a.cost, source.Description())
			if err != nil {
				return err
			}
			if err := k.Save(path); err != nil {
				return err
			}
			return a.showKeys([]keyInfo{infoOf(k, path)})
		},
	}
	c.Flags().StringVar(&sourcePasswordFile, "source-password-file", "", "file with the password of FILE, mode 0600 (default: asked for)")
	c.Flags().StringVar(&passwordFile, "password-file", "", "file with the password for the key in this home, mode 0600 (default: the home folder's, else asked for)")
	c.Flags().StringVar(&name, "name", "", "name of the new wallet")
	return a.jsonFlag(c)
}

func keysBackupCommand(a *app) *cobra.Command {
	var passwordFile, walletPasswordFile string
	c := &cobra.Command{
		Use:   "backup FOLDER",
		Short: "Copy all encrypted keys of this home to a new folder, after checking that each can be opened",
		Long: `Copy all encrypted keys of this home to a new folder, after checking that each can be opened.

The copies are encrypted with the passwords they have now; passwords are not copied, so keep them elsewhere. Restore with
'tutti keys import', never while another node still runs with the same voting key.`,
		Example: "  tutti keys backup /media/usb/tutti-keys",
		Args:    arguments("FOLDER"),
		RunE: func(_ *cobra.Command, args []string) error {
			h, err := a.existingHome()
			if err != nil {
				return err
			}
			files, err := keysOf(h)
			if err != nil {
				return err
			}
			if len(files) == 0 {
				return fmt.Errorf("there are no keys in %s: make them with 'tutti init' or 'tutti wallet new'", h)
			}
			if _, err := os.Lstat(args[0]); err == nil {
				return fmt.Errorf("%s exists: name a new folder", args[0])
			}
			if err := a.checkOpen(h, files, passwordFile, walletPasswordFile); err != nil {
				return err
			}
			var all []keyInfo
			for _, f := range files {
				to := filepath.Join(args[0], f.path)
				if err := f.key.Save(to); err != nil {
					return err
				}
				all = append(all, infoOf(f.key, to))
			}
			return a.showKeys(all)
		},
	}
	c.Flags().StringVar(&passwordFile, "password-file", "", "file with the password of the node's keys, mode 0600 (default: the home folder's, else asked for)")
	c.Flags().StringVar(&walletPasswordFile, "wallet-password-file", "", "file with the password of the wallets, mode 0600 (default: the home folder's, else asked for each)")
	return a.jsonFlag(c)
}

// keyFile is one keystore of a home.
type keyFile struct {
	path string // relative to the home
	key  *keys.Keystore
}

// keysOf lists all keystores of a home: the node's, then the wallets.
func keysOf(h config.Home) ([]keyFile, error) {
	var out []keyFile
	for _, t := range []keys.Type{keys.Voting, keys.Node} {
		k, err := keys.LoadType(keyPath(h, t), t)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, keyFile{filepath.Join("keys", filepath.Base(keyPath(h, t))), k})
	}
	store := keys.Store{Dir: h.Wallets()}
	wallets, err := store.List()
	if err != nil {
		return nil, err
	}
	for _, w := range wallets {
		k, err := store.Keystore(w.Name)
		if err != nil {
			return nil, err
		}
		out = append(out, keyFile{filepath.Join("wallets", filepath.Base(store.Path(w.Name))), k})
	}
	return out, nil
}

// checkOpen opens each key with its password.
func (a *app) checkOpen(h config.Home, files []keyFile, nodeFlag, walletFlag string) error {
	var ofNode *keys.Password // asked for once
	for _, f := range files {
		var p keys.Password
		var err error
		switch {
		case f.key.Type() == keys.Wallet:
			p, err = a.password(passwordSource{flag: walletFlag, home: h.WalletPassword(), question: "Password of " + f.path})
		case ofNode != nil:
			p = *ofNode
		default:
			p, err = a.password(passwordSource{flag: nodeFlag, home: keyPasswordFile(h), question: "Password of the node's keys"})
			ofNode = &p
		}
		if err != nil {
			return err
		}
		if _, err := f.key.Open(p); err != nil {
			return fmt.Errorf("%w (%s)", err, f.path)
		}
	}
	return nil
}
