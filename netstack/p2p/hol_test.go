package p2p

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"tutti/netstack"
)

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
