package p2p

import (
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"log"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tutti/netstack"
	"tutti/netstack/transporttest"
)

// TestMain checks that nothing is left running and that nobody has logged.
func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.fuzz").Value.String() != "" {
		os.Exit(m.Run()) // fuzzing writes to stderr itself
	}
	logged, err := os.CreateTemp("", "p2p-stderr")
	if err != nil {
		panic(err)
	}
	stderr := os.Stderr
	os.Stderr = logged
	log.SetOutput(logged)
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.Stderr = stderr
		text, err := os.ReadFile(logged.Name())
		_ = os.Remove(logged.Name())
		if len(text) > 0 || err != nil {
			fmt.Fprintf(stderr, "a library wrote to stderr: %v\n%s\n", err, text)
			code = 1
		}
		os.Exit(code)
	}))
}

var (
	tcpOnly  = []string{"/ip4/127.0.0.1/tcp/0"}
	quicOnly = []string{"/ip4/127.0.0.1/udp/0/quic-v1"}
	both     = []string{"/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"}
)

func seed(i int) [32]byte { return sha256.Sum256([]byte{byte(i)}) }

func startOne(tb testing.TB, c Config) *Node {
	tb.Helper()
	n, err := New(context.Background(), c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := n.Close(); err != nil {
			tb.Error(err)
		}
	})
	return n
}

// start makes n nodes, tells them of one another and waits until all are connected.
func start(tb testing.TB, n int, listen []string, change ...func(*Config)) []*Node {
	tb.Helper()
	var nodes []*Node
	var peers []Peer
	for i := range n {
		c := Config{Seed: seed(i), Listen: listen}
		for _, f := range change {
			f(&c)
		}
		node := startOne(tb, c)
		nodes = append(nodes, node)
		peers = append(peers, Peer{ID: node.Self(), Addrs: node.Addrs()})
	}
	for _, node := range nodes {
		if err := node.SetPeers(peers); err != nil {
			tb.Fatal(err)
		}
	}
	until(tb, "connections", func() bool { return connected(nodes...) })
	return nodes
}

// connected tells whether every node is connected to every peer.
func connected(nodes ...*Node) bool {
	for _, node := range nodes {
		for _, p := range node.Peers() {
			if !p.Connected {
				return false
			}
		}
	}
	return true
}

func until(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for start := time.Now(); !cond(); <-poll.C {
		if time.Since(start) > 20*time.Second {
			tb.Fatal("still waiting for " + what)
		}
	}
}

func next(tb testing.TB, from <-chan netstack.Message) netstack.Message {
	tb.Helper()
	select {
	case m := <-from:
		return m
	case <-time.After(20 * time.Second):
		tb.Fatal("nothing received")
		panic("unreachable")
	}
}

func TestConformance(t *testing.T) {
	for name, listen := range map[string][]string{"tcp": tcpOnly, "quic": quicOnly} {
		t.Run(name, func(t *testing.T) {
			transporttest.Suite{
				Start: func(t *testing.T, n int) []netstack.Transport {
					var out []netstack.Transport
					for _, node := range start(t, n, listen) {
						out = append(out, node)
					}
					return out
				},
				Requests: DefaultLimits().Requests,
			}.Run(t)
		})
	}
}
