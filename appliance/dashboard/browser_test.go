package dashboard_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// browser is a headless Chromium that is driven over a pair of pipes (the DevTools protocol, NUL between messages).
type browser struct {
	cmd  *exec.Cmd
	to   *os.File
	done chan struct{} // closed when nothing more will be read

	mu      sync.Mutex // guards what follows
	next    int
	waiting map[int]chan message
	tabs    map[string]*tab // by session
}

type command struct {
	ID      int            `json:"id"`
	Session string         `json:"sessionId,omitempty"`
	Method  string         `json:"method"`
	Params  map[string]any `json:"params,omitempty"`
}

// message is an answer, which has an ID, or an event.
type message struct {
	ID      int    `json:"id"`
	Session string `json:"sessionId"`
	Method  string
	Params  json.RawMessage
	Result  json.RawMessage
	Error   *struct{ Message string }
}

const callLimit = 20 * time.Second

// startBrowser starts Chromium. Where there is none, the test fails in CI and is skipped elsewhere.
func startBrowser(t *testing.T) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("chromium is not installed, so the page can't be tested: make deps")
		}
		t.Skip("SKIPPED: chromium is not installed, so the page is not tested: make deps")
	}
	read, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	b := &browser{to: to, done: make(chan struct{}), waiting: map[int]chan message{}, tabs: map[string]*tab{}}
	b.cmd = exec.Command(path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
		"--user-data-dir="+t.TempDir(), "--remote-debugging-pipe", "about:blank")
	b.cmd.ExtraFiles = []*os.File{read, write}
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = read.Close()
	_ = write.Close()
	go b.receive(from)
	t.Cleanup(func() {
		_, _ = b.call("", "Browser.close", nil) // it may be gone
		_ = b.to.Close()
		stop := time.AfterFunc(callLimit, func() { _ = b.cmd.Process.Kill() })
		defer stop.Stop()
		_ = b.cmd.Wait()
		<-b.done
		_ = from.Close()
	})
	return b
}

// receive passes answers to their callers and events to their tabs.
func (b *browser) receive(from *os.File) {
	defer close(b.done)
	in := bufio.NewReader(from)
	for {
		raw, err := in.ReadBytes(0)
		if err != nil {
			return
		}
		var m message
		if json.Unmarshal(raw[:len(raw)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		answer, tab := b.waiting[m.ID], b.tabs[m.Session]
		delete(b.waiting, m.ID)
		b.mu.Unlock()
		switch {
		case m.ID > 0 && answer != nil:
			answer <- m
		case tab != nil:
			tab.event(m)
		}
	}
}

// call sends a command and waits for the answer.
func (b *browser) call(session, method string, params map[string]any) (json.RawMessage, error) {
	b.mu.Lock()
	b.next++
	id, answer := b.next, make(chan message, 1)
	b.waiting[id] = answer
	raw, err := json.Marshal(command{id, session, method, params})
	if err == nil {
		_, err = b.to.Write(append(raw, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return nil, err
	}
	limit := time.NewTimer(callLimit)
	defer limit.Stop()
	select {
	case m := <-answer:
		if m.Error != nil {
			return nil, fmt.Errorf("%s: %s", method, m.Error.Message)
		}
		return m.Result, nil
	case <-b.done:
		return nil, errors.New("the browser has ended")
	case <-limit.C:
		return nil, fmt.Errorf("%s: no answer within %s", method, callLimit)
	}
}

// tab is one page and what it complained about.
type tab struct {
	t       *testing.T
	b       *browser
	session string

	mu       sync.Mutex // guards what follows
	requests []string   // addresses asked for
	troubles []string   // errors and warnings: of the script, the console, the security policy, the network
}

// open loads an address in a new tab. media are emulated media features, as name=value.
func (b *browser) open(t *testing.T, address string, width int, media ...string) *tab {
	t.Helper()
	p := &tab{t: t, b: b}
	var made struct{ TargetID, SessionID string }
	p.decode(p.must(b.call("", "Target.createTarget", map[string]any{"url": "about:blank"})), &made)
	p.decode(p.must(b.call("", "Target.attachToTarget", map[string]any{"targetId": made.TargetID, "flatten": true})), &made)
	p.session = made.SessionID
	b.mu.Lock()
	b.tabs[p.session] = p
	b.mu.Unlock()
	t.Cleanup(func() { _, _ = b.call("", "Target.closeTarget", map[string]any{"targetId": made.TargetID}) })
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		p.do(domain+".enable", map[string]any{})
	}
	features := []map[string]string{}
	for _, m := range media {
		name, value, _ := strings.Cut(m, "=")
		features = append(features, map[string]string{"name": name, "value": value})
	}
	p.do("Emulation.setEmulatedMedia", map[string]any{"features": features})
	p.do("Emulation.setFocusEmulationEnabled", map[string]any{"enabled": true})
	p.resize(width)
	p.do("Page.navigate", map[string]any{"url": address})
	return p
}

func (p *tab) resize(width int) {
	p.do("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600})
}

func (p *tab) must(raw json.RawMessage, err error) json.RawMessage {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
	return raw
}

func (p *tab) decode(raw json.RawMessage, v any) {
	p.t.Helper()
	if err := json.Unmarshal(raw, v); err != nil {
		p.t.Fatalf("%v: %.200s", err, raw)
	}
}

func (p *tab) do(method string, params map[string]any) json.RawMessage {
	p.t.Helper()
	return p.must(p.b.call(p.session, method, params))
}

// event keeps what the page asks for and complains about.
func (p *tab) event(m message) {
	var e struct {
		Type             string
		Request          struct{ URL string }
		Entry            struct{ Level, Text, URL string }
		ExceptionDetails struct {
			Text      string
			Exception struct{ Description string }
		}
		Args []struct{ Value any }
	}
	if json.Unmarshal(m.Params, &e) != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch m.Method {
	case "Network.requestWillBeSent":
		p.requests = append(p.requests, e.Request.URL)
	case "Runtime.exceptionThrown":
		p.troubles = append(p.troubles, "exception: "+e.ExceptionDetails.Text+" "+e.ExceptionDetails.Exception.Description)
	case "Runtime.consoleAPICalled":
		if e.Type != "log" && e.Type != "info" && e.Type != "debug" {
			p.troubles = append(p.troubles, fmt.Sprintf("console %s: %v", e.Type, e.Args))
		}
	case "Log.entryAdded":
		if e.Entry.Level != "info" && e.Entry.Level != "verbose" {
			p.troubles = append(p.troubles, e.Entry.Level+": "+e.Entry.Text+" "+e.Entry.URL)
		}
	}
}

// quiet fails the test if the page complained, or asked for something that does not begin with origin.
func (p *tab) quiet(origin string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, text := range p.troubles {
		p.t.Errorf("the browser says: %s", text)
	}
	for _, r := range p.requests {
		if !strings.HasPrefix(r, origin+"/") && !strings.HasPrefix(r, "data:") {
			p.t.Errorf("the page asked for %s", r)
		}
	}
	if len(p.requests) == 0 {
		p.t.Error("the page asked for nothing: this test sees no requests")
	}
}

// eval is the value of a JavaScript expression.
func eval[T any](p *tab, expression string) (v T) {
	p.t.Helper()
	var r struct {
		Result struct {
			Value json.RawMessage
		}
		ExceptionDetails *struct{ Exception struct{ Description string } }
	}
	p.decode(p.do("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}), &r)
	if r.ExceptionDetails != nil {
		p.t.Fatalf("%s: %s", expression, r.ExceptionDetails.Exception.Description)
	}
	if len(r.Result.Value) > 0 {
		p.decode(r.Result.Value, &v)
	}
	return v
}

// reload loads the page anew and waits until the new one is there: what is asked of the old one in the meantime has no answer.
func (p *tab) reload() {
	p.t.Helper()
	eval[any](p, "void (window.old = true)")
	p.do("Page.reload", map[string]any{})
	var r struct{ Result struct{ Value bool } }
	for end := time.Now().Add(callLimit); !r.Result.Value; time.Sleep(10 * time.Millisecond) {
		raw, err := p.b.call(p.session, "Runtime.evaluate", map[string]any{"expression": "!window.old && document.readyState !== 'loading'"})
		if err == nil {
			p.decode(raw, &r)
		}
		if time.Now().After(end) {
			p.t.Fatalf("no new page: %v", err)
		}
	}
}

// until waits until an expression is true.
func (p *tab) until(what, expression string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), callLimit)
	defer cancel()
	beat := time.NewTicker(30 * time.Millisecond)
	defer beat.Stop()
	for !eval[bool](p, "!!("+expression+")") {
		select {
		case <-beat.C:
		case <-ctx.Done():
			p.t.Fatalf("%s: not within %s; the page says:\n%s", what, callLimit, eval[string](p, "document.body.innerText"))
		}
	}
}

// key presses a key: Tab, Enter or a character.
func (p *tab) key(name string) {
	p.t.Helper()
	codes := map[string]int{"Tab": 9, "Enter": 13}
	down := map[string]any{"type": "keyDown", "key": name, "code": name, "windowsVirtualKeyCode": codes[name]}
	if name == "Enter" {
		down["text"] = "\r"
	}
	p.do("Input.dispatchKeyEvent", down)
	p.do("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": name, "code": name, "windowsVirtualKeyCode": codes[name]})
}

func (p *tab) write(text string) {
	p.t.Helper()
	p.do("Input.insertText", map[string]any{"text": text})
}
