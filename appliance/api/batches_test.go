package api_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tutti/accel/distill"
	"tutti/accel/distill/distilltest"
	"tutti/appliance/api"
	"tutti/appliance/api/apitest"
	"tutti/appliance/proof"
	"tutti/appliance/proof/prooftest"
	"tutti/state/pool"
)

// batchOf is a batch of n transfers that nobody signed.
func batchOf(t testing.TB, n int) *distill.Batch {
	t.Helper()
	bodies := make([][distill.BodyBytes]byte, n)
	for i := range bodies {
		binary.BigEndian.PutUint64(bodies[i][:], uint64(i)<<16)
	}
	b, err := distilltest.Unsigned(1, bodies...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSubmitBatch(t *testing.T) {
	d := load(t)
	_, w := start(t, func(o *api.Options) { o.Params.MaxBatchBytes = 1000 })
	good := batchOf(t, 5).Append(nil)
	for name, tc := range map[string]struct {
		contentType string
		body        []byte
		verdict     error
		status      int
		code        api.Code
		detail      string
	}{
		"good":      {asBinary, good, nil, 202, "", ""},
		"duplicate": {asBinary, good, &pool.Reject{Code: pool.Duplicate}, 202, "", ""},
		"json":      {asJSON, good, nil, 415, api.UnsupportedType, "octet-stream"},
		"no type":   {"", good, nil, 415, api.UnsupportedType, ""},
		"empty":     {asBinary, nil, nil, 400, api.Malformed, "0 bytes"},
		"cut":       {asBinary, good[:len(good)-1], nil, 400, api.Malformed, ""},
		"more":      {asBinary, append(bytes.Clone(good), 0), nil, 400, api.Malformed, "after the batch"},
		"too large": {asBinary, make([]byte, 1001), nil, 413, api.TooLarge, "1000 bytes"},
		"wrong":     {asBinary, good, &pool.Reject{Code: pool.WrongBatch, Detail: "signature of the root is wrong"}, 422, api.WrongBatch, "signature of the root"},
		"full":      {asBinary, good, &api.Error{Code: api.PoolFull, RetryAfter: time.Second}, 503, api.PoolFull, ""},
		"quota":     {asBinary, good, &api.Error{Code: api.RateLimited, RetryAfter: 2 * time.Second}, 429, api.RateLimited, ""},
		"failure":   {asBinary, good, errors.New("secret"), 500, api.Internal, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w.backend.JudgeBatch = func(b *distill.Batch) error {
				if !bytes.Equal(b.Append(nil), good) {
					t.Errorf("the node got %x", b.Append(nil))
				}
				return tc.verdict
			}
			a := w.do(t, "POST", "/v1/batches", tc.contentType, tc.body)
			if a.status != tc.status {
				t.Fatalf("%d %s", a.status, a.body)
			}
			if tc.code == "" {
				d.checkAnswer(t, "POST", "/v1/batches", "202", a.body)
				want := api.BatchAnswer{Batch: proof.Digest(pool.BatchName(batchOf(t, 5))), Transfers: 5}
				if got := decode[api.BatchAnswer](t, a); got != want {
					t.Errorf("%+v, want %+v", got, want)
				}
				return
			}
			d.checkAnswer(t, "POST", "/v1/batches", "400", a.body)
			if a.code() != tc.code || !strings.Contains(a.detail(), tc.detail) || strings.Contains(string(a.body), "secret") || (a.status == 429 || a.status == 503) != (a.header.Get("Retry-After") != "") {
				t.Errorf("%d %s %v", a.status, a.body, a.header)
			}
		})
	}
}

// TestBatchRate: transfers in batches have a rate of their own, and one that is within the limit always fits some time.
func TestBatchRate(t *testing.T) {
	backend := apitest.New(prooftest.New(t, "rates", 1), 0)
	full, some := batchOf(t, distill.MaxCount).Append(nil), batchOf(t, 1).Append(nil)
	synctest.Test(t, func(t *testing.T) {
		s := quiet(t, backend, api.Rates{ClientBatched: 1000, TotalBatched: 1e6, ClientTransactions: 1})
		post := func(body []byte) *httptest.ResponseRecorder {
			r := httptest.NewRequest("POST", "/v1/batches", bytes.NewReader(body))
			r.Header.Set("Content-Type", asBinary)
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			return w
		}
		if w := post(full); w.Code != 202 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if w := post(some); w.Code != 429 || w.Header().Get("Retry-After") != "5" {
			t.Fatalf("%d %v %s", w.Code, w.Header(), w.Body)
		}
		time.Sleep(5 * time.Second)
		if w := post(some); w.Code != 202 {
			t.Errorf("after Retry-After: %d %s", w.Code, w.Body)
		}
	})
}

// TestBatchBytes: the bytes of batches in work are bounded over all clients.
func TestBatchBytes(t *testing.T) {
	_, w := start(t, func(o *api.Options) {
		o.Params.MaxBatchBytes, o.Rates.ClientBatched = api.BatchBytesInWork, 1e9
	})
	begun, end := make(chan struct{}), make(chan struct{})
	w.backend.JudgeBatch = func(*distill.Batch) error { begun <- struct{}{}; <-end; return nil }
	good := batchOf(t, distill.MaxCount).Append(nil)
	done := make(chan answer)
	most := api.BatchBytesInWork / len(good)
	for range most {
		go func() { done <- w.do(t, "POST", "/v1/batches", asBinary, good) }()
		<-begun
	}
	if a := w.do(t, "POST", "/v1/batches", asBinary, good); a.status != 503 || a.code() != api.Busy || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	close(end)
	for range most {
		if a := <-done; a.status != 202 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
}
