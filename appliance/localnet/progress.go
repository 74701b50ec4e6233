package localnet

import (
	"fmt"
	"io"
	"iter"
	"strconv"
	"time"

	"tutti/appliance/genesis"
)

// Work is shown once it has taken quietFor; on a terminal drawn over, elsewhere as a line now and then.
const (
	quietFor    = 2 * time.Second
	redrawWork  = 200 * time.Millisecond
	workLines   = 5 * time.Second
	clearToEdge = "\r\x1b[K"
)

// progress shows how far work is that takes long. It belongs to one goroutine.
type progress struct {
	out      io.Writer
	terminal bool
	what     string
	total    uint64
	begun    time.Time
	last     time.Time // shown; zero: never
	now      func() time.Time
}

func (n *Network) progress(what string, total uint64) *progress {
	return &progress{out: n.opt.Out, terminal: n.opt.Terminal, what: what, total: total, begun: time.Now(), now: time.Now}
}

// at says how much of the total is done.
func (p *progress) at(done uint64) {
	now, every := p.now(), workLines
	if p.terminal {
		every = redrawWork
	}
	if now.Sub(p.begun) < quietFor || now.Sub(p.last) < every {
		return
	}
	p.last = now
	p.show(fmt.Sprintf("%s: %d %%", p.what, 100*min(done, p.total)/max(p.total, 1)))
}

// end says that the work has ended, if it was ever shown.
func (p *progress) end(err error) {
	if p.last.IsZero() {
		return
	}
	how := "done"
	if err != nil {
		how = "failed"
	}
	p.show(fmt.Sprintf("%s: %s after %.0f s", p.what, how, p.now().Sub(p.begun).Seconds()))
	if p.terminal {
		fmt.Fprintln(p.out)
	}
}

func (p *progress) show(text string) {
	if p.terminal {
		fmt.Fprint(p.out, clearToEdge, cut(text, columns(p.out)))
	} else {
		fmt.Fprintln(p.out, text)
	}
}

// counted shows how many of the accounts have gone by.
func counted(accounts iter.Seq[genesis.Account], p *progress) iter.Seq[genesis.Account] {
	return func(yield func(genesis.Account) bool) {
		n := uint64(0)
		for a := range accounts {
			if !yield(a) {
				return
			}
			if n++; n%(1<<16) == 0 {
				p.at(n)
			}
		}
	}
}

// number writes n with a comma between groups of three digits.
func number(n uint64) string {
	text := strconv.FormatUint(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
