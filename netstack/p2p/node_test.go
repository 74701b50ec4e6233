package p2p

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"

	"tutti/netstack"
)

// pairUp tells two nodes of one another.
func pairUp(tb testing.TB, a, b *Node) {
	tb.Helper()
	if err := errors.Join(
		a.SetPeers([]Peer{{ID: b.Self(), Addrs: b.Addrs()}}),
		b.SetPeers([]Peer{{ID: a.Self(), Addrs: a.Addrs()}}),
	); err != nil {
		tb.Fatal(err)
	}
}

// talk sends a vote and waits for it.
func talk(tb testing.TB, from, to *Node, text string) {
	tb.Helper()
	if err := from.Send(to.Self(), netstack.ClassVote, []byte(text)); err != nil {
		tb.Fatal(err)
	}
	for {
		if m := next(tb, to.Receive(netstack.ClassVote)); string(m.Payload) == text && m.From == from.Self() {
			return
		}
	}
}

func TestNewRefuses(t *testing.T) {
	busy := startOne(t, Config{Seed: seed(1), Listen: both})
	id := busy.Self()
	var ports []string
	for _, a := range busy.Addrs() {
		ports = append(ports, strings.Split(a, "/")[4])
	}
	for _, tt := range []struct {
		name   string
		config Config
		want   []string
	}{
		{"busy TCP port", Config{Listen: busy.Addrs()[:1]}, []string{"port " + ports[0], "another process", "another port"}},
		{"busy UDP port", Config{Listen: busy.Addrs()[1:]}, []string{"port " + ports[1], "another process", "another port"}},
		{"second address busy", Config{Listen: append(slices.Clone(tcpOnly), busy.Addrs()[0])}, []string{"port " + ports[0]}},
		{"address of another machine", Config{Listen: []string{"/ip4/192.0.2.1/tcp/0"}}, []string{"192.0.2.1", "of this machine"}},
		{"not a multiaddress", Config{Listen: []string{"127.0.0.1:9000"}}, []string{"127.0.0.1:9000", "/ip4/"}},
		{"another transport", Config{Listen: []string{"/ip4/127.0.0.1/tcp/0/ws"}}, []string{"neither TCP nor QUIC", "/ip4/"}},
		{"peer address", Config{Peers: []Peer{{ID: id, Addrs: []string{"example.org"}}}}, []string{id.Short(), "example.org", "/ip4/"}},
		{"peer twice", Config{Peers: []Peer{{ID: id}, {ID: id}}}, []string{id.Short(), "twice"}},
		{"send queue too small", Config{Limits: Limits{Send: [3]QueueLimit{1: {Bytes: 1 << 20}}}}, []string{"proposal", "Limits.Send"}},
		{"negative duration", Config{Limits: Limits{PingInterval: -1}}, []string{"positive"}},
		{"negative count", Config{Limits: Limits{Requests: -1}}, []string{"positive"}},
		{"negative queue", Config{Limits: Limits{Receive: [3]int{2: -1}}}, []string{"at least one"}},
		{"negative rate", Config{Limits: Limits{Rate: [3]Rate{0: {BytesPerSecond: -1}}}}, []string{"rate"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, err := New(t.Context(), tt.config)
			if err == nil {
				_ = n.Close()
				t.Fatal("no error")
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%q does not say %q in one line", err, w)
				}
			}
		})
	}
}

func TestStrangersRefused(t *testing.T) {
	for name, listen := range map[string][]string{"tcp": tcpOnly, "quic": quicOnly} {
		t.Run(name, func(t *testing.T) {
			n := start(t, 2, listen)
			stranger := startOne(t, Config{Seed: seed(9), Listen: listen, Peers: []Peer{{ID: n[0].Self(), Addrs: n[0].Addrs()}}})
			until(t, "the stranger to be refused", func() bool {
				return n[0].Counters().RefusedUnknownPeer >= 3 && strings.Contains(stranger.Peers()[0].LastError, "list of peers")
			})
			if err := n[0].Send(stranger.Self(), netstack.ClassVote, nil); !errors.Is(err, netstack.ErrUnknownPeer) {
				t.Errorf("got %v", err)
			}
			talk(t, n[1], n[0], "unharmed")
		})
	}
}

func TestStrangersAllowed(t *testing.T) {
	n := start(t, 2, tcpOnly, func(c *Config) { c.AllowStrangers, c.MaxStrangers = true, 1 })
	guest := startOne(t, Config{Seed: seed(9), Listen: tcpOnly, Peers: []Peer{{ID: n[0].Self(), Addrs: n[0].Addrs()}}})
	until(t, "the guest to connect", func() bool { return connected(guest) })

	n[0].Serve("/tutti/echo/1", func(_ context.Context, from netstack.NodeID, q []byte) ([]byte, error) {
		if from != guest.Self() {
			t.Errorf("from %s", from.Short())
		}
		return q, nil
	})
	if a, err := guest.Request(t.Context(), n[0].Self(), "/tutti/echo/1", []byte("hello")); err != nil || string(a) != "hello" {
		t.Fatalf("request: %q, %v", a, err)
	}
	if err := guest.Send(n[0].Self(), netstack.ClassVote, []byte("vote of a guest")); err != nil {
		t.Fatal(err)
	}
	if err := n[0].Send(guest.Self(), netstack.ClassVote, nil); !errors.Is(err, netstack.ErrUnknownPeer) {
		t.Errorf("send to a guest: %v", err)
	}
	if len(n[0].Peers()) != 1 {
		t.Error("the guest is in the peer list")
	}
	second := startOne(t, Config{Seed: seed(10), Listen: tcpOnly, Peers: []Peer{{ID: n[0].Self(), Addrs: n[0].Addrs()}}})
	until(t, "the second guest to be refused", func() bool { return n[0].Counters().RefusedUnknownPeer > 1 })
	if err := guest.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "the second guest to have its place", func() bool { return connected(second) })

	// A guest that is put on the list is a peer from then on.
	pairUp(t, n[0], second)
	until(t, "the second guest to be a peer", func() bool { return connected(n[0], second) })
	talk(t, second, n[0], "vote of a peer")
	if c := n[0].Counters(); c.ReceivedMessages[netstack.ClassVote] != 1 {
		t.Errorf("%d votes received; a guest's vote is among them", c.ReceivedMessages[netstack.ClassVote])
	}
}

func TestReconnect(t *testing.T) {
	for name, listen := range map[string][]string{"tcp": tcpOnly, "quic": quicOnly} {
		t.Run(name, func(t *testing.T) {
			n := start(t, 2, listen)
			talk(t, n[0], n[1], "first")
			again := Config{Seed: seed(1), Listen: n[1].Addrs(), Peers: []Peer{{ID: n[0].Self(), Addrs: n[0].Addrs()}}}
			if err := n[1].Close(); err != nil {
				t.Fatal(err)
			}
			until(t, "the loss to be noticed", func() bool { return !connected(n[0]) })
			if err := n[0].Send(n[1].Self(), netstack.ClassVote, []byte("while away")); err != nil {
				t.Fatal(err)
			}
			back := startOne(t, again)
			if m := next(t, back.Receive(netstack.ClassVote)); string(m.Payload) != "while away" {
				t.Fatalf("got %q", m.Payload)
			}
			talk(t, back, n[0], "second")
		})
	}
}

func TestStaleMessagesDropped(t *testing.T) {
	a := startOne(t, Config{Seed: seed(0), Listen: tcpOnly, Limits: Limits{SendAge: time.Millisecond}})
	b := startOne(t, Config{Seed: seed(1), Listen: tcpOnly})
	if err := a.SetPeers([]Peer{{ID: b.Self()}}); err != nil { // no address: b must dial
		t.Fatal(err)
	}
	for range 5 {
		if err := a.Send(b.Self(), netstack.ClassVote, []byte("old")); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(5 * time.Millisecond) // what is tested is that they grow old
	if err := b.SetPeers([]Peer{{ID: a.Self(), Addrs: a.Addrs()}}); err != nil {
		t.Fatal(err)
	}
	until(t, "the old messages to be dropped", func() bool { return a.Counters().DroppedSendStale[netstack.ClassVote] == 5 })
	if got := b.Counters().ReceivedMessages[netstack.ClassVote]; got != 0 {
		t.Errorf("%d old messages arrived", got)
	}
}

func TestSetPeers(t *testing.T) {
	n := start(t, 3, tcpOnly)
	if err := n[0].SetPeers([]Peer{{ID: n[1].Self(), Addrs: n[1].Addrs()}, {ID: n[0].Self()}}); err != nil {
		t.Fatal(err)
	}
	if p := n[0].Peers(); len(p) != 1 || p[0].ID != n[1].Self() || !p[0].Connected {
		t.Fatalf("peers %+v", p)
	}
	if err := n[0].Send(n[2].Self(), netstack.ClassVote, nil); !errors.Is(err, netstack.ErrUnknownPeer) {
		t.Errorf("got %v", err)
	}
	until(t, "the third to be cut off", func() bool { return !connected(n[2]) })
	if err := n[0].SetPeers([]Peer{{ID: n[1].Self(), Addrs: []string{"nonsense"}}}); err == nil {
		t.Error("a malformed list was taken")
	}
	talk(t, n[0], n[1], "kept through it all")
	if err := n[0].SetPeers([]Peer{{ID: n[2].Self(), Addrs: n[2].Addrs()}}); err != nil {
		t.Fatal(err)
	}
	talk(t, n[0], n[2], "back")

	// New addresses of a peer that could not be reached are tried at once.
	lost := startOne(t, Config{Seed: seed(7), Listen: tcpOnly, Limits: Limits{RedialMin: time.Minute, RedialMax: time.Hour}})
	if err := lost.SetPeers([]Peer{{ID: n[1].Self(), Addrs: []string{"/ip4/127.0.0.1/tcp/1"}}}); err != nil {
		t.Fatal(err)
	}
	until(t, "the wrong address to fail", func() bool { return strings.Contains(lost.Peers()[0].LastError, "refused") })
	pairUp(t, n[1], lost)
	until(t, "the right address", func() bool { return connected(lost) })
}

func TestPenalise(t *testing.T) {
	n := start(t, 3, tcpOnly)
	n[0].Penalise(n[1].Self(), time.Now().Add(time.Hour))
	until(t, "the peer to be cut off", func() bool {
		return !connected(n[1]) && slices.ContainsFunc(n[0].Peers(), func(p netstack.PeerInfo) bool {
			return p.ID == n[1].Self() && !p.Connected && strings.Contains(p.LastError, "cut off")
		})
	})
	if err := n[0].Send(n[1].Self(), netstack.ClassVote, []byte("waits")); err != nil {
		t.Error(err)
	}
	if _, err := n[0].Request(t.Context(), n[1].Self(), "/tutti/echo/1", nil); !errors.Is(err, netstack.ErrNotReached) {
		t.Errorf("got %v", err)
	}
	talk(t, n[0], n[2], "others are not touched")
	n[0].Penalise(n[1].Self(), time.Time{})
	until(t, "the peer to be back", func() bool { return connected(n...) })
	talk(t, n[1], n[0], "forgiven")

	n[0].Penalise(n[1].Self(), time.Now().Add(50*time.Millisecond))
	until(t, "the penalty to end", func() bool { return connected(n...) && !n[0].penalised(n[1].Self()) })
	for i := range maxPenalties + 10 {
		n[0].Penalise(netstack.NodeID{1, byte(i), byte(i >> 8)}, time.Now().Add(time.Hour+time.Duration(i)))
	}
	if got := len(n[0].penalties); got != maxPenalties {
		t.Errorf("%d penalties remembered", got)
	}
}

func TestInboundRate(t *testing.T) {
	slow := Limits{Rate: [netstack.Classes]Rate{netstack.ClassVote: {MessagesPerSecond: 100, BytesPerSecond: 1 << 20}}}
	n := start(t, 3, tcpOnly, func(c *Config) { c.Limits = slow })
	for range 120 {
		if err := n[1].Send(n[0].Self(), netstack.ClassVote, []byte("flood")); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the flood to be refused", func() bool { return n[0].Counters().RefusedRate > 0 })
	talk(t, n[2], n[0], "of another peer")
	until(t, "all to be accounted for", func() bool {
		c := n[0].Counters()
		return c.ReceivedMessages[netstack.ClassVote]+c.RefusedRate == 121
	})
	talk(t, n[1], n[0], "after a while the flooder is heard again")
}

// rawStream opens a class stream as a peer with other software might.
func rawStream(t *testing.T, from, to *Node, class netstack.Class) network.Stream {
	t.Helper()
	pid, err := peerID(to.Self())
	if err != nil {
		t.Fatal(err)
	}
	s, err := open(t.Context(), from.newestConn(pid), classProtocol(class))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMalformedStreams(t *testing.T) {
	for name, listen := range map[string][]string{"tcp": tcpOnly, "quic": quicOnly} {
		t.Run(name, func(t *testing.T) {
			n := start(t, 2, listen, func(c *Config) { c.Limits.WriteTimeout = 50 * time.Millisecond })
			ended := func(s network.Stream) {
				t.Helper()
				if err := s.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) || strings.Contains(err.Error(), "deadline") {
					t.Errorf("the stream goes on: %v", err)
				}
			}
			write := func(s network.Stream, b []byte) {
				t.Helper()
				if _, err := s.Write(b); err != nil {
					t.Fatal(err)
				}
			}
			large := rawStream(t, n[1], n[0], netstack.ClassVote)
			write(large, binary.BigEndian.AppendUint32(nil, netstack.MaxVoteBytes+1))
			ended(large)
			if got := n[0].Counters().RefusedTooLarge; got != 1 {
				t.Errorf("%d frames too large, want 1", got)
			}
			short := rawStream(t, n[1], n[0], netstack.ClassVote)
			write(short, []byte{0, 0, 0, 3, 'a'})
			if err := short.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			ended(short)
			slow := rawStream(t, n[1], n[0], netstack.ClassProposal) // announces a body that never comes
			write(slow, binary.BigEndian.AppendUint32(nil, growBytes+1))
			ended(slow)
			pid, _ := peerID(n[0].Self())
			var many []network.Stream
			until(t, "one stream too many to end", func() bool {
				if len(many) <= maxClassStreams {
					s, err := open(t.Context(), n[1].newestConn(pid), classProtocol(netstack.ClassTransaction))
					if err != nil {
						return len(many) == maxClassStreams
					}
					many = append(many, s)
				}
				return slices.ContainsFunc(many, func(s network.Stream) bool { _, err := s.Write([]byte{0, 0, 0, 0}); return err != nil })
			})
			if len(many) < maxClassStreams {
				t.Errorf("ended after %d streams", len(many))
			}
			talk(t, n[1], n[0], "the connection lives")
			if got := n[0].Counters().ReceivedMessages[netstack.ClassProposal]; got != 0 {
				t.Errorf("%d proposals received", got)
			}
		})
	}
}

func TestPrefersTCP(t *testing.T) {
	n := start(t, 2, both)
	over := func(a, b *Node) string {
		pid, _ := peerID(b.Self())
		if c := a.newestConn(pid); c != nil {
			return c.RemoteMultiaddr().String()
		}
		return ""
	}
	if got := over(n[0], n[1]); !strings.Contains(got, "/tcp/") {
		t.Errorf("connected over %s", got)
	}
	// Where TCP does not get through, QUIC does.
	last := startOne(t, Config{Seed: seed(5), Listen: both})
	quic := slices.DeleteFunc(last.Addrs(), func(a string) bool { return !strings.Contains(a, "quic") })
	if err := errors.Join(
		last.SetPeers([]Peer{{ID: n[0].Self()}}),
		n[0].SetPeers([]Peer{{ID: last.Self(), Addrs: append([]string{"/ip4/127.0.0.1/tcp/1"}, quic...)}}),
	); err != nil {
		t.Fatal(err)
	}
	until(t, "connection over QUIC, at both ends", func() bool { return connected(last) && over(n[0], last) != "" })
	if got := over(n[0], last); !strings.Contains(got, "/quic-v1") {
		t.Errorf("connected over %q", got)
	}
	tcp, quicA := ma.StringCast("/ip4/192.0.2.1/tcp/1"), ma.StringCast("/ip4/192.0.2.1/udp/1/quic-v1")
	if got := fmt.Sprint(tcpFirst([]ma.Multiaddr{quicA, tcp})); got != fmt.Sprint([]network.AddrDelay{{Addr: tcp}, {Addr: quicA, Delay: quicDelay}}) {
		t.Errorf("ranked %s", got)
	}
	if got := tcpFirst([]ma.Multiaddr{quicA}); got[0].Delay != 0 {
		t.Error("QUIC waits for nothing")
	}
}

// TestBothDial lets two nodes dial at once: they talk over both connections and keep one.
func TestBothDial(t *testing.T) {
	patient := Limits{RedialMin: time.Hour, RedialMax: time.Hour}
	a := startOne(t, Config{Seed: seed(0), Listen: tcpOnly, Limits: patient})
	b := startOne(t, Config{Seed: seed(1), Listen: tcpOnly, Limits: patient})
	if err := errors.Join(a.SetPeers([]Peer{{ID: b.Self()}}), b.SetPeers([]Peer{{ID: a.Self()}})); err != nil {
		t.Fatal(err)
	}
	ab, _ := a.peerLink(b.Self())
	ba, _ := b.peerLink(a.Self())
	for l, to := range map[*link]*Node{ab: b, ba: a} {
		l.mu.Lock()
		l.addrs, l.fails = to.host.swarm.ListenAddresses(), 1 // the keeper waits for an hour
		l.mu.Unlock()
	}
	count := func(l *link) int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.conns)
	}
	until(t, "both to get through", func() bool {
		until(t, "no connection", func() bool {
			ab.closeConns() // one that was being made may come late
			ba.closeConns()
			return count(ab)+count(ba) == 0
		})
		var both sync.WaitGroup
		both.Go(ab.dial)
		both.Go(ba.dial)
		both.Wait()
		pause(t.Context(), 20*time.Millisecond) // the accepting sides may be a moment behind
		return count(ab) == 2 && count(ba) == 2
	})
	talk(t, a, b, "there")
	talk(t, b, a, "back")
	low, high := ab, ba
	if strings.Compare(a.Self().String(), b.Self().String()) > 0 {
		low, high = ba, ab
	}
	high.thin(0)
	low.thin(time.Hour)
	if count(low) != 2 || count(high) != 2 {
		t.Error("closed by the wrong node or too soon")
	}
	low.thin(0)
	until(t, "one connection to be closed", func() bool { return count(ab) == 1 && count(ba) == 1 })
	low.thin(0)
	if c := low.newest(); c == nil || c.Stat().Direction != network.DirOutbound {
		t.Error("the wrong connection is left")
	}
	talk(t, a, b, "there again")
	talk(t, b, a, "and back")
}

// proxy passes TCP connections on to an address and can be made to swallow everything.
type proxy struct {
	listener net.Listener
	to       string
	tasks    sync.WaitGroup
	mu       sync.Mutex
	mute     bool
	conns    []net.Conn
}

func newProxy(t *testing.T, to string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, to: to}
	p.tasks.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.tasks.Wait()
	})
	return p
}

func (p *proxy) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = in.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, in, out)
		p.mu.Unlock()
		p.tasks.Go(func() { p.copy(in, out) })
		p.tasks.Go(func() { p.copy(out, in) })
	}
}

func (p *proxy) copy(from, to net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		mute := p.mute
		p.mu.Unlock()
		switch {
		case err != nil && mute:
			return // leaves the other side open
		case err != nil:
			_ = to.Close()
			return
		case !mute:
			_, _ = to.Write(buf[:n])
		}
	}
}

func (p *proxy) setMute(mute bool) {
	p.mu.Lock()
	p.mute = mute
	p.mu.Unlock()
}

func TestDeadConnectionIsReplaced(t *testing.T) {
	quick := Limits{PingInterval: 50 * time.Millisecond, PingTimeout: 100 * time.Millisecond, DialTimeout: 200 * time.Millisecond}
	a := startOne(t, Config{Seed: seed(0), Listen: tcpOnly, Limits: quick})
	b := startOne(t, Config{Seed: seed(1), Listen: tcpOnly})
	port := strings.Split(b.Addrs()[0], "/")[4]
	p := newProxy(t, "127.0.0.1:"+port)
	through := strings.Split(p.listener.Addr().String(), ":")[1]
	if err := errors.Join(
		b.SetPeers([]Peer{{ID: a.Self()}}),
		a.SetPeers([]Peer{{ID: b.Self(), Addrs: []string{"/ip4/127.0.0.1/tcp/" + through}}}),
	); err != nil {
		t.Fatal(err)
	}
	talk(t, a, b, "alive")
	until(t, "round trips", func() bool { return a.Peers()[0].RTTMs > 0 })
	p.setMute(true)
	until(t, "the silence to be noticed", func() bool { return !connected(a) })
	if !connected(b) {
		t.Error("the other side, which does not test as often, has noticed too: this tests too little")
	}
	p.setMute(false)
	until(t, "another connection", func() bool { return connected(a) })
	talk(t, a, b, "alive again") // b's streams follow the newer connection
	talk(t, b, a, "both ways")
}

func TestGossipShutsOut(t *testing.T) {
	n := start(t, 2, tcpOnly)
	judge := func(_ netstack.NodeID, p []byte) netstack.Verdict {
		if p[0] == 'x' {
			return netstack.Reject
		}
		return netstack.Accept
	}
	for _, node := range n {
		if _, err := node.Subscribe("tutti/final/0", judge); err != nil {
			t.Fatal(err)
		}
	}
	// Each invalid message is counted until the sender's score shuts it out; how many that takes depends on when the
	// score is brought up to date.
	i, counted, since := 0, uint64(0), time.Now()
	until(t, "invalid messages to be shut out", func() bool {
		i++
		if err := n[0].Publish("tutti/final/0", fmt.Appendf(nil, "x%d", i)); err != nil {
			t.Fatal(err)
		}
		if c := n[1].Counters().GossipInvalid; c != counted {
			counted, since = c, time.Now()
		}
		return counted > 0 && time.Since(since) > 3*time.Second
	})
	// From now on not even valid ones get through, while votes do.
	before := n[1].Counters()
	for i := range 20 {
		if err := n[0].Publish("tutti/final/0", fmt.Appendf(nil, "valid %d", i)); err != nil {
			t.Fatal(err)
		}
		talk(t, n[0], n[1], fmt.Sprint("vote ", i))
	}
	if got := n[1].Counters().GossipReceived - before.GossipReceived; got != 0 {
		t.Errorf("%d messages heard from a peer that is shut out", got)
	}
}

func TestTopicFilter(t *testing.T) {
	var f topicFilter
	for _, tt := range []struct {
		topic string
		want  bool
	}{
		{"tutti/final/0", true},
		{"other/final/0", false},
		{"tutti/" + strings.Repeat("x", maxTopicBytes-6), true},
		{"tutti/" + strings.Repeat("x", maxTopicBytes-5), false},
	} {
		if got := f.CanSubscribe(tt.topic); got != tt.want {
			t.Errorf("%q: %v", tt.topic, got)
		}
	}
	for i := range 2 * maxTopics {
		f.CanSubscribe(fmt.Sprint("tutti/", i))
	}
	if len(f.known) != maxTopics || !f.CanSubscribe("tutti/final/0") || f.CanSubscribe("tutti/new") {
		t.Errorf("%d topics known", len(f.known))
	}
	n := startOne(t, Config{Seed: seed(1)})
	if _, err := n.Subscribe("elsewhere", nil); err == nil {
		t.Error("joined a topic of the wrong form")
	}
}

func TestContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n, err := New(ctx, Config{Seed: seed(1), Listen: tcpOnly, Peers: []Peer{{ID: netstack.NodeID{1}, Addrs: []string{"/ip4/127.0.0.1/tcp/1"}}}})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := n.Send(netstack.NodeID{1}, netstack.ClassVote, nil); !errors.Is(err, netstack.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}
