package p2p

import (
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// gater decides who may connect. The swarm calls it from any goroutine.
type gater struct{ n *Node }

var _ connmgr.ConnectionGater = gater{}

// InterceptPeerDial lets only configured peers be dialled, and none that is being penalised.
func (g gater) InterceptPeerDial(p peer.ID) bool {
	l := g.n.linkOf(p)
	return l != nil && !l.stranger && !g.n.penalised(l.id)
}

func (g gater) InterceptAddrDial(peer.ID, ma.Multiaddr) bool { return true }

func (g gater) InterceptAccept(network.ConnMultiaddrs) bool { return true }

// InterceptSecured runs after the handshake, with a proven identity.
func (g gater) InterceptSecured(dir network.Direction, p peer.ID, _ network.ConnMultiaddrs) bool {
	if dir == network.DirOutbound {
		return g.InterceptPeerDial(p)
	}
	if l := g.n.linkOf(p); l != nil {
		return !g.n.penalised(l.id)
	}
	if g.n.roomForStranger(p) {
		return true
	}
	g.n.count.refusedUnknownPeer.Add(1)
	return false
}

func (g gater) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }
