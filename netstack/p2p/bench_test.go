package p2p

import (
	"context"
	"syscall"
	"testing"
	"time"

	"tutti/netstack"
)

// cpuTime is the CPU time of this process so far, user and system.
func cpuTime(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// unlimited lifts the inbound rates, which benchmarks exceed.
func unlimited(c *Config) {
	for class := range c.Limits.Rate {
		c.Limits.Rate[class] = Rate{MessagesPerSecond: 1e9, BytesPerSecond: 1e12}
	}
}

// benchmarkSend measures one direction between two nodes of this process. cpu-ns/op is that of both.
func benchmarkSend(b *testing.B, listen []string, class netstack.Class, size, window int) {
	n := start(b, 2, listen, unlimited)
	payload := make([]byte, size)
	to, from := n[1].Self(), n[1].Receive(class)
	b.SetBytes(int64(size))
	b.ResetTimer()
	before := cpuTime(b)
	for sent, got := 0, 0; got < b.N; got++ {
		for ; sent < b.N && sent-got < window; sent++ {
			if err := n[0].Send(to, class, payload); err != nil {
				b.Fatal(err)
			}
		}
		next(b, from)
	}
	b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
}

func BenchmarkVotes(b *testing.B) {
	b.Run("tcp", func(b *testing.B) { benchmarkSend(b, tcpOnly, netstack.ClassVote, 200, 2000) })
	b.Run("quic", func(b *testing.B) { benchmarkSend(b, quicOnly, netstack.ClassVote, 200, 2000) })
}

// BenchmarkVoteAlone sends the next vote when the last has come, as on a quiet network.
func BenchmarkVoteAlone(b *testing.B) {
	b.Run("tcp", func(b *testing.B) { benchmarkSend(b, tcpOnly, netstack.ClassVote, 200, 1) })
	b.Run("quic", func(b *testing.B) { benchmarkSend(b, quicOnly, netstack.ClassVote, 200, 1) })
}

func BenchmarkBodies(b *testing.B) {
	b.Run("tcp", func(b *testing.B) { benchmarkSend(b, tcpOnly, netstack.ClassProposal, 256<<10, 8) })
	b.Run("quic", func(b *testing.B) { benchmarkSend(b, quicOnly, netstack.ClassProposal, 256<<10, 8) })
}

func BenchmarkRequest(b *testing.B) {
	for name, listen := range map[string][]string{"tcp": tcpOnly, "quic": quicOnly} {
		b.Run(name, func(b *testing.B) {
			n := start(b, 2, listen)
			n[1].Serve("/tutti/echo/1", func(_ context.Context, _ netstack.NodeID, q []byte) ([]byte, error) { return q, nil })
			b.ResetTimer()
			before := cpuTime(b)
			for range b.N {
				if _, err := n[0].Request(b.Context(), n[1].Self(), "/tutti/echo/1", make([]byte, 200)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkGossip publishes 600 B certificates among 8 nodes; an operation is one message heard by all. cpu-ns/op is
// that of all nodes.
func BenchmarkGossip(b *testing.B) {
	n := start(b, 8, tcpOnly)
	var queues []<-chan netstack.Message
	for _, node := range n {
		q, err := node.Subscribe("tutti/final/0", func(netstack.NodeID, []byte) bool { return true })
		if err != nil {
			b.Fatal(err)
		}
		queues = append(queues, q)
	}
	time.Sleep(2 * time.Second) // the mesh forms in the background
	payload := make([]byte, 600)
	b.ResetTimer()
	before := cpuTime(b)
	for i := range b.N {
		copy(payload, time.Now().String())
		if err := n[i%8].Publish("tutti/final/0", append([]byte(nil), payload...)); err != nil {
			b.Fatal(err)
		}
		for who, q := range queues {
			if who != i%8 {
				next(b, q)
			}
		}
	}
	b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
}

// BenchmarkIdle lets 8 connected nodes with a gossip topic do nothing for some seconds, whatever b.N is.
func BenchmarkIdle(b *testing.B) {
	for name, listen := range map[string][]string{"tcp": both, "quic": quicOnly} {
		b.Run(name, func(b *testing.B) {
			n := start(b, 8, listen)
			for _, node := range n {
				if _, err := node.Subscribe("tutti/final/0", func(netstack.NodeID, []byte) bool { return true }); err != nil {
					b.Fatal(err)
				}
			}
			time.Sleep(2 * time.Second)
			b.ResetTimer()
			before, began := cpuTime(b), time.Now()
			time.Sleep(5 * time.Second)
			perNode := (cpuTime(b) - before).Seconds() * 1e3 / float64(len(n))
			b.ReportMetric(perNode/time.Since(began).Seconds(), "cpu-ms/node/s")
		})
	}
}
