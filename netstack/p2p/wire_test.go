package p2p

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tutti/netstack"
)

func TestOnWire(t *testing.T) {
	for name, c := range map[string]struct {
		info           unix.TCPInfo
		sent, received uint64
	}{
		"nothing": {},
		"small segments, an acknowledgement for each": {
			unix.TCPInfo{Bytes_sent: 1000, Data_segs_out: 10, Segs_out: 12, Segs_in: 11}, 1000 + 12*52, 11 * 52,
		},
		"one large segment on loopback": { // 46 packets elsewhere, and 23 acknowledgements
			unix.TCPInfo{Bytes_sent: 65_483, Data_segs_out: 1, Segs_out: 1, Segs_in: 1}, 65_483 + 46*52, 23 * 52,
		},
		"answers acknowledge": {
			unix.TCPInfo{Bytes_sent: 14_480, Data_segs_out: 1, Segs_out: 1, Bytes_received: 14_480, Data_segs_in: 1, Segs_in: 1}, 14_480 + 10*52, 14_480 + 10*52,
		},
	} {
		if sent, received := onWire(&c.info, headerBytesV4); sent != c.sent || received != c.received {
			t.Errorf("%s: %d and %d bytes, want %d and %d", name, sent, received, c.sent, c.received)
		}
	}
}

// TestWire sends a megabyte, and finds it on both ends, with what is around it, also when the connection has ended.
func TestWire(t *testing.T) {
	for name, listen := range map[string][]string{"tcp": tcpOnly, "quic": quicOnly} {
		t.Run(name, func(t *testing.T) { wireOver(t, listen) })
	}
}

func wireOver(t *testing.T, listen []string) {
	nodes := start(t, 2, listen)
	const payload, messages = 10_000, 100
	for range messages {
		if err := nodes[0].Send(nodes[1].Self(), netstack.ClassProposal, make([]byte, payload)); err != nil {
			t.Fatal(err)
		}
		<-nodes[1].Receive(netstack.ClassProposal)
	}
	least, most := uint64(payload*messages), uint64(payload*messages*12/10)
	check := func(when string) {
		a, b := nodes[0].Counters(), nodes[1].Counters()
		if a.WireSent < least || a.WireSent > most || b.WireReceived < least || b.WireReceived > most {
			t.Errorf("%s: %d bytes sent, %d received, want %d to %d", when, a.WireSent, b.WireReceived, least, most)
		}
		if a.WireReceived == 0 || a.WireReceived > least/10 {
			t.Errorf("%s: the other way %d bytes", when, a.WireReceived)
		}
	}
	check("connected")
	other, err := peerID(nodes[1].Self())
	if err != nil {
		t.Fatal(err)
	}
	nodes[0].Penalise(nodes[1].Self(), time.Now().Add(time.Hour))
	until(t, "the connection to end", func() bool { return nodes[0].newestConn(other) == nil })
	check("ended")
}

// TestWireOther leaves a connection alone that the kernel does not count.
func TestWireOther(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	var w wire
	if got := w.meter(a); got != a || len(w.live) != 0 {
		t.Error("a pipe is counted")
	}
}
