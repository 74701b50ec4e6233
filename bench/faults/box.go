package faults

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"tutti/appliance/config"
	"tutti/appliance/localnet"
	"tutti/bench/lan"
	"tutti/bench/openloop"
)

// box is a world whose nodes each have a network namespace and a disk of their own, and what nemeses do to them. It lives
// in a process of its own (Box), which goes with its namespaces. The run's goroutine owns it.
type box struct {
	*world
	ctx      context.Context
	lan      *lan.Switch
	machines []*machine
	links    map[*nemesis]func(from, to int) lan.Link // between nodes, of the nemeses that act
}

// machine is what a node runs on.
type machine struct {
	name   string
	at     int                        // its port is one above
	data   string                     // folder with its disk
	clock  string                     // file with the shift of its wall clock
	sync   string                     // file with the time of its slowest sync
	shift  time.Duration              // of its wall clock
	slow   map[*nemesis]time.Duration // slowest sync
	down   int                        // nemeses that keep it down
	still  int                        // that keep it from moving
	full   int                        // that fill its disk
	fell   bool                       // it ended because of that
	filled time.Time                  // when its disk was full lately
}

const (
	roomy    = 512 << 20        // bytes of a node's disk
	page     = 4096             // bytes
	fallsIn  = 15 * time.Second // from a disk that was full to the end of the process
	fullWord = "is full"        // a node says it that ends because of that
)

// newBox makes a box with its files below home, and starts the network in it.
func newBox(ctx context.Context, o BoxOptions, p boxPlan, logf func(string, ...any)) (_ *box, err error) {
	b := &box{world: newWorld(p.size, o.Seed, logf), ctx: ctx, links: map[*nemesis]func(from, to int) lan.Link{}}
	b.home = filepath.Join(o.Dir, "home")
	if err := os.MkdirAll(b.home, 0o755); err != nil {
		return nil, err
	}
	b.excuse = b.explained
	nodes := p.size.shards * p.size.validators
	if b.lan, err = lan.New(nodes); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.lan.Close())
		}
	}()
	if err := b.lan.Join(); err != nil {
		return nil, err
	}
	var hosts []string
	for k := range nodes {
		name := localnet.NodeName(k/p.size.validators, k%p.size.validators)
		m := &machine{
			name: name, at: k, slow: map[*nemesis]time.Duration{}, data: config.Home(filepath.Join(b.home, "net", "nodes", name)).Data(),
			clock: filepath.Join(b.home, name+".clock"), sync: filepath.Join(b.home, name+".sync"),
		}
		b.machines, hosts = append(b.machines, m), append(hosts, lan.Addr(k+1))
		if err := errors.Join(os.WriteFile(m.clock, make([]byte, 8), 0o600), os.WriteFile(m.sync, nil, 0o600)); err != nil {
			return nil, err
		}
	}
	return b, b.launch(ctx, localnetOptions(hosts, p, b.spawn), o.Seed)
}

// spawn starts a node's process on its machine.
func (b *box) spawn(name string, cmd *exec.Cmd) error {
	m := b.machine(name)
	if err := m.mount(); err != nil {
		return err
	}
	cmd.Env = append(os.Environ(), "TUTTI_CLOCK="+m.clock, "TUTTI_SLOWEST_SYNC="+m.sync)
	return b.lan.Start(m.at+1, cmd)
}

func (b *box) machine(name string) *machine {
	return b.machines[slices.IndexFunc(b.machines, func(m *machine) bool { return m.name == name })]
}

// mount gives a new machine its disk, and puts there what the folder held.
func (m *machine) mount() error {
	var s unix.Statfs_t
	if err := unix.Statfs(m.data, &s); err != nil || s.Type == unix.TMPFS_MAGIC && s.Blocks*uint64(s.Bsize) <= roomy {
		return err
	}
	made := m.data + ".made"
	if err := os.Rename(m.data, made); err != nil {
		return err
	}
	if err := os.Mkdir(m.data, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", m.data, "tmpfs", 0, sized(roomy)); err != nil {
		return fmt.Errorf("mount %s: %w", m.data, err)
	}
	return errors.Join(os.CopyFS(m.data, os.DirFS(made)), os.RemoveAll(made))
}

// unmount takes a machine its disk, and leaves in the folder what it held if that is wanted.
func (m *machine) unmount(keep bool) error {
	kept := m.data + ".kept"
	if keep {
		if err := os.CopyFS(kept, os.DirFS(m.data)); err != nil {
			return err
		}
	}
	err := unix.Unmount(m.data, unix.MNT_DETACH)
	if keep && err == nil {
		err = errors.Join(os.Remove(m.data), os.Rename(kept, m.data))
	}
	return err
}

func sized(bytes int64) string { return fmt.Sprintf("size=%d", bytes) }

// resize leaves a disk some pages, or makes it roomy again.
func (m *machine) resize(pages int, full bool) (err error) {
	for range 100 { // what is used may grow meanwhile
		size := int64(roomy)
		if full {
			var s unix.Statfs_t
			if err := unix.Statfs(m.data, &s); err != nil {
				return err
			}
			size = int64(s.Blocks-s.Bfree)*int64(s.Bsize) + int64(pages)*page
		}
		if err = unix.Mount("tmpfs", m.data, "tmpfs", unix.MS_REMOUNT, sized(size)); err == nil || !full {
			break
		}
	}
	if err != nil {
		err = fmt.Errorf("size of the disk of %s: %w", m.name, err)
	}
	return err
}

// relink gives each link what the active nemeses do to it. Clients reach all nodes at all times.
func (b *box) relink() {
	b.lan.Set(func(from, to int) (l lan.Link) {
		if from == 0 || to == 0 {
			return l
		}
		return b.between(from-1, to-1)
	})
}

// between is what the nemeses that act do to the link between two nodes.
func (b *box) between(from, to int) (l lan.Link) {
	for _, link := range b.links {
		l = l.And(link(from, to))
	}
	return l
}

// down kills nodes at one moment, and keeps them down.
func (b *box) down(nodes []int) error {
	b.fallen()
	var alive []string
	for _, k := range nodes {
		m := b.machines[k]
		if m.down++; b.net.Alive(m.name) {
			alive = append(alive, m.name)
		}
	}
	return b.net.Kill(alive...)
}

// up ends what down began.
func (b *box) up(nodes []int) error {
	b.fallen()
	for _, k := range nodes {
		m := b.machines[k]
		if m.down--; m.down == 0 {
			if err := b.start(m); err != nil {
				return err
			}
		}
	}
	return nil
}

// start starts a node that does not run.
func (b *box) start(m *machine) error {
	if b.net.Alive(m.name) {
		return nil
	}
	b.silent(m.name) // the file with its standard error begins anew
	m.fell = false
	return b.net.Restart(m.name)
}

func (b *box) still(nodes []int) error {
	for _, k := range nodes {
		m := b.machines[k]
		if m.still++; b.net.Alive(m.name) {
			if err := ended(b.net.Pause(m.name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *box) move(nodes []int) error {
	for _, k := range nodes {
		m := b.machines[k]
		if m.still--; m.still == 0 && b.net.Alive(m.name) {
			if err := ended(b.net.Continue(m.name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// ended is err, unless the process had ended by itself.
func ended(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// shift sets wall clocks forth or back, at once.
func (b *box) shift(nodes []int, by time.Duration) error {
	for _, k := range nodes {
		m := b.machines[k]
		m.shift += by
		f, err := os.OpenFile(m.clock, os.O_WRONLY, 0) // nodes have it mapped
		if err != nil {
			return err
		}
		_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(m.shift)), 0)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// slow makes syncs take up to some time, until it is 0 again.
func (b *box) slow(n *nemesis, nodes []int, slowest time.Duration) error {
	for _, k := range nodes {
		m := b.machines[k]
		m.slow[n] = slowest
		var text string
		if most := slices.Max(append(slices.Collect(maps.Values(m.slow)), 0)); most > 0 {
			text = most.String()
		}
		if err := os.WriteFile(m.sync, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// fill leaves nodes some pages of disk.
func (b *box) fill(nodes []int, pages int) error {
	for _, k := range nodes {
		m := b.machines[k]
		m.full++
		if err := m.resize(pages, true); err != nil {
			return err
		}
	}
	return nil
}

// free ends what fill began, and starts the nodes that have ended because of it.
func (b *box) free(nodes []int) error {
	for _, k := range nodes {
		m := b.machines[k]
		m.filled = time.Now()
		if m.full--; m.full > 0 {
			continue
		}
		if err := m.resize(0, false); err != nil {
			return err
		}
	}
	b.fallen()
	for _, k := range nodes {
		if m := b.machines[k]; m.full == 0 && m.down == 0 {
			if err := b.start(m); err != nil {
				return err
			}
		}
	}
	return nil
}

// pinched reports whether a node may end because its disk is or was full.
func (m *machine) pinched() bool { return m.full > 0 || time.Since(m.filled) < fallsIn }

// fallen looks at nodes that have ended by themselves: their disk is full, and they say so.
func (b *box) fallen() {
	for {
		name, why, ok := b.net.Died()
		if !ok {
			return
		}
		m := b.machine(name)
		if !m.pinched() {
			b.witness.Wrong("%s ended by itself: %s", name, why)
			continue
		}
		text, err := os.ReadFile(b.net.Stderr(name))
		if err != nil || !bytes.Contains(text, []byte(fullWord)) {
			b.witness.Wrong("%s ended with a full disk and does not say so: %s: %q (%v)", name, why, text, err)
		}
		b.logf("%s ended: its disk is full", name)
		m.fell = true
	}
}

// explained reports whether a node may write a line: that its disk is full, while that is so.
func (b *box) explained(name string, line []byte) bool {
	return b.machine(name).pinched() && (bytes.Contains(line, []byte(fullWord)) || bytes.Contains(line, []byte("no space left")))
}

// tend looks after nodes for a while: those that have ended because of a full disk start again when there is room.
func (b *box) tend(until time.Time) error {
	for {
		b.fallen()
		for _, m := range b.machines {
			if m.fell && m.full == 0 && m.down == 0 {
				if err := b.start(m); err != nil {
					return err
				}
			}
		}
		left := time.Until(until)
		if left <= 0 {
			return nil
		}
		if !openloop.Wait(b.ctx, min(left, askEvery)) {
			return b.ctx.Err()
		}
	}
}

// close ends everything. What disks held stays if something went wrong.
func (b *box) close() error {
	keep := len(b.witness.Wrongs()) > 0
	errs := []error{b.net.Kill(b.net.Names...)}
	for _, m := range b.machines {
		errs = append(errs, m.unmount(keep))
	}
	return errors.Join(append(errs, b.world.close(), b.lan.Close())...)
}
