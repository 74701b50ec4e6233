package p2p

import (
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/gologshim"
	blankhost "github.com/libp2p/go-libp2p/p2p/host/blank"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/x/rate"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"
	"github.com/quic-go/quic-go"

	"tutti/netstack"
)

// negotiateTime bounds the choice of a protocol on a new stream.
const negotiateTime = 10 * time.Second

// quicDelay is how long a dial over TCP is ahead of the one over QUIC. TCP with Noise and yamux costs a third of the
// CPU per byte (1.2 against 3.5 to 4 CPU-seconds per GB, measured here), so QUIC is only what is left where TCP does
// not get through. A TCP dial that fails lets QUIC start at once.
const quicDelay = 500 * time.Millisecond

// host is what this package uses of libp2p: a swarm with two transports and a protocol switch. There is no identify,
// ping, relay, NAT or discovery service: peers come from a list, and what they speak is fixed.
//
// Newer connections are preferred over older ones, so that streams follow a peer that came back while its old
// connection looks alive.
type host struct {
	*blankhost.BlankHost
	swarm      *swarm.Swarm
	resources  network.ResourceManager
	quic       *quicreuse.ConnManager
	identified event.Emitter // tells gossip of a new peer, in the place of identify
	newest     func(peer.ID) network.Conn
}

func newHost(key crypto.PrivKey, l Limits, gater connmgr.ConnectionGater, meter *wire, newest func(peer.ID) network.Conn) (_ *host, err error) {
	// Libraries of ours never log; libp2p's loggers ask for this handler at their first record.
	gologshim.SetDefaultHandler(slog.DiscardHandler)
	// quic-go would write to stderr that it wants a larger net.core.rmem_max; that is for `tutti doctor` to say.
	if err := os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true"); err != nil {
		return nil, err
	}
	h := &host{newest: newest}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, err
	}
	store, err := pstoremem.NewPeerstore()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(store.AddPrivKey(id, key), store.AddPubKey(id, key.GetPublic())); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	if h.resources, err = newResources(l); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	bus := eventbus.NewBus()
	h.swarm, err = swarm.NewSwarm(id, store, bus,
		swarm.WithConnectionGater(gater), swarm.WithResourceManager(h.resources),
		swarm.WithDialRanker(tcpFirst), swarm.WithDialTimeout(l.DialTimeout), swarm.WithDialTimeoutLocal(l.DialTimeout),
		swarm.WithUDPBlackHoleSuccessCounter(nil), swarm.WithIPv6BlackHoleSuccessCounter(nil))
	if err != nil {
		return nil, errors.Join(err, h.resources.Close(), store.Close())
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	if err := h.addTransports(key, l, gater, meter); err != nil {
		return nil, err
	}
	h.BlankHost = blankhost.NewBlankHost(h.swarm, blankhost.WithEventBus(bus))
	if h.BlankHost == nil {
		return nil, errors.New("p2p: libp2p host could not be set up")
	}
	h.swarm.SetStreamHandler(h.accept)
	h.identified, err = bus.Emitter(new(event.EvtPeerIdentificationCompleted))
	return h, err
}

// addTransports gives the swarm TCP (Noise, yamux) and QUIC. TCP does not use SO_REUSEPORT: a second process of the
// same user would share a busy port silently and take half of the connections. (What quicreuse calls so is to dial
// from the listening socket; without it, v0.51.0 leaks a socket for each dial.)
func (h *host) addTransports(key crypto.PrivKey, l Limits, gater connmgr.ConnectionGater, meter *wire) error {
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	security, err := noise.New(noise.ID, key, muxers)
	if err != nil {
		return err
	}
	up, err := upgrader.New([]sec.SecureTransport{meteredSecurity{security, meter}}, muxers, nil, h.resources, gater)
	if err != nil {
		return err
	}
	overTCP, err := tcp.NewTCPTransport(up, h.resources, nil, tcp.DisableReuseport(), tcp.WithConnectionTimeout(l.DialTimeout))
	if err != nil {
		return err
	}
	seed, err := key.Raw()
	if err != nil {
		return err
	}
	secrets, err := hkdf.Key(sha256.New, seed[:ed25519.SeedSize], nil, "tutti/p2p quic keys/1", 64)
	if err != nil {
		return err
	}
	h.quic, err = quicreuse.NewConnManager(quic.StatelessResetKey(secrets[:32]), quic.TokenGeneratorKey(secrets[32:]),
		quicreuse.ConnContext(h.admitQUIC), quicreuse.VerifySourceAddress(h.resources.VerifySourceAddress))
	if err != nil {
		return err
	}
	overQUIC, err := libp2pquic.NewTransport(key, h.quic, nil, gater, h.resources)
	if err != nil {
		return err
	}
	return errors.Join(h.swarm.AddTransport(overTCP), h.swarm.AddTransport(overQUIC))
}

// admitQUIC counts an inbound QUIC connection before its handshake, as the TCP listener does by itself.
func (h *host) admitQUIC(ctx context.Context, client *quic.ClientInfo) (context.Context, error) {
	addr, err := quicreuse.ToQuicMultiaddr(client.RemoteAddr, quic.Version1)
	if err != nil {
		return ctx, err
	}
	scope, err := h.resources.OpenConnection(network.DirInbound, false, addr)
	if err != nil {
		return ctx, err
	}
	context.AfterFunc(ctx, scope.Done)
	return network.WithConnManagementScope(ctx, scope), nil
}

// listen opens every address or none.
func (h *host) listen(addrs []ma.Multiaddr) error {
	for _, a := range addrs {
		err := h.swarm.AddListenAddr(a)
		if errors.Is(err, syscall.EADDRINUSE) {
			port := a[len(a)-1].Value()
			if isQUIC(a) {
				port = a[len(a)-2].Value()
			}
			return fmt.Errorf("p2p: port %s of %s is used by another process; stop that process or configure another port", port, a)
		}
		if err != nil {
			return fmt.Errorf("p2p: cannot listen on %s: %w; configure an address of this machine", a, err)
		}
	}
	return nil
}

// Close ends every connection and listener and waits for the swarm's goroutines.
func (h *host) Close() error {
	err := h.swarm.Close()
	if h.identified != nil {
		err = errors.Join(err, h.identified.Close())
	}
	if h.quic != nil {
		err = errors.Join(err, h.quic.Close())
	}
	return errors.Join(err, h.resources.Close(), h.swarm.Peerstore().Close())
}

// accept chooses the protocol of an inbound stream within a time and runs its handler.
func (h *host) accept(s network.Stream) {
	if err := s.SetDeadline(time.Now().Add(negotiateTime)); err != nil {
		_ = s.Reset()
		return
	}
	proto, handle, err := h.Mux().Negotiate(s)
	if err == nil {
		err = s.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = s.Close() // not Reset: a "protocol not supported" may be on its way
		return
	}
	_ = handle(proto, s)
}

// NewStream opens a stream on the newest connection of a peer; it never dials. Gossip calls it.
func (h *host) NewStream(ctx context.Context, p peer.ID, protos ...protocol.ID) (network.Stream, error) {
	conn := h.newest(p)
	if conn == nil {
		return nil, network.ErrNoConn
	}
	return open(ctx, conn, protos...)
}

// open opens a stream on conn and agrees on the first of protos that the other side speaks.
func open(ctx context.Context, conn network.Conn, protos ...protocol.ID) (network.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, negotiateTime)
	defer cancel()
	s, err := conn.NewStream(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	proto, err := multistream.SelectOneOf(protos, s)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = s.SetProtocol(proto)
	}
	if err != nil {
		_ = s.Reset()
		return nil, err
	}
	return s, nil
}

// tcpFirst ranks dial addresses: TCP at once, QUIC after quicDelay.
func tcpFirst(addrs []ma.Multiaddr) []network.AddrDelay {
	var first, later []network.AddrDelay
	for _, a := range addrs {
		if isTCP(a) {
			first = append(first, network.AddrDelay{Addr: a})
		} else {
			later = append(later, network.AddrDelay{Addr: a, Delay: quicDelay})
		}
	}
	if len(first) == 0 {
		for i := range later {
			later[i].Delay = 0
		}
	}
	return append(first, later...)
}

// newResources lays out libp2p's resource manager for l.Peers peers. Its defaults allow 8 connections and one new
// one in 5 seconds from an address, which breaks several validators behind one address; here only totals are bounded.
func newResources(l Limits) (network.ResourceManager, error) {
	const (
		connsPerPeer   = 4  // both sides may dial at once, over a connection that is about to be given up
		streamsPerPeer = 96 // 3 classes, gossip and pings each way, requests; twice, while moving to a new connection
	)
	n := rcmgr.LimitVal(l.Peers)
	streams := rcmgr.LimitVal(streamsPerPeer + 4*l.Requests)
	limits := func(conns, streams, fd rcmgr.LimitVal, memory int64) rcmgr.ResourceLimits {
		return rcmgr.ResourceLimits{
			Conns: conns, ConnsInbound: conns, ConnsOutbound: conns, FD: fd,
			Streams: 2 * streams, StreamsInbound: streams, StreamsOutbound: streams, Memory: rcmgr.LimitVal64(memory),
		}
	}
	transient := limits(256, 4*n, 256, 256<<20) // before the handshake is done, the protocol chosen
	system := limits(2*n+256, 16*n+4*streams, 2*n+256, l.WindowMemory)
	onePeer := limits(connsPerPeer, streams, connsPerPeer, min(l.WindowMemory, 128<<20))
	config := rcmgr.PartialLimitConfig{
		System: system, Transient: transient, PeerDefault: onePeer,
		ServiceDefault: system, ServicePeerDefault: onePeer,
		ProtocolDefault: system, ProtocolPeerDefault: onePeer,
		Conn: limits(1, streams, 1, 128<<20), Stream: limits(1, 1, 1, 32<<20),
		AllowlistedSystem: system, AllowlistedTransient: transient,
	}
	everywhere := func(bits int) []rcmgr.ConnLimitPerSubnet {
		return []rcmgr.ConnLimitPerSubnet{{PrefixLength: bits, ConnCount: int(system.Conns)}}
	}
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(config.Build(rcmgr.InfiniteLimits)),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(everywhere(32), everywhere(56)),
		rcmgr.WithNetworkPrefixLimit([]rcmgr.NetworkPrefixLimit{}, []rcmgr.NetworkPrefixLimit{}),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			// A handshake with a stranger costs about 0.3 ms; this bounds what strangers can take of one core.
			GlobalLimit: rate.Limit{RPS: 500, Burst: 2 * l.Peers},
			NetworkPrefixLimits: []rate.PrefixLimit{
				{Prefix: netip.MustParsePrefix("127.0.0.0/8")}, {Prefix: netip.MustParsePrefix("::1/128")},
			},
		}))
}

// privateKey makes libp2p's form of the key of a seed.
func privateKey(seed [32]byte) (crypto.PrivKey, netstack.NodeID, error) {
	key := ed25519.NewKeyFromSeed(seed[:])
	priv, err := crypto.UnmarshalEd25519PrivateKey(key)
	return priv, netstack.NodeID(key.Public().(ed25519.PublicKey)), err
}

// peerID is libp2p's form of a NodeID. It holds the whole key, so the two map to one another.
func peerID(id netstack.NodeID) (peer.ID, error) {
	key, err := crypto.UnmarshalEd25519PublicKey(id[:])
	if err != nil {
		return "", err
	}
	return peer.IDFromPublicKey(key)
}

// nodeID is the reverse of peerID; false for keys of other kinds.
func nodeID(p peer.ID) (netstack.NodeID, bool) {
	key, err := p.ExtractPublicKey()
	if err != nil {
		return netstack.NodeID{}, false
	}
	raw, err := key.Raw()
	if err != nil || key.Type() != crypto.Ed25519 || len(raw) != ed25519.PublicKeySize {
		return netstack.NodeID{}, false
	}
	return netstack.NodeID(raw), true
}
