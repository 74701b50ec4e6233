package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"tutti/appliance/api"
	"tutti/appliance/config"
	"tutti/appliance/keys"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/state/tx"
)

func walletCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "wallet",
		Short: "Hold keys and accounts, send money, keep and check proofs",
		Long: `Hold keys and accounts, send money, keep and check proofs.

A wallet is an encrypted key with a name, in the home folder's wallets/. Its account exists once somebody has paid for its
opening. A local network comes with a wallet 'demo' that has money. What nodes say is checked against the genesis file.`,
	}
	n := new(networkFlags)
	n.add(c)
	c.AddCommand(walletNewCommand(a, n), walletOpenCommand(a, n), walletAttachCommand(a, n), walletListCommand(a), walletBalanceCommand(a, n),
		walletSendCommand(a, n), walletReceiptCommand(a, n))
	return c
}

// walletInfo describes a wallet to programs.
type walletInfo struct {
	Name     string        `json:"name"`
	Key      proof.Digest  `json:"key"`
	Accounts []accountInfo `json:"accounts"`
	Weak     bool          `json:"weak"`
	Error    string        `json:"error,omitempty"`
}

type accountInfo struct {
	Genesis proof.Digest      `json:"genesis"`
	ID      tx.ID             `json:"account"`
	Shard   consensus.ShardID `json:"shard"`
}

func describeWallet(e keys.Entry) walletInfo {
	w := walletInfo{Name: e.Name, Key: e.Key, Accounts: []accountInfo{}, Weak: e.Weak}
	for _, x := range e.Accounts {
		w.Accounts = append(w.Accounts, accountInfo{proof.Digest(x.Genesis), x.ID, consensus.ShardID(x.Shard)})
	}
	if e.Err != nil {
		w.Error = e.Err.Error()
	}
	return w
}

func walletListCommand(a *app) *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:     "list",
		Short:   "Print the wallets of this home with their keys and accounts; no password is needed",
		Example: "  tutti wallet list\n  tutti wallet list --json | jq -r '.[].name'",
		Args:    arguments(),
		RunE: func(*cobra.Command, []string) error {
			h, err := a.home()
			if err != nil {
				return err
			}
			all, err := keys.Store{Dir: h.Wallets()}.List()
			if err != nil {
				return err
			}
			if a.json {
				out := make([]walletInfo, len(all))
				for i, e := range all {
					out[i] = describeWallet(e)
				}
				return a.printJSON(out)
			}
			if len(all) == 0 {
				a.say("No wallets in %s. Make one with 'tutti wallet new NAME'.", h.Wallets())
				return nil
			}
			t := newTable(2)
			t.row("name", "account", "shard", "network", "key")
			for _, e := range all {
				switch {
				case e.Err != nil:
					t.row(e.Name, a.colour(bad, e.Err.Error()))
				case len(e.Accounts) == 0:
					t.row(e.Name, "not open", "-", "-", hex.EncodeToString(e.Key[:]))
				}
				for _, x := range e.Accounts {
					t.row(e.Name, x.ID.String(), fmt.Sprint(x.Shard), consensus.Hash(x.Genesis).Short(), hex.EncodeToString(e.Key[:]))
				}
			}
			t.write(a.stdout)
			return nil
		},
	})
}

func walletNewCommand(a *app, n *networkFlags) *cobra.Command {
	var o openOptions
	var passwordFile string
	c := &cobra.Command{
		Use:   "new NAME",
		Short: "Draw a key for a new wallet; with --payer also open its account",
		Example: `  tutti wallet new alice
  tutti wallet new bob --payer demo --amount 1000`,
		Args: arguments("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := keys.CheckName(args[0]); err != nil {
				return usageError{err}
			}
			if o.payer == "" && c.Flags().Changed("amount") {
				return usagef("--amount needs --payer, the wallet that pays it")
			}
			h, err := a.home()
			if err != nil {
				return err
			}
			if err := config.CreateFormat(string(h), config.HomeFormat); err != nil {
				return err
			}
			store := keys.Store{Dir: h.Wallets()}
			path := store.Path(args[0])
			if _, err := os.Lstat(path); err == nil {
				return fmt.Errorf("wallet %q exists and is never overwritten: choose another name", args[0])
			}
			p, err := a.password(passwordSource{passwordFile, h.WalletPassword(), "Password for the new wallet", true})
			if err != nil {
				return err
			}
			if _, err := a.newKey(keys.Wallet, path, p); err != nil {
				return err
			}
			if o.payer != "" {
				return a.openAccount(c.Context(), n, args[0], o)
			}
			e, err := store.Get(args[0])
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(describeWallet(e))
			}
			a.say("Wallet %s, key %x, in %s", e.Name, e.Key, path)
			a.say("Its account exists once it is opened: 'tutti wallet open %s --payer WALLET'.", e.Name)
			return nil
		},
	}
	o.add(c)
	c.Flags().StringVar(&passwordFile, "password-file", "", "file with the password for the new wallet, mode 0600 (default: the home folder's, else asked for)")
	return a.jsonFlag(c)
}

func walletBalanceCommand(a *app, n *networkFlags) *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "balance NAME|ACCOUNT...",
		Short: "Print the balances of accounts, proven under a final state root",
		Example: `  tutti wallet balance demo
  tutti wallet balance alice bob ACCOUNT
  tutti wallet balance ACCOUNT --api http://127.0.0.1:9700 --genesis genesis.json --json`,
		Args: func(c *cobra.Command, args []string) error {
			return arguments("NAME or ACCOUNT")(c, args[:min(1, len(args))])
		},
		RunE: func(c *cobra.Command, args []string) error {
			s, err := n.open(a)
			if err != nil {
				return err
			}
			defer s.client.Close()
			ids := make([]tx.ID, len(args))
			for i, text := range args {
				if ids[i], err = s.account(text); err != nil {
					return err
				}
			}
			if len(ids) > 1 {
				return s.balances(c.Context(), a, args, ids)
			}
			id := ids[0]
			st, err := s.proven(c.Context(), id)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(st)
			}
			if !st.Exists {
				return fmt.Errorf("account %s does not exist (proven after block %s of shard %d): check the id", id, number(uint64(st.StateHeight)), st.Where.Shard)
			}
			t := newTable()
			t.row("account", id.String())
			t.row("balance", number(st.Balance))
			t.row("transactions sent", number(st.Nonce))
			t.row("proven", fmt.Sprintf("after block %s of shard %d, by the root in final block %s", number(uint64(st.StateHeight)), st.Where.Shard, number(uint64(st.Where.Height))))
			t.write(a.stdout)
			return nil
		},
	})
}

// balances prints several accounts that were asked for by names.
func (s *session) balances(ctx context.Context, a *app, names []string, ids []tx.ID) error {
	all, err := s.provenAll(ctx, ids)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(all)
	}
	missing := 0
	t := newTable(2, 3, 4)
	t.row("name", "account", "balance", "sent", "shard", "proven after block")
	for i, st := range all {
		balance, sent := number(st.Balance), number(st.Nonce)
		if !st.Exists {
			missing++
			balance, sent = "does not exist", "-"
		}
		t.row(names[i], st.ID.String(), balance, sent, fmt.Sprint(st.Where.Shard), number(uint64(st.StateHeight)))
	}
	t.write(a.stdout)
	if missing > 0 {
		return fmt.Errorf("%d of these accounts do not exist: check the ids", missing)
	}
	return nil
}

// catchUp bounds the wait for a state root that trails the final block.
const catchUp = 5 * time.Second

// proven is the proven record of an account.
func (s *session) proven(ctx context.Context, id tx.ID) (*proof.AccountStatement, error) {
	all, err := s.provenAll(ctx, []tx.ID{id})
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// provenAll is the proven records of accounts. State roots trail by some blocks: while a node says that a record has
// changed since, it waits for the root that shows the change, up to catchUp.
func (s *session) provenAll(ctx context.Context, ids []tx.ID) ([]*proof.AccountStatement, error) {
	said := make([]api.Account, len(ids))
	for i, id := range ids {
		var err error
		if said[i], err = s.client.Account(ctx, id); err != nil && !errors.Is(err, &api.Error{Code: api.NotFound}) {
			return nil, err
		}
	}
	for limit := time.Now().Add(catchUp); ; {
		all, err := s.ask(ctx, ids)
		if err != nil && !errors.Is(err, &api.Error{Code: api.NotFinal}) {
			return nil, err
		}
		if err == nil && !slices.ContainsFunc(said, func(a api.Account) bool { return behind(all, a) }) || time.Now().After(limit) {
			return all, err
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// ask is the proven records of accounts now.
func (s *session) ask(ctx context.Context, ids []tx.ID) ([]*proof.AccountStatement, error) {
	if len(ids) == 1 {
		st, _, err := s.client.ProvenAccount(ctx, ids[0])
		return []*proof.AccountStatement{st}, err
	}
	all, _, err := s.client.ProvenAccounts(ctx, ids)
	return all, err
}

// behind reports whether all shows an account as it was before what a node says of it.
func behind(all []*proof.AccountStatement, said api.Account) bool {
	return slices.ContainsFunc(all, func(st *proof.AccountStatement) bool {
		return st.ID == said.ID && st.StateHeight < said.Height && (st.Balance != said.Balance || st.Nonce != said.Nonce)
	})
}

func walletAttachCommand(a *app, n *networkFlags) *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "attach NAME ACCOUNT|ID",
		Short: "Record an existing account as a wallet's, once it is proven to have the wallet's key",
		Example: `  tutti wallet attach alice ACCOUNT     after 'tutti keys import wallet', or for a genesis account
  tutti wallet attach alice ID          ID of an opening that was interrupted after it was sent`,
		Args: arguments("NAME", "ACCOUNT or ID"),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := n.open(a)
			if err != nil {
				return err
			}
			defer s.client.Close()
			store := keys.Store{Dir: s.home.Wallets()}
			e, err := store.Get(args[0])
			if err != nil {
				return err
			}
			account, err := s.attached(c.Context(), e, args[1])
			if err != nil {
				return err
			}
			if err := store.SetAccount(e.Name, account); err != nil {
				return err
			}
			if e, err = store.Get(args[0]); err != nil {
				return err
			}
			if a.json {
				return a.printJSON(describeWallet(e))
			}
			a.say("Wallet %s has account %s of shard %d.", e.Name, account.ID, account.Shard)
			return nil
		},
	})
}

// attached is the account that text names, by its own id or by that of its opening, proven to have the wallet's key.
func (s *session) attached(ctx context.Context, e keys.Entry, text string) (keys.Account, error) {
	var opening proof.Digest
	if opening.UnmarshalText([]byte(text)) == nil {
		p, _, err := s.client.Proof(ctx, tx.Hash(opening))
		if err != nil {
			return keys.Account{}, err
		}
		if err := outcome(p); err != nil {
			return keys.Account{}, err
		}
		return s.opened(ctx, p, e)
	}
	id, err := tx.ParseID(text)
	if err != nil {
		return keys.Account{}, usageError{err}
	}
	st, err := s.proven(ctx, id)
	if err != nil {
		return keys.Account{}, err
	}
	if !st.Exists || st.Key != proof.Digest(e.Key) {
		return keys.Account{}, fmt.Errorf("account %s does not have the key of wallet %q: check the id", id, e.Name)
	}
	return keys.Account{Genesis: s.hash, ID: id, Shard: uint16(st.Where.Shard)}, nil
}

// account finds an account by its id or by the name of a wallet.
func (s *session) account(text string) (tx.ID, error) {
	id, idErr := tx.ParseID(text)
	if idErr == nil && s.trust.ShardOf(id) == noShard {
		return 0, fmt.Errorf("account %s is in no shard of the network %q: check the id", id, s.genesis.Name)
	}
	if idErr == nil {
		return id, nil
	}
	store := keys.Store{Dir: s.home.Wallets()}
	if keys.CheckName(text) != nil {
		return 0, idErr
	}
	if _, err := os.Lstat(store.Path(text)); err != nil && len(text) == tx.TextBytes {
		return 0, idErr // looks like an id with a typing error
	}
	_, account, err := s.wallet(text)
	return account.ID, err
}

// wallet finds a wallet and its account on this network.
func (s *session) wallet(name string) (keys.Entry, keys.Account, error) {
	e, err := keys.Store{Dir: s.home.Wallets()}.Get(name)
	if err != nil {
		return e, keys.Account{}, err
	}
	account, ok := e.Account(s.hash)
	if !ok {
		return e, account, fmt.Errorf("wallet %q has no account on the network %q: open one with 'tutti wallet open %s --payer WALLET'", name, s.genesis.Name, name)
	}
	return e, account, nil
}

// receiptPath is where the proof of a transaction is kept.
func receiptPath(s *session, id tx.Hash) string {
	return filepath.Join(s.home.Receipts(), id.String()+".json")
}
