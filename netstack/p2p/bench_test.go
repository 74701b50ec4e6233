package p2p

import (
	"context"
	"encoding/binary"
	"slices"
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
		<-from
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
		q, err := node.Subscribe("tutti/final/0", func(netstack.NodeID, []byte) netstack.Verdict { return netstack.Accept })
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
				<-q
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
				if _, err := node.Subscribe("tutti/final/0", func(netstack.NodeID, []byte) netstack.Verdict { return netstack.Accept }); err != nil {
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

// BenchmarkVoteBehindBodies sends a 2 MiB body every 250 ms and a vote every 10 ms to the same peer and reports how
// long votes take. On the plain loopback both are fast; the point is a slow link:
//
//	unshare -n sh -c 'ip link set lo mtu 1500 up && tc qdisc add dev lo root tbf rate 100mbit burst 32kb latency 50ms &&
//	  go test -run xxx -bench VoteBehindBodies -benchtime 1x ./netstack/p2p'
func BenchmarkVoteBehindBodies(b *testing.B) {
	for name, listen := range map[string][]string{"tcp": tcpOnly, "quic": quicOnly} {
		for load, bodyBytes := range map[string]int{"alone": 0, "bodies": 2 << 20} {
			b.Run(name+"/"+load, func(b *testing.B) { voteBehindBodies(b, listen, bodyBytes) })
		}
	}
}

func voteBehindBodies(b *testing.B, listen []string, bodyBytes int) {
	const seconds = 4
	n := start(b, 2, listen)
	to := n[1].Self()
	began := time.Now()
	stamp := func(size int) []byte {
		p := make([]byte, size)
		binary.BigEndian.PutUint64(p, uint64(time.Since(began)))
		return p
	}
	go func() {
		votes, bodies := time.NewTicker(10*time.Millisecond), time.NewTicker(250*time.Millisecond)
		defer votes.Stop()
		defer bodies.Stop()
		for time.Since(began) < seconds*time.Second {
			select {
			case <-votes.C:
				_ = n[0].Send(to, netstack.ClassVote, stamp(200))
			case <-bodies.C:
				if bodyBytes > 0 {
					_ = n[0].Send(to, netstack.ClassProposal, stamp(bodyBytes))
				}
			}
		}
		_ = n[0].Send(to, netstack.ClassVote, stamp(8))
	}()
	var took [2][]time.Duration
	add := func(i int, m netstack.Message) {
		took[i] = append(took[i], time.Since(began)-time.Duration(binary.BigEndian.Uint64(m.Payload)))
	}
	for done := false; !done; {
		select {
		case m := <-n[1].Receive(netstack.ClassVote):
			add(0, m)
			done = len(m.Payload) == 8
		case m := <-n[1].Receive(netstack.ClassProposal):
			add(1, m)
		}
	}
	for i, kind := range []string{"vote", "body"} {
		slices.Sort(took[i])
		if k := len(took[i]); k > 0 {
			b.ReportMetric(took[i][k/2].Seconds()*1e3, kind+"-p50-ms")
			b.ReportMetric(took[i][k*99/100].Seconds()*1e3, kind+"-p99-ms")
		}
	}
}
