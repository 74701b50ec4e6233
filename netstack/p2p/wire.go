package p2p

import (
	"context"
	"net"
	"sync"
	"syscall"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"
)

// # What is on the wire
//
// Counters.WireSent and WireReceived come from the kernel (TCP_INFO): every byte of the stream, with the framing of Noise and
// yamux and what was sent again, and 52 bytes of IPv4 and TCP headers (72 with IPv6) for each segment. Loopback carries segments
// of up to 64 KiB; so that the figure means the same everywhere, there are taken to be as many as there would be in packets of
// 1,500 bytes, and an acknowledgement for every second one at least. Of connections over QUIC, quic-go counts bytes and packets,
// which get 28 bytes of IPv4 and UDP headers each (48 with IPv6). Ethernet's own 38 bytes for each packet are not in it.

// Of a segment in a packet of 1,500 bytes with time stamps. The payload is the one over IPv4.
const (
	segmentBytes  = 1448
	headerBytesV4 = 20 + 20 + 12
	headerBytesV6 = 40 + 20 + 12
	datagramBytes = 20 + 8 // headers of a QUIC packet over IPv4
	moreBytesV6   = headerBytesV6 - headerBytesV4
)

// wire adds up what is on the wire of all connections.
type wire struct {
	mu             sync.Mutex                             // guards what follows
	live           map[any]func() (sent, received uint64) // by *meteredConn, or network.Conn over QUIC
	sent, received uint64                                 // of connections that have ended
}

// meteredConn is a TCP connection that is counted until it ends.
type meteredConn struct {
	net.Conn
	raw    syscall.RawConn
	header uint64
	wire   *wire
}

// meter begins to count a connection. One that is not of TCP is left as it is.
func (w *wire) meter(c net.Conn) net.Conn {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return c
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return c
	}
	m := &meteredConn{Conn: c, raw: raw, header: headerBytesV4, wire: w}
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok && a.IP.To4() == nil {
		m.header = headerBytesV6
	}
	w.begin(m, m.count)
	return m
}

// meterQUIC begins to count a connection if it is over QUIC. Its end is to be told.
func (w *wire) meterQUIC(c network.Conn) {
	var q *quic.Conn
	if !c.As(&q) {
		return
	}
	header := uint64(datagramBytes)
	if a, ok := q.RemoteAddr().(*net.UDPAddr); ok && a.IP.To4() == nil {
		header += moreBytesV6
	}
	w.begin(c, func() (sent, received uint64) {
		s := q.ConnectionStats()
		return s.BytesSent + header*s.PacketsSent, s.BytesReceived + header*s.PacketsReceived
	})
}

func (w *wire) begin(c any, count func() (sent, received uint64)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.live == nil {
		w.live = map[any]func() (uint64, uint64){}
	}
	w.live[c] = count
}

// end keeps what a connection counted, just before it is closed. Calls after the first do nothing.
func (w *wire) end(c any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if count := w.live[c]; count != nil {
		delete(w.live, c)
		sent, received := count()
		w.sent, w.received = w.sent+sent, w.received+received
	}
}

// total is what is on the wire since the start.
func (w *wire) total() (sent, received uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	sent, received = w.sent, w.received
	for _, count := range w.live {
		s, r := count()
		sent, received = sent+s, received+r
	}
	return sent, received
}

// Close closes the connection and keeps what it counted.
func (m *meteredConn) Close() error {
	m.wire.end(m)
	return m.Conn.Close()
}

// count asks the kernel. A connection that it has forgotten counts nothing.
func (m *meteredConn) count() (sent, received uint64) {
	var info *unix.TCPInfo
	var err error
	if failed := m.raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); failed != nil || err != nil {
		return 0, 0
	}
	return onWire(info, m.header)
}

// onWire is the bytes of a connection, with headers.
func onWire(i *unix.TCPInfo, header uint64) (sent, received uint64) {
	out := max(uint64(i.Data_segs_out), (i.Bytes_sent+segmentBytes-1)/segmentBytes)
	in := max(uint64(i.Data_segs_in), (i.Bytes_received+segmentBytes-1)/segmentBytes)
	// A segment with data acknowledges as well.
	bare := func(counted, data uint32, theirs, ours uint64) uint64 {
		return max(uint64(counted-min(data, counted)), theirs/2-min(ours, theirs/2))
	}
	sent = i.Bytes_sent + header*(out+bare(i.Segs_out, i.Data_segs_out, in, out))
	received = i.Bytes_received + header*(in+bare(i.Segs_in, i.Data_segs_in, out, in))
	return sent, received
}

// meteredSecurity counts the connections that it secures.
type meteredSecurity struct {
	sec.SecureTransport
	wire *wire
}

func (s meteredSecurity) SecureInbound(ctx context.Context, c net.Conn, p peer.ID) (sec.SecureConn, error) {
	return s.secure(ctx, c, p, s.SecureTransport.SecureInbound)
}

func (s meteredSecurity) SecureOutbound(ctx context.Context, c net.Conn, p peer.ID) (sec.SecureConn, error) {
	return s.secure(ctx, c, p, s.SecureTransport.SecureOutbound)
}

func (s meteredSecurity) secure(ctx context.Context, c net.Conn, p peer.ID, how func(context.Context, net.Conn, peer.ID) (sec.SecureConn, error)) (sec.SecureConn, error) {
	c = s.wire.meter(c)
	out, err := how(ctx, c, p)
	if m, ok := c.(*meteredConn); ok && err != nil { // the caller closes the connection that it knows
		s.wire.end(m)
	}
	return out, err
}
