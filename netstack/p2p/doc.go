// Package p2p is the netstack.Transport over go-libp2p: TCP (Noise, yamux) and QUIC between peers that are known from
// genesis or the configuration.
//
// # Identity
//
// A node's key pair comes from a 32-byte Ed25519 seed, its NodeID is the raw public key. Both transports prove
// possession of the key in their handshake; a connection is used under no other name. Connections with keys that are
// not in the peer list are closed after the handshake (Config.AllowStrangers lifts this for public full nodes).
//
// # Connections
//
// One goroutine for each peer keeps it connected: it dials with jittered, doubling pauses, tests the connection at
// intervals and closes one that does not answer. Of two nodes the one with the lower NodeID dials first, so that they
// seldom meet in the middle; if both connections come up, the newest is used until one of them is closed after a
// while. Dials go over TCP first, because QUIC costs two to three times the CPU per byte here, and over QUIC where TCP
// does not get through.
//
// # Streams, inputs and outputs
//
//   - Send: one long-lived stream for each peer and class, "/tutti/vote/1", "/tutti/proposal/1",
//     "/tutti/transaction/1", written by one goroutine from a queue bounded in messages and bytes, as frames
//     (u32 big-endian length, payload). The queue drops its oldest when full, and what has waited too long.
//     Inbound frames pass a token bucket (messages and bytes a second) for the peer and class; what is over is
//     dropped and the stream is then not read for a while, so that a flood costs its sender more than this node.
//   - Request: one stream each; a frame there, a status byte and a frame back. At most Limits.Requests at a time
//     with one peer in each direction.
//   - Publish: gossipsub without signatures and authors; messages are named by the hash of topic and content. A peer
//     that passes on invalid messages is ignored by gossip after a few of them, for minutes; its other traffic is not
//     touched, since an honest node of another version may look like that.
//
// Votes do not queue behind bodies: their streams are separate, and yamux sends in pieces of 64 KiB, of which a
// stream's window lets about two bandwidth-delay products be under way. (Measured on loopback cut to 100 Mb/s, a 2 MiB
// body every 250 ms: votes take 6 ms at the median, 20 to 30 ms at the 99th percentile. A gate before yamux's queue
// together with TCP_NOTSENT_LOWAT brought nothing and halved the throughput, so there is none.)
//
// # Failure
//
// No error is fatal to the process. Nothing here logs; libp2p's loggers are given a handler that discards. Peers()
// tells why a peer is not connected.
//
// # Deviations
//
// libp2p's identify, ping, relay, NAT and discovery services are not run: what peers speak is fixed by this package's
// version, their addresses are configured. Its per-address connection limits are lifted, since several validators may
// share an address; totals stay bounded.
package p2p
