package api_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"tutti/appliance/api"
	"tutti/appliance/proof"
	"tutti/state/tx"
)

// stream is an open subscription.
type stream struct {
	t     *testing.T
	body  *http.Response
	lines *bufio.Reader
}

func (w *world) follow(t *testing.T, query string) *stream {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", w.url+"/v1/finality"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := w.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	return &stream{t, resp, bufio.NewReader(resp.Body)}
}

// next reads an event, or a comment, whose kind is empty. Kind "EOF" is the end.
func (s *stream) next() (kind, id, data string) {
	s.t.Helper()
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return "EOF", "", err.Error()
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "event":
			kind = value
		case "id":
			id = value
		case "data":
			data = value
		case "":
			if value != "" { // a comment
				data = value
				continue
			}
			return kind, id, data
		}
	}
}

func (s *stream) want(kind string, v any) {
	s.t.Helper()
	got, _, data := s.next()
	if got != kind {
		s.t.Fatalf("event %q %.300s, want %s", got, data, kind)
	}
	d := json.NewDecoder(strings.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		s.t.Fatalf("%s: %v", data, err)
	}
}

func TestFollow(t *testing.T) {
	d := load(t)
	for name, tc := range map[string]struct {
		query     string
		ids, body bool
	}{
		"plain": {"", false, false}, "ids": {"?ids=1", true, false}, "body": {"?body=1&ids=0", false, true}, "both": {"?ids=1&body=1", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			s, w := start(t, nil)
			st := w.follow(t, tc.query)
			var hello api.HelloEvent
			if st.want("hello", &hello); hello != (api.HelloEvent{Shard: 0, Height: 1}) {
				t.Fatalf("%+v", hello)
			}
			pay := w.net.Transfer(w.net.Account(0, 3), w.net.Account(0, 4), 1, 0)
			w.net.Add(0, []tx.Signed{pay}, nil)
			w.net.Add(0, nil, nil)
			for _, b := range w.net.Finalise(0) {
				w.backend.Append(b)
				s.Publish(b)
			}
			for height := 2; height <= 3; height++ {
				kind, id, data := st.next()
				if kind != "final" || id != map[int]string{2: "2", 3: "3"}[height] {
					t.Fatalf("%s %s %s", kind, id, data)
				}
				var v any
				var e api.FinalEvent
				if err := json.Unmarshal([]byte(data), &v); err != nil {
					t.Fatal(err)
				}
				if err := d.check(d.Components.Schemas["FinalEvent"], v, "event"); err != nil {
					t.Error(err)
				}
				if err := json.Unmarshal([]byte(data), &e); err != nil {
					t.Fatal(err)
				}
				checkEvent(t, w, &e, height, tc.ids, tc.body)
				if want := tuttiID(w, pay); tc.ids && height == 2 && (len(e.IDs) != 1 || e.IDs[0] != want) {
					t.Errorf("ids %v", e.IDs)
				}
			}
		})
	}
}

func checkEvent(t *testing.T, w *world, e *api.FinalEvent, height int, ids, body bool) {
	t.Helper()
	if int(e.Height) != height || e.Shard != 0 || e.TimeMs == 0 || (e.Block != nil) != body || (e.Final != nil) == body || !ids && e.IDs != nil {
		t.Fatalf("%+v", e)
	}
	if body {
		b, err := proof.DecodeBlock(e.Block)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Verify(w.net.Trust); err != nil {
			t.Error(err)
		}
		return
	}
	f, err := proof.DecodeFinal(e.Final)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Verify(w.net.Trust); err != nil {
		t.Error(err)
	}
}

func TestFollowHeartbeat(t *testing.T) {
	_, w := start(t, func(o *api.Options) { o.Heartbeat, o.Timeout = 20*time.Millisecond, 100*time.Millisecond })
	st := w.follow(t, "")
	st.want("hello", &api.HelloEvent{})
	for range 10 { // twice the request timeout: a subscription outlives it
		if kind, _, data := st.next(); kind != "" || data != "alive at 1" {
			t.Fatalf("%q %q", kind, data)
		}
	}
}

func TestSubscriberLimit(t *testing.T) {
	_, w := start(t, func(o *api.Options) { o.MaxSubscribers = 2 })
	first := w.follow(t, "")
	w.follow(t, "").want("hello", &api.HelloEvent{})
	a := w.do(t, "GET", "/v1/finality", "", nil)
	if a.status != 429 || a.code() != api.TooManySubscribers || a.header.Get("Retry-After") != "10" {
		t.Fatalf("%d %s %v", a.status, a.body, a.header)
	}
	first.body.Body.Close()
	deadline := time.Now().Add(5 * time.Second)
	for {
		req, err := http.NewRequestWithContext(t.Context(), "GET", w.url+"/v1/finality", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := w.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == 200 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the place of a subscriber that left is not free")
		}
	}
}

func TestSlowSubscriber(t *testing.T) {
	for name, change := range map[string]func(*api.Options){
		"events": func(o *api.Options) { o.QueueEvents = 4 },
		"bytes":  func(o *api.Options) { o.QueueBytes = 8 << 20 },
	} {
		t.Run(name, func(t *testing.T) {
			s, w := start(t, change)
			conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write([]byte("GET /v1/finality?body=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(conn)
			for { // the subscription is open once hello is here
				line, err := lines.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				if strings.HasPrefix(line, "data: ") {
					break
				}
			}
			// Blocks of a megabyte fill the connection, then the queue, while nobody reads.
			var txs []tx.Signed
			for i := range 10_000 {
				txs = append(txs, w.net.Transfer(w.net.Account(0, 1), w.net.Account(0, 2), 1, uint32(i)))
			}
			w.net.Add(0, txs, nil)
			big := w.net.Finalise(0)[0]
			for range 40 {
				s.Publish(big)
			}
			rest := bytes.Buffer{}
			if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := rest.ReadFrom(lines); err != nil {
				t.Fatal(err)
			}
			text := rest.String()
			_, end, ok := strings.Cut(text, "event: end\ndata: ")
			if n := strings.Count(text, "event: final"); !ok || n >= 40 || !strings.Contains(end, `"code":"slow_subscriber"`) {
				t.Errorf("%d events, then %.200q", n, end)
			}
		})
	}
}

func TestFollowShutdown(t *testing.T) {
	var st *stream
	t.Run("serve", func(t2 *testing.T) {
		_, w := start(t2, nil)
		req, err := http.NewRequestWithContext(t.Context(), "GET", w.url+"/v1/finality", nil)
		if err != nil {
			t2.Fatal(err)
		}
		resp, err := w.http.Do(req)
		if err != nil {
			t2.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		st = &stream{t, resp, bufio.NewReader(resp.Body)}
		st.want("hello", &api.HelloEvent{})
	}) // the server stops here
	var why api.ErrorBody
	if st.want("end", &why); why.Code != api.ShuttingDown {
		t.Errorf("%+v", why)
	}
	if kind, _, _ := st.next(); kind != "EOF" {
		t.Errorf("%q after the end", kind)
	}
}
