// Package simnet is a netstack.Transport in memory, for tests of what is built on it: a Network of nodes with a
// delay, jitter and loss for each direction of each link, and partitions.
//
// Time is package time's, so that inside a testing/synctest bubble it is virtual and a test of minutes runs in
// milliseconds. What happens to a message is drawn from a generator of its link, seeded by Config.Seed and the two
// NodeIDs: a link treats its i-th message alike in every run with the seed, whatever goroutines run in between.
// Events of one instant happen in the order in which they were scheduled, one at a time. What is left to chance is the
// order in which goroutines of the test call Send.
//
// Every node is a peer of every other. Sends and gossip hops can be lost; a request or answer that is "lost" arrives
// later, as over TCP. Gossip floods: each node passes on what is new to it and valid. Invalid gossip is counted and
// goes no further; its sender is not shut out. Queues have the bounds of package p2p's defaults.
//
// No goroutine runs while nothing happens: deliveries run on a timer, handlers of requests on goroutines of their own.
package simnet

import (
	"bytes"
	"container/heap"
	"container/list"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"tutti/netstack"
)

// Config of a Network. The zero value is a perfect network without delay.
type Config struct {
	Seed uint64
	Link Link // of every direction that SetLink has not set

	Requests    int           // in progress with one peer in each direction; 0 means 8
	RequestTime time.Duration // limit of one request; 0 means 30 s
	Receive     int           // messages of a class awaiting a reader; 0 means 8192, 32 and 128
}

// Link is what one direction between two nodes does to messages.
type Link struct {
	Delay  time.Duration // of every message
	Jitter time.Duration // at most this much more, drawn evenly; so messages may overtake one another
	Loss   float64       // probability of a loss, 0 to 1
}

// resendDelay is how much later a request or answer arrives for each time that it is drawn as lost.
const resendDelay = 200 * time.Millisecond

// queue bounds of a link, by class, as of package p2p.
var (
	sendMessages = [netstack.Classes]int{4096, 16, 64}
	sendBytes    = [netstack.Classes]int{2 << 20, 32 << 20, 32 << 20}
	receiveQueue = [netstack.Classes]int{8192, 32, 128}
)

const (
	gossipQueue = 256
	gossipSeen  = 8192 // messages that a node remembers
)

// Network joins nodes. All methods are safe for concurrent use.
type Network struct {
	config Config

	mu      sync.Mutex
	nodes   map[netstack.NodeID]*Node // open ones
	left    map[netstack.NodeID]bool  // closed ones; they stay in every peer list
	links   map[[2]netstack.NodeID]*link
	group   map[netstack.NodeID]int // of a partition; nil when there is none
	events  eventHeap
	seq     uint64
	timer   *time.Timer // set for the earliest event, nil until there was one
	running bool        // pump is at work
}

// link is one direction between two nodes. Network.mu guards it.
type link struct {
	Link
	draw   *rand.Rand
	flight [netstack.Classes]list.List // of *event, oldest first
	bytes  [netstack.Classes]int
}

// New makes a network without nodes.
func New(c Config) *Network {
	if c.Requests == 0 {
		c.Requests = 8
	}
	if c.RequestTime == 0 {
		c.RequestTime = 30 * time.Second
	}
	return &Network{
		config: c,
		nodes:  map[netstack.NodeID]*Node{}, left: map[netstack.NodeID]bool{},
		links: map[[2]netstack.NodeID]*link{},
	}
}

// Join adds a node. It panics if an open node has the id; one that was closed may join anew, as after a restart.
func (n *Network) Join(id netstack.NodeID) *Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nodes[id] != nil {
		panic("simnet: node " + id.Short() + " has joined already")
	}
	node := newNode(n, id)
	n.nodes[id] = node
	delete(n.left, id)
	return node
}

// SetLink sets what the direction from one node to another does. Messages under way are not touched.
func (n *Network) SetLink(from, to netstack.NodeID, l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.link(from, to).Link = l
}

// Partition lets nodes talk only within their group; a node in no group is alone. Messages between groups that are
// under way are lost. It replaces an earlier partition.
func (n *Network) Partition(groups ...[]netstack.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.group = map[netstack.NodeID]int{}
	for i, g := range groups {
		for _, id := range g {
			n.group[id] = i + 1
		}
	}
}

// Heal ends a partition.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.group = nil
}

// Close closes every node.
func (n *Network) Close() {
	n.mu.Lock()
	var nodes []*Node
	for _, node := range n.nodes {
		nodes = append(nodes, node)
	}
	n.mu.Unlock()
	for _, node := range nodes {
		_ = node.Close()
	}
}

// reaches tells whether a message may pass between two nodes now. The caller holds mu.
func (n *Network) reaches(a, b netstack.NodeID) bool {
	return n.group == nil || a == b || n.group[a] != 0 && n.group[a] == n.group[b]
}

// link finds or makes a direction. The caller holds mu.
func (n *Network) link(from, to netstack.NodeID) *link {
	key := [2]netstack.NodeID{from, to}
	l := n.links[key]
	if l == nil {
		seed := binary.LittleEndian.AppendUint64(nil, n.config.Seed)
		seed = append(append(seed, from[:]...), to[:]...)
		l = &link{Link: n.config.Link, draw: rand.New(rand.NewChaCha8(sha256.Sum256(seed)))}
		n.links[key] = l
	}
	return l
}

// pass draws the fate of one message. Every call draws two numbers, so that the i-th message's fate does not depend on
// the settings that the earlier ones met.
func (l *link) pass() (delay time.Duration, lost bool) {
	jitter, loss := l.draw.Float64(), l.draw.Float64()
	return l.Delay + time.Duration(jitter*float64(l.Jitter)), loss < l.Loss
}

// event is something that happens at a node.
type event struct {
	due      time.Time
	seq      uint64
	from, to netstack.NodeID
	run      func(to *Node) // without mu held; to is open and reachable

	// of class messages
	link  *link
	class netstack.Class
	size  int
	place *list.Element // in link.flight; nil when pushed out
	index int           // in the heap
}

// schedule queues an event after a delay. The caller holds mu.
func (n *Network) schedule(e *event, delay time.Duration) {
	e.due, e.seq = time.Now().Add(delay), n.seq
	n.seq++
	heap.Push(&n.events, e)
	n.arm()
}

// arm sets the timer for the earliest event, unless pump is at work and will do so. The caller holds mu.
func (n *Network) arm() {
	if n.running || len(n.events) == 0 {
		return
	}
	wait := max(0, time.Until(n.events[0].due))
	if n.timer == nil {
		n.timer = time.AfterFunc(wait, n.pump)
		return
	}
	n.timer.Reset(wait)
}

// pump runs the events that are due, one after another.
func (n *Network) pump() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.running {
		return
	}
	n.running = true
	for len(n.events) > 0 && !n.events[0].due.After(time.Now()) {
		e := heap.Pop(&n.events).(*event)
		if e.place != nil {
			e.link.leave(e)
		}
		to := n.nodes[e.to]
		if to == nil || !n.reaches(e.from, e.to) {
			continue
		}
		n.mu.Unlock()
		e.run(to)
		n.mu.Lock()
	}
	n.running = false
	n.arm()
}

// enter puts a class message in flight and pushes out the oldest while there is no room. The caller holds mu.
func (n *Network) enter(e *event) (dropped int) {
	l, c := e.link, e.class
	for l.flight[c].Len() > 0 && (l.flight[c].Len() == sendMessages[c] || l.bytes[c]+e.size > sendBytes[c]) {
		old := l.flight[c].Front().Value.(*event)
		l.leave(old)
		heap.Remove(&n.events, old.index)
		dropped++
	}
	e.place = l.flight[c].PushBack(e)
	l.bytes[c] += e.size
	return dropped
}

// leave takes a class message out of flight.
func (l *link) leave(e *event) {
	l.flight[e.class].Remove(e.place)
	l.bytes[e.class] -= e.size
	e.place = nil
}

// eventHeap orders events by time, then by when they were scheduled.
type eventHeap []*event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	if !h[i].due.Equal(h[j].due) {
		return h[i].due.Before(h[j].due)
	}
	return h[i].seq < h[j].seq
}

func (h eventHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *eventHeap) Push(x any) {
	e := x.(*event)
	e.index = len(*h)
	*h = append(*h, e)
}

func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}

// everyone is every node that ever joined, in the order of ids. The caller holds mu.
func (n *Network) everyone() []netstack.NodeID {
	out := slices.AppendSeq(slices.Collect(maps.Keys(n.nodes)), maps.Keys(n.left))
	slices.SortFunc(out, func(a, b netstack.NodeID) int { return bytes.Compare(a[:], b[:]) })
	return out
}
