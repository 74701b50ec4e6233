package faults

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"tutti/bench/lan"
	"tutti/bench/openloop"
)

// nemesis is one fault with a start and an end, drawn before the run begins. Several act at once.
type nemesis struct {
	kind  string
	what  string // whom it hits, and how
	at    time.Duration
	lasts time.Duration
	begin func(*box) error
	end   func(*box) error
}

func (n *nemesis) String() string {
	return fmt.Sprintf("%s %s, from %.1f s for %.1f s", n.kind, n.what, n.at.Seconds(), n.lasts.Seconds())
}

// kinds are the nemeses with their weights. The unsynced ones need a build that loses what was not synced, those of the
// clock one whose clock can be set.
var kinds = []struct {
	name            string
	weight          int
	unsynced, clock bool
	draw            func(*drawing, *nemesis)
}{
	{name: "partition", weight: 10, draw: (*drawing).partition},
	{name: "oneway", weight: 8, draw: (*drawing).oneWay},
	{name: "loss", weight: 8, draw: (*drawing).loss},
	{name: "delay", weight: 8, draw: (*drawing).delay},
	{name: "rate", weight: 6, draw: (*drawing).rate},
	{name: "kill", weight: 12, draw: (*drawing).kill},
	{name: "stop", weight: 9, draw: (*drawing).stop},
	{name: "diskfull", weight: 7, draw: (*drawing).diskFull},
	{name: "clock", weight: 8, clock: true, draw: (*drawing).clock},
	{name: "slowdisk", weight: 8, unsynced: true, draw: (*drawing).slowDisk},
	{name: "power", weight: 8, unsynced: true, draw: (*drawing).power},
}

// drawing draws nemeses for nodes 0 to nodes-1.
type drawing struct {
	*rand.Rand
	nodes int
	ahead time.Duration // when the last clock that is far ahead is set back
}

// schedule draws nemeses for a span of time: on the average one begins each pause, and all have ended when it is over.
func schedule(r *rand.Rand, nodes int, unsynced, clock bool, span, pause time.Duration) (all []*nemesis) {
	d := &drawing{Rand: r, nodes: nodes}
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	for at := d.upTo(pause); at < span; at += d.upTo(2 * pause) {
		n := &nemesis{at: at}
		for n.kind == "" {
			pick := d.IntN(total)
			for _, k := range kinds {
				if pick -= k.weight; pick < 0 {
					if k.unsynced && !unsynced || k.clock && !clock {
						break // drawn again
					}
					n.kind = k.name
					k.draw(d, n)
					break
				}
			}
		}
		n.lasts = min(n.lasts, span-at)
		all = append(all, n)
	}
	return all
}

// tally is the kinds of nemeses with their counts.
func tally(all []*nemesis) string {
	count := map[string]int{}
	for _, n := range all {
		count[n.kind]++
	}
	var text []string
	for kind, n := range count {
		text = append(text, fmt.Sprintf("%s*%d", kind, n))
	}
	slices.Sort(text)
	return strings.Join(text, " ")
}

func (d *drawing) upTo(most time.Duration) time.Duration {
	return time.Duration(d.Int64N(int64(most)) + 1)
}

func (d *drawing) between(least, most time.Duration) time.Duration { return least + d.upTo(most-least) }

// some are nodes: one most of the time, several, or all.
func (d *drawing) some() (nodes []int) {
	n := 1
	switch d.IntN(10) {
	case 0:
		n = d.nodes
	case 1, 2, 3:
		n = 1 + d.IntN(d.nodes)
	}
	nodes = d.Perm(d.nodes)[:n]
	slices.Sort(nodes)
	return nodes
}

// network makes a nemesis of what it does to the link between two nodes.
func network(n *nemesis, what string, link func(from, to int) lan.Link) {
	n.what = what
	n.begin = func(b *box) error { b.links[n] = link; b.relink(); return nil }
	n.end = func(b *box) error { delete(b.links, n); b.relink(); return nil }
}

// partition splits the nodes in two; every split is as likely as any other.
func (d *drawing) partition(n *nemesis) {
	n.lasts = d.between(500*time.Millisecond, 12*time.Second)
	mask := 1 + d.IntN(1<<d.nodes-2)
	side := func(k int) int { return mask >> k & 1 }
	network(n, fmt.Sprintf("%0*b", d.nodes, mask), func(from, to int) lan.Link { return lan.Link{Cut: side(from) != side(to)} })
}

// oneWay loses what some send to others, not what these answer.
func (d *drawing) oneWay(n *nemesis) {
	n.lasts = d.between(500*time.Millisecond, 12*time.Second)
	from, to := d.some(), d.some()
	for len(from) == 1 && slices.Equal(from, to) { // that is no way
		to = d.some()
	}
	cut := d.IntN(2) == 0
	loss := 0.3 + 0.6*d.Float64()
	what := fmt.Sprintf("%v to %v: %.0f %%", from, to, loss*100)
	if cut {
		what = fmt.Sprintf("%v to %v: all", from, to)
	}
	network(n, what, func(f, t int) lan.Link {
		if !slices.Contains(from, f) || !slices.Contains(to, t) {
			return lan.Link{}
		}
		return lan.Link{Cut: cut, Loss: loss}
	})
}

// at is a link for what some nodes send and receive.
func at(nodes []int, l lan.Link) func(from, to int) lan.Link {
	return func(from, to int) lan.Link {
		if slices.Contains(nodes, from) || slices.Contains(nodes, to) {
			return l
		}
		return lan.Link{}
	}
}

func (d *drawing) loss(n *nemesis) {
	n.lasts = d.between(time.Second, 15*time.Second)
	nodes, loss := d.some(), 0.01+0.24*d.Float64()
	network(n, fmt.Sprintf("at %v: %.0f %%", nodes, loss*100), at(nodes, lan.Link{Loss: loss}))
}

func (d *drawing) delay(n *nemesis) {
	n.lasts = d.between(time.Second, 15*time.Second)
	nodes := d.some()
	l := lan.Link{Delay: d.upTo(300 * time.Millisecond), Reorder: d.IntN(2) == 0}
	if d.IntN(3) > 0 {
		l.Jitter = d.upTo(l.Delay)
	}
	if d.IntN(3) == 0 {
		l.Duplicate = d.Float64() / 5
	}
	network(n, fmt.Sprintf("at %v: %d ms, jitter %d ms, reorder %t, doubled %.0f %%", nodes, l.Delay.Milliseconds(), l.Jitter.Milliseconds(), l.Reorder, l.Duplicate*100), at(nodes, l))
}

func (d *drawing) rate(n *nemesis) {
	n.lasts = d.between(time.Second, 12*time.Second)
	nodes, rate := d.some(), 8<<d.IntN(8)<<10
	network(n, fmt.Sprintf("at %v: %d KiB/s", nodes, rate>>10), at(nodes, lan.Link{BytesPerSecond: rate}))
}

// kill kills nodes at one moment and starts them at another. In an unsynced build it is the loss of their power.
func (d *drawing) kill(n *nemesis) {
	nodes := d.some()
	n.lasts, n.what = d.upTo(8*time.Second), fmt.Sprint(nodes)
	n.begin = func(b *box) error { return b.down(nodes) }
	n.end = func(b *box) error { return b.up(nodes) }
}

// power cuts the power of all, of one node a little later, so that it can tell what the others may have forgotten.
func (d *drawing) power(n *nemesis) {
	alone, apart := d.IntN(d.nodes), d.upTo(aloneFor)
	n.lasts, n.what = d.upTo(3*time.Second), fmt.Sprintf("all, of %d %d ms later", alone, apart.Milliseconds())
	first := slices.DeleteFunc(d.Perm(d.nodes), func(k int) bool { return k == alone })
	n.begin = func(b *box) error {
		if err := b.down(first); err != nil {
			return err
		}
		openloop.Wait(b.ctx, apart)
		return b.down([]int{alone})
	}
	n.end = func(b *box) error { return b.up(append(slices.Clone(first), alone)) }
}

// stop makes processes stand still, up to half a minute.
func (d *drawing) stop(n *nemesis) {
	nodes := d.some()
	n.lasts, n.what = d.between(200*time.Millisecond, 8*time.Second), fmt.Sprint(nodes)
	if d.IntN(4) == 0 {
		n.lasts = d.between(8*time.Second, 30*time.Second)
	}
	n.begin = func(b *box) error { return b.still(nodes) }
	n.end = func(b *box) error { return b.move(nodes) }
}

// barelyAhead is below what validators let a proposal be ahead of their clocks, even if several nemeses add up.
const barelyAhead = 500 * time.Millisecond

// clock sets the wall clocks of nodes forth or back: from a tenth of a second to years, each order as likely.
func (d *drawing) clock(n *nemesis) {
	nodes := d.some()
	by := 100 * time.Millisecond
	for range d.IntN(10) {
		by *= 10 // up to three years
	}
	by = time.Duration(float64(by) * (0.1 + 0.9*d.Float64()))
	n.lasts = d.between(500*time.Millisecond, 12*time.Second)
	switch { // a quorum that is far ahead makes a chain of the future, and has to wait for it
	case d.IntN(2) == 0 || by > barelyAhead && n.at < d.ahead:
		by = -by
	case by > barelyAhead:
		nodes, d.ahead = nodes[:1], n.at+n.lasts
	}
	n.what = fmt.Sprintf("of %v by %s", nodes, by.Round(time.Millisecond))
	n.begin = func(b *box) error { return b.shift(nodes, by) }
	n.end = func(b *box) error { return b.shift(nodes, -by) }
}

// diskFull leaves nodes a few pages of disk, or none.
func (d *drawing) diskFull(n *nemesis) {
	nodes := d.some()
	pages := 0
	if d.IntN(2) == 0 {
		pages = d.IntN(64)
	}
	n.lasts, n.what = d.between(time.Second, 10*time.Second), fmt.Sprintf("of %v, %d pages left", nodes, pages)
	n.begin = func(b *box) error { return b.fill(nodes, pages) }
	n.end = func(b *box) error { return b.free(nodes) }
}

// slowDisk makes syncs of nodes take up to some seconds.
func (d *drawing) slowDisk(n *nemesis) {
	nodes, slowest := d.some(), d.between(50*time.Millisecond, time.Second)
	if d.IntN(4) == 0 {
		slowest = d.between(time.Second, 4*time.Second)
	}
	n.lasts, n.what = d.between(time.Second, 15*time.Second), fmt.Sprintf("of %v: syncs up to %d ms", nodes, slowest.Milliseconds())
	n.begin = func(b *box) error { return b.slow(n, nodes, slowest) }
	n.end = func(b *box) error { return b.slow(n, nodes, 0) }
}
