package api_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"tutti/appliance/api"
	"tutti/appliance/api/apitest"
	"tutti/appliance/proof"
	"tutti/appliance/proof/prooftest"
	"tutti/state/pool"
	"tutti/state/tx"
)

const (
	asJSON   = "application/json"
	asBinary = "application/octet-stream"
)

func object(t *testing.T, s *tx.Signed, edit func(map[string]any)) []byte {
	t.Helper()
	b, err := json.Marshal(api.Describe(s))
	if err != nil {
		t.Fatal(err)
	}
	if edit == nil {
		return b
	}
	m := map[string]any{}
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	edit(m)
	if b, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	return b
}

func opening(w *world, withBLS bool) tx.Signed {
	t := tx.Signed{Tx: tx.Tx{Kind: tx.Open, From: w.net.Account(0, 1), Amount: 1 << 63, Nonce: 2, Expiry: 9, FeeClass: 3}}
	t.Key[0], t.Signature[63] = 7, 9
	if withBLS {
		t.BLS = &tx.BLSKey{Key: [48]byte{1: 5}, Possession: [96]byte{2: 6}}
	}
	return t
}

func TestSubmitJSON(t *testing.T) {
	d := load(t)
	_, w := start(t, nil)
	for name, s := range map[string]tx.Signed{"transfer": w.across, "open": opening(w, false), "open with BLS key": opening(w, true)} {
		t.Run(name, func(t *testing.T) {
			before := len(w.backend.Submitted())
			b := object(t, &s, nil)
			var v any
			if err := json.Unmarshal(b, &v); err != nil {
				t.Fatal(err)
			}
			if err := d.check(d.Components.Schemas["SubmitTransaction"], v, name); err != nil {
				t.Error(err)
			}
			a := w.do(t, "POST", "/v1/transactions", asJSON+"; charset=utf-8", b)
			if got := decode[api.Result](t, a); a.status != 202 || !got.Accepted || tuttiID(w, s) != got.ID {
				t.Fatalf("%d %s", a.status, a.body)
			}
			d.checkAnswer(t, "POST", "/v1/transactions", "202", a.body)
			if got := w.backend.Submitted()[before:]; len(got) != 1 || !reflect.DeepEqual(got[0], s) {
				t.Errorf("the node got %+v, sent was %+v", got, s)
			}
		})
	}
	number := object(t, &w.across, func(m map[string]any) { m["amount"] = 25 })
	if a := w.do(t, "POST", "/v1/transactions", asJSON, number); a.status != 202 {
		t.Errorf("an amount as a number: %d %s", a.status, a.body)
	}
}

func tuttiID(w *world, s tx.Signed) proof.Digest { return proof.Digest(w.net.ID(s)) }

func TestSubmitMany(t *testing.T) {
	d := load(t)
	_, w := start(t, nil)
	w.backend.Judge = func(s tx.Signed) error {
		switch s.Nonce {
		case 1:
			return &pool.Reject{Code: pool.NonceGap, Detail: "nonce 1, next is 0"}
		case 2:
			return &pool.Reject{Code: pool.PoolFull, Detail: "200000 transactions", RetryAfter: 1500 * time.Millisecond}
		case 3:
			return &pool.Reject{Code: pool.Duplicate}
		case 4:
			return fmt.Errorf("secret: %d", 42)
		}
		return nil
	}
	var list []json.RawMessage
	var wire []byte
	for nonce := range 5 {
		s := w.net.Transfer(w.net.Account(0, 1), w.net.Account(0, 2), 1, uint32(nonce))
		list = append(list, object(t, &s, nil))
		wire = s.Append(wire)
	}
	b, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("json", func(t *testing.T) {
		a := w.do(t, "POST", "/v1/transactions", asJSON, append([]byte(" \n"), b...))
		d.checkAnswer(t, "POST", "/v1/transactions", "200", a.body)
		got := decode[api.SubmitAnswer](t, a)
		if a.status != 200 || got.Accepted != 2 || got.Refused != 3 || len(got.Results) != 5 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		for i, code := range []api.Code{"", api.NonceGap, api.PoolFull, "", api.Internal} {
			r := got.Results[i]
			if r.Index != i || r.Accepted != (code == "") || (r.Error != nil) != (code != "") {
				t.Errorf("%d: %+v", i, r)
			} else if wait := map[api.Code]int64{api.PoolFull: 1500, api.Internal: 0, api.NonceGap: 0}[code]; code != "" && r.Error.RetryAfterMs != wait {
				t.Errorf("%d: wait %d ms, want %d", i, r.Error.RetryAfterMs, wait)
			} else if code != "" && (r.Error.Code != code || r.Error.Remedy == "" || strings.Contains(r.Error.Detail, "secret")) {
				t.Errorf("%d: %+v", i, r.Error)
			}
		}
	})
	t.Run("binary", func(t *testing.T) {
		a := w.do(t, "POST", "/v1/transactions", asBinary, wire)
		d.checkAnswer(t, "POST", "/v1/transactions", "200", a.body)
		got := decode[api.SubmitAnswer](t, a)
		if a.status != 200 || got.Accepted != 2 || got.Refused != 3 || len(got.Results) != 3 || got.Results[0].Index != 1 || got.Results[1].Error.RetryAfterMs != 1500 || got.Results[0].Error.RetryAfterMs != 0 || got.Results[2].Error.Code != api.Internal {
			t.Fatalf("%d %s", a.status, a.body)
		}
	})
	t.Run("many of a kind", func(t *testing.T) {
		var wire []byte
		for _, nonce := range []uint32{2, 2, 2, 0, 2, 1, 2, 2} {
			s := w.net.Transfer(w.net.Account(0, 1), w.net.Account(0, 2), 1, nonce)
			wire = s.Append(wire)
		}
		a := w.do(t, "POST", "/v1/transactions", asBinary, wire)
		d.checkAnswer(t, "POST", "/v1/transactions", "200", a.body)
		var short []string
		for _, r := range decode[api.SubmitAnswer](t, a).Results {
			short = append(short, fmt.Sprintf("%d+%d %s", r.Index, r.Count, r.Error.Code))
		}
		if got := strings.Join(short, ", "); got != "0+3 pool_full, 4+0 pool_full, 5+0 nonce_gap, 6+2 pool_full" || strings.Contains(string(a.body), `"id"`) {
			t.Errorf("%s: %s", got, a.body)
		}
	})
	t.Run("single", func(t *testing.T) {
		a := w.do(t, "POST", "/v1/transactions", asJSON, list[1])
		if got := decode[api.Result](t, a); a.status != 409 || got.Error.Code != api.NonceGap || got.Error.Detail != "nonce 1, next is 0" {
			t.Errorf("%d %s", a.status, a.body)
		}
		if a := w.do(t, "POST", "/v1/transactions", asJSON, list[2]); a.status != 503 || a.header.Get("Retry-After") != "2" || decode[api.Result](t, a).Error.RetryAfterMs != 1500 {
			t.Errorf("%d %s %v", a.status, a.body, a.header)
		}
	})
}

func TestSubmitRefused(t *testing.T) {
	d := load(t)
	_, w := start(t, nil)
	good, open := w.across, opening(w, true)
	wire := good.Append(nil)
	with := func(s *tx.Signed, name string, v any) []byte {
		return object(t, s, func(m map[string]any) {
			if m[name] = v; v == nil {
				delete(m, name)
			}
		})
	}
	for name, tc := range map[string]struct {
		contentType string
		body        []byte
		code        api.Code
		detail      string
	}{
		"no type":             {"", wire, api.UnsupportedType, `""`},
		"text":                {"text/plain", wire, api.UnsupportedType, "text/plain"},
		"form":                {"application/x-www-form-urlencoded", wire, api.UnsupportedType, ""},
		"empty binary":        {asBinary, nil, api.Malformed, "no transaction"},
		"cut binary":          {asBinary, wire[:90], api.Malformed, "at transaction 0"},
		"half a second":       {asBinary, append(wire[:len(wire):len(wire)], 1, 2), api.Malformed, "at transaction 1"},
		"unknown kind":        {asBinary, append([]byte{9}, wire[1:]...), api.Malformed, "unknown kind 9"},
		"too many":            {asBinary, bytes.Repeat(wire, api.MaxTransactions+1), api.TooMany, "4096"},
		"too large":           {asJSON, bytes.Repeat([]byte(" "), 2<<20+1), api.TooLarge, "2097152"},
		"empty json":          {asJSON, nil, api.Malformed, "ends early"},
		"empty array":         {asJSON, []byte("[]"), api.Malformed, "no transaction"},
		"null":                {asJSON, []byte("null"), api.Malformed, "kind"},
		"text in json":        {asJSON, []byte(`"hello"`), api.Malformed, "can not be a string"},
		"broken json":         {asJSON, []byte(`{"kind":`), api.Malformed, "ends early"},
		"broken array":        {asJSON, append([]byte("["), object(t, &good, nil)...), api.Malformed, "ends early"},
		"two objects":         {asJSON, append(object(t, &good, nil), object(t, &good, nil)...), api.Malformed, "after the end"},
		"unknown field":       {asJSON, with(&good, "fee", 1), api.UnknownField, `"fee"`},
		"unknown, second":     {asJSON, []byte("[" + string(object(t, &good, nil)) + "," + string(with(&good, "fee", 1)) + "]"), api.UnknownField, "transaction 1"},
		"no kind":             {asJSON, with(&good, "kind", nil), api.Malformed, "kind"},
		"no from":             {asJSON, with(&good, "from", nil), api.Malformed, `"from" is missing`},
		"no to":               {asJSON, with(&good, "to", nil), api.Malformed, `"to" is missing`},
		"no amount":           {asJSON, with(&good, "amount", nil), api.Malformed, `"amount" is missing`},
		"no nonce":            {asJSON, with(&good, "nonce", nil), api.Malformed, `"nonce" is missing`},
		"no expiry":           {asJSON, with(&good, "expiry", nil), api.Malformed, `"expiry" is missing`},
		"no signature":        {asJSON, with(&good, "signature", nil), api.Malformed, `"signature" is missing`},
		"no key":              {asJSON, with(&open, "key", nil), api.Malformed, `"key" is missing`},
		"no possession":       {asJSON, with(&open, "bls_proof", nil), api.Malformed, `"bls_proof" needs 192`},
		"key in a transfer":   {asJSON, with(&good, "key", strings.Repeat("0", 64)), api.Malformed, `"key" does not belong`},
		"receiver in an open": {asJSON, with(&open, "to", good.To.String()), api.Malformed, `"to" does not belong`},
		"signature cut":       {asJSON, with(&good, "signature", "00"), api.Malformed, `"signature" needs 128`},
		"signature no hex":    {asJSON, with(&good, "signature", "zz"), api.Malformed, "hex"},
		"amount negative":     {asJSON, with(&good, "amount", -1), api.Malformed, "not an amount"},
		"amount broken":       {asJSON, with(&good, "amount", "1.5"), api.Malformed, "not an amount"},
		"amount over 64 bits": {asJSON, with(&good, "amount", "18446744073709551616"), api.Malformed, "not an amount"},
		"nonce over 32 bits":  {asJSON, with(&good, "nonce", 1<<33), api.Malformed, `"nonce"`},
		"mistyped account":    {asJSON, with(&good, "from", "00000000014zk9"), api.Malformed, "did you mean"},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.do(t, "POST", "/v1/transactions", tc.contentType, tc.body)
			r, _ := api.Lookup(tc.code)
			if a.code() != tc.code || a.status != r.Status || !strings.Contains(a.detail(), tc.detail) {
				t.Errorf("%d %s; want %s with %q", a.status, a.body, tc.code, tc.detail)
			}
			d.checkAnswer(t, "POST", "/v1/transactions", "400", a.body)
		})
	}
	if n := len(w.backend.Submitted()); n != 0 {
		t.Errorf("%d transactions of refused calls reached the pool", n)
	}
	full := bytes.Repeat(wire, api.MaxTransactions)
	if a := w.do(t, "POST", "/v1/transactions", asBinary, full); a.status != 200 || decode[api.SubmitAnswer](t, a).Accepted != api.MaxTransactions {
		t.Errorf("a full call: %d %.200s", a.status, a.body)
	}
}

func FuzzSubmitJSON(f *testing.F) {
	f.Add([]byte(`{"kind":"transfer","from":"00000000014zk8","to":"0004000007w56z","amount":"25","nonce":1,"expiry":9,"signature":"` + strings.Repeat("00", 64) + `"}`))
	f.Add([]byte(`[{"kind":"open","from":"00000000014zk8","key":"` + strings.Repeat("00", 32) + `","amount":5,"nonce":1,"expiry":9,"fee_class":2,"signature":"` + strings.Repeat("01", 64) + `"}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		txs, _, err := api.DecodeJSON(b)
		if e := (*api.Error)(nil); err != nil && !errors.As(err, &e) {
			t.Fatalf("not for the client: %v", err)
		}
		for _, s := range txs {
			back, err := tx.Decode(s.Append(nil))
			if err != nil || *back != s {
				t.Fatalf("%+v became %+v, %v", s, back, err)
			}
			again := api.Describe(back)
			if got, err := again.Signed(); err != nil || got != s {
				t.Errorf("%+v became %+v, %v", s, got, err)
			}
		}
	})
}

// BenchmarkSubmitBinary is the server's own cost of a full call; the node behind it only keeps the transactions.
func BenchmarkSubmitBinary(b *testing.B) {
	n := prooftest.New(b, "benchmark", 1)
	backend := apitest.New(n, 0)
	s := quiet(b, backend, api.Rates{ClientRequests: 1e6, ClientTransactions: 1e9})
	var wire []byte
	for i := range api.MaxTransactions {
		t := n.Transfer(n.Account(0, 1), n.Account(0, 2), 1, uint32(i))
		wire = t.Append(wire)
	}
	b.SetBytes(int64(len(wire)))
	for b.Loop() {
		r := httptest.NewRequest("POST", "/v1/transactions", bytes.NewReader(wire))
		r.Header.Set("Content-Type", asBinary)
		w := httptest.NewRecorder()
		if s.ServeHTTP(w, r); w.Code != 200 {
			b.Fatal(w.Body)
		}
		backend.Clear()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/api.MaxTransactions, "ns/tx")
}

// TestSubmitLate: a request that does not arrive in time can be sent again; it is not called malformed.
func TestSubmitLate(t *testing.T) {
	_, w := start(t, func(o *api.Options) { o.Timeout = 100 * time.Millisecond })
	c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "POST /v1/transactions HTTP/1.1\r\nHost: tutti\r\nContent-Type: application/octet-stream\r\nContent-Length: 97\r\n\r\nhalf"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !strings.Contains(string(b), string(api.Busy)) {
		t.Errorf("%s, Retry-After %q: %s (%v)", resp.Status, resp.Header.Get("Retry-After"), b, err)
	}
}
