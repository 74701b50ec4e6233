package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"tutti/appliance/proof"
	"tutti/state/pool"
	"tutti/state/tx"
)

// Units is an amount of money. In JSON it is a decimal string, because numbers above 2^53 do not survive every
// reader; a plain integer is taken as well.
type Units uint64

// MarshalJSON writes a decimal string.
func (u Units) MarshalJSON() ([]byte, error) {
	return append(strconv.AppendUint([]byte{'"'}, uint64(u), 10), '"'), nil
}

// UnmarshalJSON reads a decimal string or an integer.
func (u *Units) UnmarshalJSON(b []byte) error {
	text := string(b)
	if len(text) >= 2 && text[0] == '"' && text[len(text)-1] == '"' {
		text = text[1 : len(text)-1]
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return fmt.Errorf("%.40s is not an amount: need a whole number from 0 to 18446744073709551615", b)
	}
	*u = Units(n)
	return nil
}

// SubmitTransaction is a signed transaction as people write it. All fields of its kind are needed but fee_class.
type SubmitTransaction struct {
	Kind      string        `json:"kind"` // "transfer" or "open"
	From      *tx.ID        `json:"from"`
	To        *tx.ID        `json:"to,omitempty"` // transfer
	Amount    *Units        `json:"amount"`
	Nonce     *uint32       `json:"nonce"`
	Expiry    *uint32       `json:"expiry"` // block height
	FeeClass  uint16        `json:"fee_class,omitempty"`
	Key       *proof.Digest `json:"key,omitempty"`       // open: Ed25519 key of the new account
	BLSKey    proof.Hex     `json:"bls_key,omitempty"`   // open, if the account has one
	BLSProof  proof.Hex     `json:"bls_proof,omitempty"` // its proof of possession
	Signature proof.Hex     `json:"signature"`
}

// Describe is the form of a signed transaction for people.
func Describe(t *tx.Signed) SubmitTransaction {
	amount := Units(t.Amount)
	out := SubmitTransaction{
		Kind: t.Kind.String(), From: &t.From, Amount: &amount, Nonce: &t.Nonce, Expiry: &t.Expiry,
		FeeClass: t.FeeClass, Signature: t.Signature[:],
	}
	switch t.Kind {
	case tx.Transfer:
		out.To = &t.To
	case tx.Open:
		out.Key = (*proof.Digest)(&t.Key)
		if t.BLS != nil {
			out.BLSKey, out.BLSProof = t.BLS.Key[:], t.BLS.Possession[:]
		}
	}
	return out
}

// Signed is the transaction that s describes. The error is an *Error that names the field.
func (s *SubmitTransaction) Signed() (t tx.Signed, err error) {
	missing := func(is bool, name string) {
		if is && err == nil {
			err = Refuse(Malformed, "field %q is missing", name)
		}
	}
	needless := func(is bool, name string) {
		if is && err == nil {
			err = Refuse(Malformed, "field %q does not belong to kind %q", name, s.Kind)
		}
	}
	sized := func(to []byte, from proof.Hex, name string) {
		if copy(to, from) != len(to) || len(from) != len(to) {
			if err == nil {
				err = Refuse(Malformed, "field %q needs %d hex digits, it has %d", name, 2*len(to), 2*len(from))
			}
		}
	}
	missing(s.From == nil, "from")
	missing(s.Amount == nil, "amount")
	missing(s.Nonce == nil, "nonce")
	missing(s.Expiry == nil, "expiry")
	missing(s.Signature == nil, "signature")
	switch s.Kind {
	case "transfer":
		t.Kind = tx.Transfer
		missing(s.To == nil, "to")
		needless(s.Key != nil, "key")
		needless(s.BLSKey != nil, "bls_key")
		needless(s.BLSProof != nil, "bls_proof")
	case "open":
		t.Kind = tx.Open
		missing(s.Key == nil, "key")
		needless(s.To != nil, "to")
	default:
		return t, Refuse(Malformed, "field \"kind\" is %.20q: need \"transfer\" or \"open\"", s.Kind)
	}
	sized(t.Signature[:], s.Signature, "signature")
	if s.BLSKey != nil || s.BLSProof != nil {
		t.BLS = new(tx.BLSKey)
		sized(t.BLS.Key[:], s.BLSKey, "bls_key")
		sized(t.BLS.Possession[:], s.BLSProof, "bls_proof")
	}
	if err != nil {
		return t, err
	}
	t.From, t.Amount, t.Nonce, t.Expiry, t.FeeClass = *s.From, uint64(*s.Amount), *s.Nonce, *s.Expiry, s.FeeClass
	if s.To != nil {
		t.To = *s.To
	}
	if s.Key != nil {
		t.Key = *s.Key
	}
	return t, nil
}

// SubmitAnswer is the answer of POST /v1/transactions to a JSON array or to binary. Results has an entry for each
// transaction in order; after binary it has those refused only, without id, message and remedy, and those in a row that are
// refused with the same words share one entry, lest a node that is offered several times what it can take spend itself on answers.
type SubmitAnswer struct {
	Accepted int      `json:"accepted"`
	Refused  int      `json:"refused"`
	Results  []Result `json:"results"`
}

// Result is what became of one transaction. It is the whole answer to a single JSON object.
type Result struct {
	Index    int          `json:"index"`
	Count    int          `json:"count,omitempty"` // how many in a row from Index it stands for; 0 is 1
	ID       proof.Digest `json:"id,omitzero"`
	Accepted bool         `json:"accepted"`
	Error    *ErrorBody   `json:"error,omitempty"`
}

// submit takes transactions. The call fails as a whole, with nothing submitted, if it can't be read or is over a
// limit; otherwise each transaction has its own result.
func (s *Server) submit(w http.ResponseWriter, r *http.Request) error {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/json" && mediaType != "application/octet-stream" {
		return Refuse(UnsupportedType, "it is %.60q", r.Header.Get("Content-Type"))
	}
	raw, err := s.read(w, r, s.opt.MaxBodyBytes)
	if err != nil {
		return err
	}
	var txs []tx.Signed
	single, binary := false, mediaType == "application/octet-stream"
	if binary {
		txs, err = decodeBinary(raw)
	} else {
		txs, single, err = decodeJSON(raw)
	}
	if err != nil {
		return err
	}
	if err := s.limits.transactions(r, len(txs)); err != nil {
		return err
	}
	verdicts := s.backend.Submit(r.Context(), s.limits.source(r), txs)
	if len(verdicts) != len(txs) {
		return fmt.Errorf("backend gave %d verdicts for %d transactions", len(verdicts), len(txs))
	}
	return s.answer(w, txs, verdicts, single, binary)
}

func (s *Server) answer(w http.ResponseWriter, txs []tx.Signed, verdicts []error, single, binary bool) error {
	out := SubmitAnswer{Results: []Result{}}
	codes := map[Code]int{}
	status := http.StatusAccepted
	for i, verdict := range verdicts {
		if pool.Pooled(verdict) {
			verdict = nil
			out.Accepted++
			if binary {
				continue
			}
		}
		res := Result{Index: i, Accepted: verdict == nil}
		if verdict != nil {
			out.Refused++
			e, entry := describe(verdict)
			if entry.Code == Internal {
				s.opt.Log.Error("submit failed", "err", verdict)
			}
			if status = entry.Status; single {
				retryAfter(w, e, entry)
			}
			codes[entry.Code]++
			b := body(e, entry)
			if binary {
				b = ErrorBody{Code: b.Code, Detail: b.Detail, RetryAfterMs: b.RetryAfterMs}
				if out.extend(i, b) {
					continue
				}
			}
			res.Error = &b
		}
		if !binary {
			res.ID = proof.Digest(txs[i].TxID(tx.Hash(s.opt.Params.Genesis)))
		}
		out.Results = append(out.Results, res)
	}
	s.opt.Counters.Transactions.WithLabelValues("accepted").Add(float64(out.Accepted))
	for code, n := range codes {
		s.opt.Counters.Transactions.WithLabelValues(string(code)).Add(float64(n))
	}
	if single {
		return writeJSON(w, status, out.Results[0])
	}
	return writeJSON(w, http.StatusOK, out)
}

// extend has the last result stand for transaction i as well, if that is the next one and has the same refusal.
func (a *SubmitAnswer) extend(i int, b ErrorBody) bool {
	if len(a.Results) == 0 {
		return false
	}
	last := &a.Results[len(a.Results)-1]
	if n := max(1, last.Count); last.Index+n == i && *last.Error == b {
		last.Count = n + 1
		return true
	}
	return false
}

func decodeBinary(raw []byte) ([]tx.Signed, error) {
	if len(raw) > MaxTransactions*tx.MaxTxBytes {
		return nil, Refuse(TooMany, "over %d bytes", MaxTransactions*tx.MaxTxBytes)
	}
	txs, err := tx.DecodeMany(raw, MaxTransactions+1)
	switch {
	case err != nil:
		return nil, Refuse(Malformed, "%v", err)
	case len(txs) > MaxTransactions:
		return nil, Refuse(TooMany, "limit %d", MaxTransactions)
	case len(txs) == 0:
		return nil, Refuse(Malformed, "there is no transaction in it")
	}
	return txs, nil
}

// decodeJSON reads one object, or an array of at most MaxTransactions.
func decodeJSON(raw []byte) (txs []tx.Signed, single bool, err error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	single = !strings.HasPrefix(strings.TrimLeft(string(raw[:min(len(raw), 64)]), " \t\r\n"), "[")
	if !single {
		if _, err := d.Token(); err != nil {
			return nil, false, jsonError(err, 0)
		}
	}
	for single && len(txs) == 0 || !single && d.More() {
		if len(txs) == MaxTransactions {
			return nil, false, Refuse(TooMany, "limit %d", MaxTransactions)
		}
		var in SubmitTransaction
		if err := d.Decode(&in); err != nil {
			return nil, false, jsonError(err, len(txs))
		}
		t, err := in.Signed()
		if e := (*Error)(nil); errors.As(err, &e) {
			return nil, false, Refuse(e.Code, "transaction %d: %s", len(txs), e.Detail)
		}
		txs = append(txs, t)
	}
	if !single {
		if _, err := d.Token(); err != nil {
			return nil, false, jsonError(err, len(txs))
		}
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, false, Refuse(Malformed, "there is something after the end of the JSON")
	}
	if len(txs) == 0 {
		return nil, false, Refuse(Malformed, "there is no transaction in it")
	}
	return txs, single, nil
}

// jsonError turns an error of encoding/json into a refusal that names the field.
func jsonError(err error, at int) error {
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return Refuse(UnknownField, "transaction %d: %s", at, name)
	}
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		return Refuse(Malformed, "transaction %d: field %q can not be a %s", at, wrong.Field, wrong.Value)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return Refuse(Malformed, "transaction %d: the JSON ends early", at)
	}
	return Refuse(Malformed, "transaction %d: %v", at, err)
}
