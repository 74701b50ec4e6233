package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/bits"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"tutti/accel/bls"
	"tutti/appliance/api"
	"tutti/appliance/host"
	"tutti/appliance/keys"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/state/tx"
)

// payOptions are the flags of commands that sign a transaction.
type payOptions struct {
	feeClass     uint16
	expiry       uint32
	nonce        int64
	passwordFile string
}

func (o *payOptions) add(c *cobra.Command, passwordFlag string) {
	f := c.Flags()
	f.Uint16Var(&o.feeClass, "fee-class", 0, "fee class of the network to pay")
	f.Uint32Var(&o.expiry, "expiry", 300, "blocks from now after which the transaction can no longer execute")
	f.Int64Var(&o.nonce, "nonce", -1, "number of the transaction on the paying account (default: the next)")
	f.StringVar(&o.passwordFile, passwordFlag, "", "file with the password of the paying wallet, mode 0600 (default: the home folder's, else asked for)")
}

// payer is a wallet that is ready to sign.
type payer struct {
	account keys.Account
	state   api.Account // a node's word
	key     *keys.Secret
	fee     uint64
	expiry  uint32
	nonce   uint32
}

// payer opens the named wallet and asks the network for its account.
func (s *session) payer(ctx context.Context, a *app, name string, o payOptions) (*payer, error) {
	e, account, err := s.wallet(name)
	if err != nil {
		return nil, err
	}
	p := &payer{account: account}
	if p.fee, err = s.fee(o.feeClass); err != nil {
		return nil, err
	}
	if p.state, err = s.client.Account(ctx, account.ID); err != nil {
		return nil, err
	}
	if p.state.Key != proof.Digest(e.Key) {
		return nil, fmt.Errorf("account %s now belongs to another key than wallet %q: restore the wallet that has it", account.ID, name)
	}
	p.nonce = p.state.Nonce
	if o.nonce >= 0 {
		if o.nonce > math.MaxUint32 {
			return nil, usagef("--nonce %d: the highest is %d", o.nonce, uint32(math.MaxUint32))
		}
		p.nonce = uint32(o.nonce)
	}
	p.expiry = uint32(min(uint64(p.state.Height)+uint64(max(o.expiry, 1)), math.MaxUint32))
	k, err := keys.Store{Dir: s.home.Wallets()}.Keystore(name)
	if err != nil {
		return nil, err
	}
	password, err := a.password(passwordSource{flag: o.passwordFile, home: s.home.WalletPassword(), question: "Password of wallet " + name})
	if err != nil {
		return nil, err
	}
	if p.key, err = k.Open(password); err != nil {
		return nil, fmt.Errorf("%w (wallet %q)", err, name)
	}
	return p, nil
}

// afford fails if the account, as far as is known, cannot pay.
func (p *payer) afford(amount, more uint64) error {
	need, c1 := bits.Add64(amount, p.fee, 0)
	need, c2 := bits.Add64(need, more, 0)
	if c1+c2 > 0 || need > p.state.Balance {
		extra := ""
		if more > 0 {
			extra = fmt.Sprintf(" and a deposit of %s", number(more))
		}
		return fmt.Errorf("the account holds %s, which is less than %s and the fee of %s%s: send less", number(p.state.Balance), number(amount), number(p.fee), extra)
	}
	return nil
}

// sign completes and signs a transaction.
func (p *payer) sign(t tx.Tx, genesis tx.Hash) (*tx.Signed, error) {
	key, err := p.key.Ed25519()
	if err != nil {
		return nil, err
	}
	t.From, t.Nonce, t.Expiry = p.account.ID, p.nonce, p.expiry
	return &tx.Signed{Tx: t, Signature: key.Sign(t.Message(genesis))}, nil
}

// sent is what became of a transaction, for programs.
type sent struct {
	ID        proof.Digest  `json:"id"`
	Fee       uint64        `json:"fee,string"`
	ElapsedMs float64       `json:"elapsed_ms,omitempty"` // from sending to the verified proof
	ProofFile string        `json:"proof_file,omitempty"`
	Proven    *proof.Proven `json:"proven,omitempty"`  // absent when it was not waited for
	Account   *accountInfo  `json:"account,omitempty"` // that was opened
}

// sendWith sends a transfer through a broker where there is one and the account has a part in batches, and else on its own.
func (s *session) sendWith(ctx context.Context, p *payer, t *tx.Signed) error {
	if p.state.HasBLS && t.Kind == tx.Transfer {
		key, err := p.key.Batches()
		if err != nil {
			return err
		}
		if s.client.Distill(ctx, t, key) == nil {
			return nil
		}
	}
	return s.send(ctx, t)
}

// send sends a signed transaction.
func (s *session) send(ctx context.Context, t *tx.Signed) error {
	err := s.client.Submit(ctx, []tx.Signed{*t})[0]
	if err == nil || errors.As(err, new(*api.Error)) {
		return err
	}
	id := t.TxID(s.hash)
	return fmt.Errorf("no node has confirmed transaction %s (%w), but one may have it: before you send again, ask 'tutti wallet receipt %s'", id, err, id)
}

// pay sends a transaction and waits for its proof, which it saves in file, or under its id in the home folder.
func (s *session) pay(ctx context.Context, by *payer, t *tx.Signed, file string) (*sent, error) {
	id := t.TxID(s.hash)
	if file == "" {
		file = receiptPath(s, id)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { // before any money moves
		return nil, err
	}
	start := time.Now()
	if err := s.sendWith(ctx, by, t); err != nil {
		return nil, err
	}
	p, f, err := s.client.Await(ctx, t)
	elapsed := time.Since(start)
	if err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		return nil, fmt.Errorf("transaction %s was sent, but %w: before you send again, ask 'tutti wallet receipt %s'", id, err, id)
	}
	if err := saveProof(file, f); err != nil {
		return nil, fmt.Errorf("transaction %s is final, but its proof could not be saved (%w): make room, then 'tutti wallet receipt %s'", id, err, id)
	}
	return &sent{ID: p.ID, Fee: by.fee, ElapsedMs: ms(elapsed), Proven: p, ProofFile: file}, nil
}

// saveProof writes a proof file; one that is there already is replaced, since the new one says at least as much.
func saveProof(path string, f *proof.Finality) error {
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return host.ReplaceFile(path, append(b, '\n'), 0o644)
}

// outcome is nil if a final transaction did what it was to do.
func outcome(p *proof.Proven) error {
	switch {
	case !p.Success:
		return fmt.Errorf("transaction %s is final but was not executed: nothing was moved or paid, check balance and nonce with 'tutti wallet balance'", p.ID)
	case p.Credit != nil && p.Credit.Outcome != tx.Credited.String():
		return fmt.Errorf("transaction %s was paid, but the receiver %s does not exist in shard %d (%s): the amount goes back, the fee does not", p.ID, p.To, p.Credit.Where.Shard, p.Credit.Outcome)
	}
	return nil
}

// sayProven prints what a proof shows.
func (a *app) sayProven(p *proof.Proven) {
	a.say("Final: block %s of shard %d, signed by %d of %d validators (power %s of %s).", number(uint64(p.Where.Height)), p.Where.Shard,
		p.Quorum.Signers, p.Quorum.Of, number(uint64(p.Quorum.Power)), number(uint64(p.Quorum.Total)))
	switch {
	case p.Credit != nil:
		a.say("%s: block %s of shard %d.", map[bool]string{true: "Credited", false: "Not credited"}[p.Credit.Outcome == tx.Credited.String()],
			number(uint64(p.Credit.Where.Height)), p.Credit.Where.Shard)
	case p.CrossShard && p.Success:
		a.say("Credit: not shown yet; ask again with 'tutti wallet receipt %s'.", p.ID)
	}
}

func walletSendCommand(a *app, n *networkFlags) *cobra.Command {
	var o payOptions
	var wait bool
	var file string
	c := &cobra.Command{
		Use:   "send FROM TO AMOUNT",
		Short: "Pay AMOUNT from wallet FROM to an account or wallet TO, wait until it is final, keep the proof",
		Long: `Pay AMOUNT from wallet FROM to TO, an account id or the name of a wallet, in any shard.

By default the command returns when the payment is final, for another shard when the credit there is final too, and saves
the proof. Where nodes tell of a broker it goes through that, in a batch with others, and on its own if that takes too long; with
--wait=false it always goes on its own. Exit status 0 means: proven, and the receiver has the money.`,
		Example: `  tutti wallet send demo ACCOUNT 1,500
  tutti wallet send demo alice 100 --json
  tutti wallet send demo alice 100 --wait=false`,
		Args: arguments("FROM", "TO", "AMOUNT"),
		RunE: func(c *cobra.Command, args []string) error {
			amount, err := parseAmount(args[2])
			if err != nil {
				return err
			}
			s, err := n.open(a)
			if err != nil {
				return err
			}
			defer s.client.Close()
			to, err := s.account(args[1])
			if err != nil {
				return err
			}
			p, err := s.payer(c.Context(), a, args[0], o)
			if err != nil {
				return err
			}
			if to == p.account.ID {
				return errors.New("payer and receiver are the same account: name another receiver")
			}
			if err := p.afford(amount, 0); err != nil {
				return err
			}
			t, err := p.sign(tx.Tx{Kind: tx.Transfer, To: to, Amount: amount, FeeClass: o.feeClass}, s.hash)
			if err != nil {
				return err
			}
			if !wait {
				return a.sendOnly(c.Context(), s, t, p.fee)
			}
			r, err := s.pay(c.Context(), p, t, file)
			if err != nil {
				return err
			}
			return a.saySent(r, fmt.Sprintf("%s from %s to %s, fee %s", number(amount), p.account.ID, to, number(p.fee)))
		},
	}
	o.add(c, "password-file")
	c.Flags().BoolVar(&wait, "wait", true, "wait until the payment is final and save its proof")
	c.Flags().StringVar(&file, "proof", "", "file to save the proof in (default: receipts/ID.json in the home folder)")
	return a.jsonFlag(c)
}

// sendOnly sends without waiting.
func (a *app) sendOnly(ctx context.Context, s *session, t *tx.Signed, fee uint64) error {
	if err := s.send(ctx, t); err != nil {
		return err
	}
	id := t.TxID(s.hash)
	if a.json {
		return a.printJSON(sent{ID: proof.Digest(id), Fee: fee})
	}
	a.say("Sent %s. Not final yet: 'tutti wallet receipt %s' tells more.", id, id)
	return nil
}

// saySent prints a final payment; its error is the payment's.
func (a *app) saySent(r *sent, what string) error {
	if a.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
		return outcome(r.Proven)
	}
	if err := outcome(r.Proven); err != nil {
		a.say("Proof: %s", r.ProofFile)
		return err
	}
	a.say("%s after %s ms: %s", a.colour(good, "Final"), number(int(math.Round(r.ElapsedMs))), what)
	a.sayProven(r.Proven)
	a.say("Proof: %s", r.ProofFile)
	return nil
}

// openOptions are the flags of commands that open an account.
type openOptions struct {
	payOptions
	payer  string
	amount string
}

func (o *openOptions) add(c *cobra.Command) {
	c.Flags().StringVar(&o.payer, "payer", "", "wallet that pays amount, deposit and fee")
	c.Flags().StringVar(&o.amount, "amount", "1", "opening balance of the new account")
	o.payOptions.add(c, "payer-password-file")
}

func walletOpenCommand(a *app, n *networkFlags) *cobra.Command {
	var o openOptions
	c := &cobra.Command{
		Use:   "open NAME --payer WALLET",
		Short: "Open the account of a wallet, in the shard of the wallet that pays for it",
		Example: `  tutti wallet open alice --payer demo
  tutti wallet open alice --payer demo --amount 5,000`,
		Args: arguments("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			if o.payer == "" {
				return usagef("--payer WALLET is missing: an opening is paid by an existing account")
			}
			return a.openAccount(c.Context(), n, args[0], o)
		},
	}
	o.add(c)
	return a.jsonFlag(c)
}

// openAccount pays for the opening of a wallet's account, waits, and records the account's id, proven to have the
// wallet's key.
func (a *app) openAccount(ctx context.Context, n *networkFlags, name string, o openOptions) error {
	amount, err := parseAmount(o.amount)
	if err != nil {
		return err
	}
	s, err := n.open(a)
	if err != nil {
		return err
	}
	defer s.client.Close()
	store := keys.Store{Dir: s.home.Wallets()}
	e, err := store.Get(name)
	if err != nil {
		return err
	}
	if account, ok := e.Account(s.hash); ok {
		return fmt.Errorf("wallet %q already has the account %s on this network", name, account.ID)
	}
	p, err := s.payer(ctx, a, o.payer, o.payOptions)
	if err != nil {
		return err
	}
	if err := p.afford(amount, s.genesis.Parameters.OpenDeposit); err != nil {
		return err
	}
	t, err := p.sign(tx.Tx{Kind: tx.Open, Amount: amount, FeeClass: o.feeClass, Key: e.Key, BLS: a.batchKey(s, store, e)}, s.hash)
	if err != nil {
		return err
	}
	r, err := s.pay(ctx, p, t, "")
	if err != nil {
		return err
	}
	if err := outcome(r.Proven); err != nil {
		return err
	}
	account, err := s.opened(ctx, r.Proven, e)
	if err != nil {
		return err
	}
	if err := store.SetAccount(name, account); err != nil {
		return fmt.Errorf("account %s is open and paid, but could not be recorded (%w): 'tutti wallet attach %s %s' tries again", account.ID, err, name, account.ID)
	}
	r.Account = &accountInfo{proof.Digest(account.Genesis), account.ID, consensus.ShardID(account.Shard)}
	return a.saySent(r, fmt.Sprintf("account %s of wallet %s with %s, fee %s, deposit %s", account.ID, name, number(amount), number(p.fee), number(s.genesis.Parameters.OpenDeposit)))
}

// batchKey is the BLS key of a wallet for the opening of its account; nil if the wallet can't be opened: then its account has no part
// in batches, ever.
func (a *app) batchKey(s *session, store keys.Store, e keys.Entry) *tx.BLSKey {
	key, err := a.openBatchKey(s, store, e)
	if err != nil {
		fmt.Fprintf(a.stderr, "tutti: the account of wallet %q is opened without a key for batches: %s\n", e.Name, oneLine(err))
		return nil
	}
	out := &tx.BLSKey{Key: key.Public()}
	out.Possession = key.ProvePossession(tx.PossessionMessage(s.hash, e.Key, out.Key))
	return out
}

func (a *app) openBatchKey(s *session, store keys.Store, e keys.Entry) (*bls.SecretKey, error) {
	k, err := store.Keystore(e.Name)
	if err != nil {
		return nil, err
	}
	password, err := a.password(passwordSource{home: s.home.WalletPassword(), question: "Password of wallet " + e.Name})
	if err != nil {
		return nil, err
	}
	secret, err := k.Open(password)
	if err != nil {
		return nil, err
	}
	return secret.Batches()
}

// askAgain is the pause between questions while a state root catches up with a block.
const askAgain = 200 * time.Millisecond

// opened learns from a node which account an opening made, and believes it once the account is proven to have the key.
func (s *session) opened(ctx context.Context, p *proof.Proven, e keys.Entry) (keys.Account, error) {
	later := fmt.Sprintf("it is paid, so do not open again: 'tutti wallet attach %s %s' asks once more", e.Name, p.ID)
	for {
		t, err := s.client.Transaction(ctx, p.Where.Shard, tx.Hash(p.ID))
		if err != nil {
			return keys.Account{}, fmt.Errorf("%w: %s", err, later)
		}
		if t.Opened == nil {
			return keys.Account{}, fmt.Errorf("opening %s is final, but the node does not say which account it made: %s", p.ID, later)
		}
		st, _, err := s.client.ProvenAccount(ctx, *t.Opened)
		switch {
		case err == nil && st.Exists && st.Key == proof.Digest(e.Key):
			return keys.Account{Genesis: s.hash, ID: *t.Opened, Shard: uint16(p.Where.Shard)}, nil
		case err == nil && st.StateHeight >= p.Where.Height:
			return keys.Account{}, fmt.Errorf("the node named account %s, which is proven not to have the key of wallet %q: %s, of another node", *t.Opened, e.Name, later)
		case err != nil && !errors.Is(err, &api.Error{Code: api.NotFound}) && !errors.Is(err, &api.Error{Code: api.NotFinal}):
			return keys.Account{}, fmt.Errorf("%w: %s", err, later)
		}
		select { // the root trails by some blocks
		case <-time.After(askAgain):
		case <-ctx.Done():
			return keys.Account{}, fmt.Errorf("interrupted: %s", later)
		}
	}
}

func walletReceiptCommand(a *app, n *networkFlags) *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "receipt FILE|ID",
		Short: "Check the proof of a payment against the genesis file, offline; fetch and keep it first if need be",
		Long: `Check the proof of a payment against the genesis file, offline; fetch and keep it first if need be.

A FILE is checked without any network. If it is of a later epoch than the genesis', the state of 'tutti light sync' is needed
as well: light.json in the home folder, or what --light names. For an ID the proof kept in the home folder is checked; if there is none yet, or
the credit in another shard is still missing in it, it is fetched from a node.`,
		Example: `  tutti wallet receipt payment.json --genesis genesis.json
  tutti wallet receipt payment.json --genesis genesis.json --light light.json
  tutti wallet receipt ID`,
		Args: arguments("FILE or ID"),
		RunE: func(c *cobra.Command, args []string) error {
			h, err := a.home()
			if err != nil {
				return err
			}
			net, err := n.load(h)
			if err != nil {
				return err
			}
			s := &session{network: net, home: h}
			var id proof.Digest
			path, fetch := args[0], false
			if id.UnmarshalText([]byte(args[0])) == nil {
				path, fetch = receiptPath(s, tx.Hash(id)), true
			}
			p, err := checkReceipt(path, net.trust)
			if fetch && (errors.Is(err, fs.ErrNotExist) || err == nil && !p.Settled) {
				p, err = s.fetchReceipt(c.Context(), n, tx.Hash(id), path)
			}
			if err != nil {
				return err
			}
			return a.sayReceipt(p, path)
		},
	})
}

// checkReceipt reads a proof file and verifies it. Nothing but the file and the genesis is used.
func checkReceipt(path string, trust *proof.Trust) (*proof.Proven, error) {
	b, err := readBounded(path, proof.MaxFileBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: give a proof file or a transaction id of 64 hex digits", err)
	}
	if err != nil {
		return nil, err
	}
	f, err := proof.DecodeFinality(b)
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, path)
	}
	p, err := f.Verify(trust)
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", withRemedy(err), path)
	}
	return p, nil
}

// fetchReceipt gets a proof from the network, keeps it, and checks what it kept.
func (s *session) fetchReceipt(ctx context.Context, n *networkFlags, id tx.Hash, path string) (*proof.Proven, error) {
	c, err := n.client(s.home, s.trust)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_, f, err := c.Proof(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("no proof of %s: %w", id, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := saveProof(path, f); err != nil {
		return nil, err
	}
	return checkReceipt(path, s.trust)
}

// sayReceipt prints a verified proof; its error is the payment's.
func (a *app) sayReceipt(p *proof.Proven, path string) error {
	if a.json {
		if err := a.printJSON(sent{ID: p.ID, ProofFile: path, Proven: p}); err != nil {
			return err
		}
		return outcome(p)
	}
	a.say("%s: %s %s", a.colour(good, "Proven"), p.Kind, p.ID)
	t := newTable()
	t.row("from", p.From.String())
	if p.To != nil {
		t.row("to", p.To.String())
	}
	t.row("amount", number(p.Amount))
	t.row("nonce", number(p.Nonce))
	t.row("block time", time.UnixMilli(p.Where.TimeMs).UTC().Format("2006-01-02 15:04:05.000 UTC"))
	t.write(a.stdout)
	a.sayProven(p)
	return outcome(p)
}
