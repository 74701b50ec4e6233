package api_test

import (
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tutti/appliance/api"
	"tutti/appliance/api/apitest"
	"tutti/appliance/metrics"
	"tutti/appliance/proof/prooftest"
	"tutti/state/tx"
)

// quiet is a server without a listener: requests come from any address the test says.
func quiet(t testing.TB, backend *apitest.Backend, rates api.Rates) *api.Server {
	t.Helper()
	m, err := metrics.New(prometheus.NewRegistry(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := api.New(backend, api.Options{Log: slog.New(slog.DiscardHandler), Params: backend.Params(), Counters: &m.API, Rates: rates})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func get(s *api.Server, from string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", "/healthz", nil)
	r.RemoteAddr = from
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func TestRequestRate(t *testing.T) {
	n := prooftest.New(t, "rates", 1)
	synctest.Test(t, func(t *testing.T) {
		s := quiet(t, apitest.New(n, 0), api.Rates{ClientRequests: 2, TotalRequests: 3})
		for i, tc := range []struct {
			from   string
			status int
		}{
			{"192.0.2.1:1000", 200},
			{"192.0.2.1:1001", 200},
			{"192.0.2.1:1", 200},
			{"[::ffff:192.0.2.1]:2", 200},
			{"192.0.2.1:3", 200},
			{"192.0.2.1:4", 429}, // two seconds' worth and one are used up
			{"192.0.2.2:4", 200}, // another client
			{"[2001:db8::1]:4", 200},
			{"192.0.2.3:4", 429}, // over all
		} {
			w := get(s, tc.from)
			if w.Code != tc.status || w.Code == 429 && (w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), "rate_limited")) {
				t.Fatalf("%d, %s: %d %v %s", i, tc.from, w.Code, w.Header(), w.Body)
			}
		}
		time.Sleep(time.Second) // of the bubble's clock: three tokens over all, two for each client
		for i, status := range []int{200, 200, 429} {
			if w := get(s, "192.0.2.1:9"); w.Code != status {
				t.Errorf("after a second, %d: %d", i, w.Code)
			}
		}
		if w := get(s, "192.0.2.9:9"); w.Code != 200 {
			t.Errorf("what one client was refused cost the others: %d", w.Code)
		}
	})
}

func TestIPv6Network(t *testing.T) {
	n := prooftest.New(t, "rates", 1)
	synctest.Test(t, func(t *testing.T) {
		s := quiet(t, apitest.New(n, 0), api.Rates{ClientRequests: 1, TotalRequests: 1000})
		for i, status := range []int{200, 200, 200, 429} {
			if w := get(s, fmt.Sprintf("[2001:db8::%d%%eth0]:9", i)); w.Code != status {
				t.Errorf("address %d of one /64: %d", i, w.Code)
			}
		}
		if w := get(s, "[2001:db8:0:1::1]:9"); w.Code != 200 {
			t.Errorf("another /64: %d", w.Code)
		}
	})
}

func TestManyClients(t *testing.T) {
	n := prooftest.New(t, "rates", 1)
	s := quiet(t, apitest.New(n, 0), api.Rates{ClientRequests: 1, TotalRequests: 1e6})
	for i := range 20_000 {
		if w := get(s, fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255)); w.Code != 200 {
			t.Fatalf("client %d: %d", i, w.Code)
		}
	}
}

func TestTransactionRate(t *testing.T) {
	n := prooftest.New(t, "rates", 1)
	backend := apitest.New(n, 0)
	var wire []byte
	for i := range api.MaxTransactions {
		s := n.Transfer(n.Account(0, 1), n.Account(0, 2), 1, uint32(i))
		wire = s.Append(wire)
	}
	synctest.Test(t, func(t *testing.T) {
		s := quiet(t, backend, api.Rates{ClientTransactions: 1000, TotalTransactions: 1e6})
		post := func(count int) *httptest.ResponseRecorder {
			r := httptest.NewRequest("POST", "/v1/transactions", strings.NewReader(string(wire[:count*tx.TransferWire])))
			r.Header.Set("Content-Type", asBinary)
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			return w
		}
		if w := post(api.MaxTransactions); w.Code != 200 {
			t.Fatalf("a full call must fit, whatever the rate: %d %s", w.Code, w.Body)
		}
		w := post(1500)
		after, err := strconv.Atoi(w.Header().Get("Retry-After"))
		if w.Code != 429 || err != nil || after != 2 {
			t.Fatalf("%d %v %s", w.Code, w.Header(), w.Body)
		}
		time.Sleep(time.Duration(after) * time.Second)
		if w := post(1500); w.Code != 200 {
			t.Errorf("after Retry-After: %d %s", w.Code, w.Body)
		}
	})
	if got := len(backend.Submitted()); got != api.MaxTransactions+1500 {
		t.Errorf("%d transactions reached the pool", got)
	}
}

func TestBusy(t *testing.T) {
	_, w := start(t, func(o *api.Options) { o.MaxInFlight = 1 })
	w.backend.Hold = make(chan struct{})
	w.backend.Judge = func(tx.Signed) error { return nil }
	done := make(chan answer, 1)
	body := w.across.Append(nil)
	go func() { done <- w.do(t, "POST", "/v1/transactions", asBinary, body) }()
	<-w.backend.Hold // the one request that is allowed is in work now
	if a := w.do(t, "GET", "/healthz", "", nil); a.status != 503 || a.code() != api.Busy || a.header.Get("Retry-After") != "1" {
		t.Errorf("%d %s %v", a.status, a.body, a.header)
	}
	close(w.backend.Hold)
	if a := <-done; a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestConnectionLimit(t *testing.T) {
	_, w := start(t, func(o *api.Options) { o.MaxConns = 1 })
	at := strings.TrimPrefix(w.url, "http://")
	first, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	answered := func(c net.Conn) chan error {
		out := make(chan error, 1)
		go func() {
			_, err := c.Write([]byte("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"))
			if err == nil {
				_, err = c.Read(make([]byte, 1))
			}
			out <- err
		}()
		return out
	}
	if err := <-answered(first); err != nil {
		t.Fatal(err)
	}
	second, err := net.Dial("tcp", at) // the kernel takes it; the server does not yet
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	got := answered(second)
	select {
	case err := <-got:
		t.Fatalf("a second connection is served: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	first.Close()
	if err := <-got; err != nil {
		t.Errorf("the place of a closed connection is not free: %v", err)
	}
}
