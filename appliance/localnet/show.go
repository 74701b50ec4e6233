package localnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"tutti/appliance/api"
	"tutti/appliance/client"
)

// Screen is where a running network is shown.
type Screen struct {
	Out      io.Writer
	Terminal bool // redraw in place; otherwise a line for each shard now and then
}

const (
	redrawEvery = time.Second
	linesEvery  = 5 * time.Second
)

// Run shows the network, keeps its load going, and returns when ctx ends, when every node has ended, or when the load
// fails. A node or broker that ends is reported and left down.
func (n *Network) Run(ctx context.Context, screen Screen) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c, err := client.New(client.Options{URLs: n.APIs[0], Trust: nil})
	if err != nil {
		return err
	}
	defer c.Close()
	n.greet(screen.Out)
	v := &view{n: n, screen: screen}
	var group sync.WaitGroup
	defer group.Wait()
	if n.opt.Load != nil && n.opt.LoadTPS > 0 {
		group.Go(func() {
			if err := n.opt.Load(ctx, n, n.opt.LoadTPS, v.loaded); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("the demo load stopped: %w", err))
			}
		})
	}
	group.Go(func() {
		for left := len(n.Names); left > 0; {
			name, why, ok := n.ended(ctx)
			if !ok {
				return
			}
			log := n.brokerLog()
			if name == brokerName {
				fmt.Fprintln(&n.broker, "ended")
			} else {
				log = n.Log(name)
				left--
			}
			v.note(fmt.Sprintf("%s ended (%s); its log: %s", name, why, log))
		}
		cancel(errors.New("every validator has ended"))
	})
	every := linesEvery
	if screen.Terminal {
		every = redrawEvery
	}
	beat := time.NewTicker(every)
	defer beat.Stop()
	for {
		call, end := context.WithTimeout(ctx, redrawEvery)
		network, err := c.Network(call)
		end()
		v.draw(network, err)
		select {
		case <-beat.C:
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		}
	}
}

// greet prints the address of API and dashboard, and three commands to try.
func (n *Network) greet(out io.Writer) {
	home := ""
	if n.opt.HomeFlag != "" {
		home = " --home " + n.opt.HomeFlag
	}
	fmt.Fprintf(out, "\nAPI and dashboard: %s\n\nTry, in another terminal:\n", n.APIs[0][0])
	fmt.Fprintf(out, "  bin/tutti wallet balance %s%s\n", DemoWallet, home)
	fmt.Fprintf(out, "  bin/tutti wallet send %s %s 1000%s\n", DemoWallet, n.FriendID, home)
	fmt.Fprintf(out, "  bin/tutti status%s\n\nCtrl-C stops everything; the next start goes on from here.\n\n", home)
}

// view draws. Safe for concurrent use.
type view struct {
	n      *Network
	screen Screen

	mu    sync.Mutex // guards what follows and the screen
	load  LoadStats
	lines int // drawn the last time, to be drawn over
}

func (v *view) loaded(s LoadStats) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.load = s
}

// note prints a line that stays.
func (v *view) note(line string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.erase()
	fmt.Fprintln(v.screen.Out, line)
}

func (v *view) erase() {
	if v.screen.Terminal && v.lines > 0 {
		fmt.Fprintf(v.screen.Out, "\x1b[%dA\x1b[J", v.lines)
	}
	v.lines = 0
}

// draw shows the network's state.
func (v *view) draw(network api.Network, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.erase()
	var lines []string
	if err != nil {
		lines = append(lines, fmt.Sprintf("the first node does not answer: %v", err))
	}
	for _, s := range network.Shards {
		voting := 0
		for _, val := range s.Validators {
			if val.Lag < 8 && (val.Self || val.Connected) {
				voting++
			}
		}
		lines = append(lines, fmt.Sprintf("shard %d  height %8d  %8.1f tx/s  final in %4.0f ms, 99%% in %4.0f ms  %d of %d validators",
			s.Shard, s.Height, s.TPS, s.FinalityMs.P50, s.FinalityMs.P99, voting, len(s.Validators)))
	}
	if v.n.opt.Load != nil && v.n.opt.LoadTPS > 0 {
		lines = append(lines, fmt.Sprintf("load     %d tx/s wanted  %d sent, %d final and proven, %d rejected; half within %.0f ms, 99%% within %.0f ms",
			v.n.opt.LoadTPS, v.load.Submitted, v.load.Final, v.load.Rejected, v.load.P50Ms, v.load.P99Ms))
	}
	if said := v.n.broker.String(); said != "" {
		lines = append(lines, "broker   "+strings.TrimPrefix(said, "Broker: "))
	}
	if v.screen.Terminal {
		lines = append(lines, "dashboard "+v.n.APIs[0][0])
	}
	if v.screen.Terminal {
		for i, width := 0, columns(v.screen.Out); i < len(lines); i++ {
			lines[i] = cut(lines[i], width)
		}
	}
	fmt.Fprintln(v.screen.Out, strings.Join(lines, "\n"))
	v.lines = len(lines)
}

// columns is the width of the terminal that out is, 80 if it does not say.
func columns(out io.Writer) int {
	if f, ok := out.(interface{ Fd() uintptr }); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width
		}
	}
	return 80
}

// cut shortens a line that would wrap: what wraps can't be drawn over.
func cut(line string, width int) string {
	r := []rune(line)
	if len(r) < width {
		return line
	}
	return string(r[:max(0, width-2)]) + "…"
}
