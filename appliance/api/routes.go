package api

import (
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/state/ledger"
	"tutti/state/tx"
)

//go:embed openapi.yaml
var openAPI []byte

// OpenAPI is the description of this API as GET /openapi.yaml serves it.
func OpenAPI() []byte { return slices.Clone(openAPI) }

// route is one entry of the API. An error that handle returns becomes the answer; handle must not have begun to
// answer then.
type route struct {
	Method  string
	Pattern string   // of net/http
	Query   []string // parameters that are known; others are refused
	Stream  bool     // stays open: takes a subscriber's place instead of a slot
	Always  bool     // answered whatever Options.Hold says
	handle  func(w http.ResponseWriter, r *http.Request) error
}

func (s *Server) routes() []route {
	out := []route{
		{Method: "POST", Pattern: "/v1/transactions", handle: s.submit},
		{Method: "POST", Pattern: "/v1/batches", handle: s.submitBatch},
		{Method: "GET", Pattern: "/v1/transactions/{id}", handle: s.transaction},
		{Method: "GET", Pattern: "/v1/transactions/{id}/proof", handle: s.finalityProof},
		{Method: "GET", Pattern: "/v1/transactions/{id}/credit", handle: s.creditProof},
		{Method: "POST", Pattern: "/v1/signers", handle: s.signers},
		{Method: "GET", Pattern: "/v1/accounts/{id}", handle: s.account},
		{Method: "GET", Pattern: "/v1/accounts/{id}/proof", handle: s.accountProof},
		{Method: "GET", Pattern: "/v1/accounts/proof", Query: []string{"id"}, handle: s.accountsProof},
		{Method: "GET", Pattern: "/v1/blocks/{height}", Query: []string{"ids"}, handle: s.block},
		{Method: "GET", Pattern: "/v1/blocks/{height}/raw", handle: s.rawBlock},
		{Method: "GET", Pattern: "/v1/finality", Query: []string{"ids", "body"}, Stream: true, handle: s.follow},
		{Method: "GET", Pattern: "/v1/evidence", Query: []string{"from", "limit"}, handle: s.evidence},
		{Method: "GET", Pattern: "/v1/handovers", Query: []string{"shard", "from", "limit"}, handle: s.handovers},
		{Method: "GET", Pattern: "/v1/status", Always: true, handle: s.status},
		{Method: "GET", Pattern: "/v1/network", handle: s.network},
		{Method: "GET", Pattern: "/v1/params", Always: true, handle: s.params},
		{Method: "GET", Pattern: "/v1/errors", Always: true, handle: s.codes},
		{Method: "GET", Pattern: "/v1/genesis", Always: true, handle: s.genesis},
		{Method: "GET", Pattern: "/v1/", Always: true, handle: nothingHere},
		{Method: "GET", Pattern: "/healthz", Always: true, handle: s.health},
		{Method: "GET", Pattern: "/readyz", Always: true, handle: s.ready},
		{Method: "GET", Pattern: "/openapi.yaml", Always: true, handle: s.describe},
	}
	if s.opt.Metrics != nil {
		out = append(out, route{Method: "GET", Pattern: "/metrics", Always: true, handle: func(w http.ResponseWriter, r *http.Request) error {
			s.opt.Metrics.ServeHTTP(w, r)
			return nil
		}})
	}
	return out
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.opt.Timeout)) // a test's recorder has none
	if err := s.limits.request(r); err != nil {
		s.refuse(w, r, "none", err)
		return
	}
	h, pattern := s.mux.Handler(r)
	if pattern != "" {
		s.mux.ServeHTTP(w, r)
		return
	}
	probe := &statusOnly{header: http.Header{}} // the mux's own answer: 404, or 405 with Allow
	h.ServeHTTP(probe, r)
	if probe.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", probe.header.Get("Allow"))
		s.refuse(w, r, "none", Refuse(MethodNotAllowed, "%s takes %s", r.URL.Path, probe.header.Get("Allow")))
		return
	}
	s.refuse(w, r, "none", Refuse(NotFound, "no such address"))
}

// statusOnly keeps the head of an answer and drops the rest.
type statusOnly struct {
	header http.Header
	status int
}

func (p *statusOnly) Header() http.Header         { return p.header }
func (p *statusOnly) WriteHeader(status int)      { p.status = status }
func (p *statusOnly) Write(b []byte) (int, error) { return len(b), nil }

// handler wraps a route in limits, metrics and the answer to errors.
func (s *Server) handler(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name := range r.URL.Query() {
			if !slices.Contains(rt.Query, name) {
				s.refuse(w, r, rt.Pattern, Refuse(UnknownParameter, "%.40q; known here: %q", name, rt.Query))
				return
			}
		}
		if s.opt.Hold != nil && !rt.Always {
			if err := s.opt.Hold(); err != nil {
				s.refuse(w, r, rt.Pattern, err)
				return
			}
		}
		if !rt.Stream {
			select {
			case s.slots <- struct{}{}:
				defer func() { <-s.slots }()
			default:
				s.refuse(w, r, rt.Pattern, &Error{Code: Busy, RetryAfter: time.Second})
				return
			}
			s.opt.Counters.InFlight.Inc()
			defer s.opt.Counters.InFlight.Dec()
			start := time.Now()
			defer func() { s.opt.Counters.Seconds.WithLabelValues(rt.Pattern).Observe(time.Since(start).Seconds()) }()
		}
		recorder := &statusRecorder{ResponseWriter: w, status: http.StatusOK}
		if err := rt.handle(recorder, r); err != nil {
			s.refuse(w, r, rt.Pattern, err)
			return
		}
		s.opt.Counters.Requests.WithLabelValues(rt.Pattern, strconv.Itoa(recorder.status)).Inc()
	})
}

// statusRecorder remembers the status for the metrics.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (w *statusRecorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController through.
func (w *statusRecorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// refuse answers with an error.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, pattern string, err error) {
	e, entry := describe(err)
	if entry.Code == Internal && r.Context().Err() == nil {
		s.opt.Log.Error("api request failed", "route", pattern, "err", err)
	} else {
		s.opt.Log.LogAttrs(r.Context(), slog.LevelDebug, "api request refused", slog.String("route", pattern), slog.Any("err", err))
	}
	s.opt.Counters.Refused.WithLabelValues(string(entry.Code)).Inc()
	s.opt.Counters.Requests.WithLabelValues(pattern, strconv.Itoa(entry.Status)).Inc()
	retryAfter(w, e, entry)
	_ = writeJSON(w, entry.Status, Answer{body(e, entry)}) // strings always encode
}

// retryAfter says when to come back, for the statuses that have an end.
func retryAfter(w http.ResponseWriter, e *Error, entry Refusal) {
	if wait := e.wait(entry); wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	}
}

// writeJSON writes one JSON answer with its newline.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	write(w, status, "application/json", append(b, '\n'))
	return nil
}

// write sends a whole answer. A failure means that the client is gone, and is its own business.
func write(w http.ResponseWriter, status int, contentType string, b []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(b)))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

func nothingHere(http.ResponseWriter, *http.Request) error {
	return Refuse(NotFound, "no such address")
}

func txID(r *http.Request) (id tx.Hash, err error) {
	var d proof.Digest
	if err := d.UnmarshalText([]byte(r.PathValue("id"))); err != nil {
		return id, Refuse(Malformed, "a transaction id has 64 hex digits: %v", err)
	}
	return tx.Hash(d), nil
}

func (s *Server) transaction(w http.ResponseWriter, r *http.Request) error {
	id, err := txID(r)
	if err != nil {
		return err
	}
	t, err := s.backend.Transaction(r.Context(), id)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, t)
}

func (s *Server) finalityProof(w http.ResponseWriter, r *http.Request) error {
	id, err := txID(r)
	if err != nil {
		return err
	}
	p, err := s.backend.Proof(r.Context(), id)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, p)
}

func (s *Server) creditProof(w http.ResponseWriter, r *http.Request) error {
	id, err := txID(r)
	if err != nil {
		return err
	}
	p, err := s.backend.Credit(r.Context(), id)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, p)
}

func accountID(r *http.Request) (tx.ID, error) {
	id, err := tx.ParseID(r.PathValue("id"))
	if err != nil {
		return 0, Refuse(Malformed, "%v", err)
	}
	return id, nil
}

func (s *Server) account(w http.ResponseWriter, r *http.Request) error {
	id, err := accountID(r)
	if err != nil {
		return err
	}
	a, err := s.backend.Account(r.Context(), id)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, a)
}

func (s *Server) accountProof(w http.ResponseWriter, r *http.Request) error {
	id, err := accountID(r)
	if err != nil {
		return err
	}
	p, err := s.backend.AccountProof(r.Context(), id)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, p)
}

// accountsProof takes ids in any order, and more than once.
func (s *Server) accountsProof(w http.ResponseWriter, r *http.Request) error {
	texts := r.URL.Query()["id"]
	if len(texts) == 0 {
		return Refuse(Malformed, "name the accounts: ?id=ACCOUNT&id=ACCOUNT")
	}
	if len(texts) > MaxProofAccounts {
		return Refuse(TooMany, "%d accounts, limit %d", len(texts), MaxProofAccounts)
	}
	ids := make([]tx.ID, len(texts))
	for i, text := range texts {
		var err error
		if ids[i], err = tx.ParseID(text); err != nil {
			return Refuse(Malformed, "%v", err)
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if n := ledger.ProofChunks(ids); n > MaxProofChunks {
		return Refuse(TooMany, "the accounts are in %d chunks of 4,096, limit %d", n, MaxProofChunks)
	}
	p, err := s.backend.AccountsProof(r.Context(), ids)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, p)
}

func (s *Server) blockOf(r *http.Request) (*proof.Block, error) {
	text := r.PathValue("height")
	height := uint64(s.backend.FinalHeight())
	if text != "latest" {
		var err error
		if height, err = strconv.ParseUint(text, 10, 64); err != nil {
			return nil, Refuse(Malformed, "%.40q is not a height: need a number or latest", text)
		}
	}
	return s.backend.Block(r.Context(), consensus.Height(height))
}

func (s *Server) rawBlock(w http.ResponseWriter, r *http.Request) error {
	b, err := s.blockOf(r)
	if err != nil {
		return err
	}
	write(w, http.StatusOK, "application/octet-stream", b.Append(nil))
	return nil
}

// Block is the answer of GET /v1/blocks/{height}.
type Block struct {
	Shard        consensus.ShardID `json:"shard"`
	Height       consensus.Height  `json:"height"`
	Hash         proof.Digest      `json:"hash"`
	Parent       proof.Digest      `json:"parent"`
	TimeMs       int64             `json:"time_ms"`
	Epoch        consensus.Epoch   `json:"epoch"`
	View         consensus.View    `json:"view"`
	Transactions int               `json:"transactions"`
	Succeeded    int               `json:"succeeded"`
	Consumed     int               `json:"consumed"` // receipts from other shards
	BodyBytes    int               `json:"body_bytes"`
	Outcomes     proof.Digest      `json:"outcomes"` // root
	StateRoot    proof.Digest      `json:"state_root"`
	StateHeight  consensus.Height  `json:"state_height"` // of the block after which StateRoot is
	Signers      []int             `json:"signers"`      // committee seats behind the certificate
	FinalisedBy  consensus.Height  `json:"finalised_by"` // height of the block that was voted final
	IDs          []proof.Digest    `json:"ids,omitempty"`
}

func (s *Server) block(w http.ResponseWriter, r *http.Request) error {
	ids, err := flag(r, "ids")
	if err != nil {
		return err
	}
	b, err := s.blockOf(r)
	if err != nil {
		return err
	}
	body, err := tx.DecodeBody(b.Body)
	if err != nil {
		return fmt.Errorf("stored body of a final block: %w", err)
	}
	h, last := b.Final.Header(), b.Final.Headers[len(b.Final.Headers)-1]
	out := Block{
		Shard: h.Shard, Height: h.Height, Hash: proof.Digest(h.Hash()), Parent: proof.Digest(h.Parent), TimeMs: h.TimeMs,
		Epoch: h.Epoch, View: h.View, Transactions: body.Len(), Consumed: len(b.Credits), BodyBytes: len(b.Body),
		Outcomes: proof.Digest(h.Outcomes), StateRoot: proof.Digest(h.State), StateHeight: proof.StateHeight(h),
		Signers: []int{}, FinalisedBy: last.Height,
	}
	for _, ok := range body.Outcomes {
		if ok {
			out.Succeeded++
		}
	}
	for i := range 8 * len(b.Final.Cert.Signers) {
		if b.Final.Cert.Signers.Has(i) {
			out.Signers = append(out.Signers, i)
		}
	}
	if ids {
		for _, id := range body.IDs(tx.Hash(h.Chain)) {
			out.IDs = append(out.IDs, proof.Digest(id))
		}
	}
	return writeJSON(w, http.StatusOK, out)
}

// flag reads a query parameter that is 1, 0 or not there.
func flag(r *http.Request, name string) (bool, error) {
	switch v := r.URL.Query()[name]; {
	case len(v) == 0 || len(v) == 1 && v[0] == "0":
		return false, nil
	case len(v) == 1 && v[0] == "1":
		return true, nil
	}
	return false, Refuse(Malformed, "%s must be 1 or 0, and given once", name)
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) error {
	v := s.backend.Status()
	v.FinalityHistogram, v.Validators, v.Links = present(v.FinalityHistogram), present(v.Validators), present(v.Links)
	v.Memory.Kinds = present(v.Memory.Kinds)
	if v.Sync != nil {
		v.Sync.Peers = present(v.Sync.Peers)
	}
	return writeJSON(w, http.StatusOK, v)
}

func (s *Server) evidence(w http.ResponseWriter, r *http.Request) error {
	from, err := count(r, "from", 0, math.MaxInt32)
	if err != nil {
		return err
	}
	limit, err := count(r, "limit", MaxEvidence, MaxEvidence)
	if err != nil {
		return err
	}
	e := s.backend.Evidence(from, limit)
	e.Proofs = append([]EvidenceProof{}, e.Proofs...)
	for i := range e.Proofs {
		e.Proofs[i].Validators = present(e.Proofs[i].Validators)
	}
	return writeJSON(w, http.StatusOK, e)
}

func (s *Server) handovers(w http.ResponseWriter, r *http.Request) error {
	if len(r.URL.Query()["shard"]) == 0 {
		return Refuse(Malformed, "name the shard: ?shard=0&from=0")
	}
	shard, err := number(r, "shard", 0, math.MaxUint16)
	if err != nil {
		return err
	}
	from, err := number(r, "from", 0, math.MaxInt64)
	if err != nil {
		return err
	}
	limit, err := count(r, "limit", MaxHandovers, MaxHandovers)
	if err != nil {
		return err
	}
	newest, list, err := s.backend.Handovers(r.Context(), consensus.ShardID(shard), consensus.Epoch(from), limit)
	if err != nil {
		return err
	}
	out := Handovers{Shard: consensus.ShardID(shard), From: consensus.Epoch(from), Newest: newest, Handovers: []Handover{}}
	for size, i := 0, 0; i < len(list) && size < maxHandoversBytes; i++ {
		h, b := list[i], list[i].End.Last
		enc := h.Append(nil)
		size += len(enc)
		out.Handovers = append(out.Handovers, Handover{
			Epoch: h.Epoch(), Height: b.Height, Block: proof.Digest(b.Hash()), Committee: proof.Digest(h.Next.Hash()),
			Validators: len(h.Next.Validators), Handover: enc,
		})
	}
	return writeJSON(w, http.StatusOK, out)
}

// count reads a query parameter that is a number up to most, or standard where it is not there.
func count(r *http.Request, name string, standard, most int) (int, error) {
	n, err := number(r, name, uint64(standard), uint64(most))
	return int(n), err
}

func number(r *http.Request, name string, standard, most uint64) (uint64, error) {
	v := r.URL.Query()[name]
	if len(v) == 0 {
		return standard, nil
	}
	n, err := strconv.ParseUint(v[0], 10, 63)
	if err != nil || len(v) > 1 || n > most {
		return 0, Refuse(Malformed, "%s must be a number from 0 to %d, and given once", name, most)
	}
	return n, nil
}

func (s *Server) network(w http.ResponseWriter, r *http.Request) error {
	n, err := s.backend.Network(r.Context())
	if err != nil {
		return err
	}
	n.Shards, n.APIs = append([]ShardStatus{}, n.Shards...), present(n.APIs)
	for i := range n.Shards {
		n.Shards[i].Validators = present(n.Shards[i].Validators)
	}
	return writeJSON(w, http.StatusOK, n)
}

// present makes an empty list show as [] in JSON, not as null.
func present[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func (s *Server) params(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, s.opt.Params)
}

func (s *Server) codes(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, refusals)
}

func (s *Server) genesis(w http.ResponseWriter, _ *http.Request) error {
	write(w, http.StatusOK, s.opt.GenesisType, s.opt.Genesis)
	return nil
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) error {
	write(w, http.StatusOK, "text/plain; charset=utf-8", []byte("ok\n"))
	return nil
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) error {
	if err := s.backend.Ready(); err != nil {
		var e *Error
		if errors.As(err, &e) {
			return e
		}
		return &Error{Code: NotReady, Detail: err.Error(), RetryAfter: time.Second}
	}
	write(w, http.StatusOK, "text/plain; charset=utf-8", []byte("ready\n"))
	return nil
}

func (s *Server) describe(w http.ResponseWriter, _ *http.Request) error {
	write(w, http.StatusOK, "application/yaml", openAPI)
	return nil
}

// hexList is a JSON array of hashes, without the cost of encoding/json.
func hexList(b []byte, hashes []tx.Hash) []byte {
	b = append(b, '[')
	for i := range hashes {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = hex.AppendEncode(b, hashes[i][:])
		b = append(b, '"')
	}
	return append(b, ']')
}
