// Package lan is a network between namespaces on one machine, for tests and benchmarks: a Switch joins network namespaces, each of which
// has one device and no other way out, and does to the packets between two of them what a wide area does. It stands in
// for a bridge with a netem queue at each port: netem is not in every kernel, and its queue at a port knows no pairs, so
// that it can't lose what A sends to B and nothing else.
//
// A Link says what happens to packets from one port to another, in this direction: cut, lost, delayed, out of order,
// doubled, held to a rate. Packets are those that the kernel would put on a wire, so connections see their losses the way
// they would see a real one's.
//
// Nothing has a name outside of this process: namespaces have none, devices lie in them, and both are gone when the
// process and what it started are, however they end. The process needs CAP_SYS_ADMIN, CAP_NET_ADMIN and /dev/net/tun;
// Supported says what is missing.
//
// Queues are bounded: what is on its way to a port by packets, what waits for a rate by time; more is dropped, as
// a router does. Which packet meets which fate depends on their order, and so differs from run to run.
package lan
