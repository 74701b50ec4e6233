//go:build tutti_kills

package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"tutti/consensus"
	"tutti/consensus/engine"
	"tutti/consensus/killpoint"
)

// This is a test-only build: it kills itself (SIGKILL) while it sends a chosen message, and writes down what it hears.
// bench/faults runs it, with the tag tutti_unsynced as well. Files in the folder that TUTTI_KILLS names, where I is a place in
// the committee:
//
//	plan-I    when to die (killpoint.Plan); looked for at the start and now and then
//	death-I   how it died
//	heard-I   what it was sent, a line each (killpoint.Heard)
//	ask       "I kind": everybody else asks I for a block, a run or headers, ten times a second
//	mute      while it is there, nobody sends proposals or parts
//	lossy     while it is there, four of five finalize votes and finalizations are not sent
//
// "It has left" means here that the receiver has written it down.

// Intervals of the build.
const (
	lookEvery  = 10 * time.Millisecond
	askEvery   = 100 * time.Millisecond
	arrivesIn  = 500 * time.Millisecond // or is taken for lost
	lossyShare = 5
)

type gatedNetwork struct {
	*committeeNetwork
	n     *Node
	dir   string
	gate  *killpoint.Gate
	heard *os.File

	mu    sync.Mutex // guards what follows
	left  map[string]int
	base  map[int]int64 // length of heard-I when this process began
	mute  bool
	lossy bool
}

// gated puts a gate before the committee's network.
func gated(n *Node, inner *committeeNetwork) engine.Network {
	dir := os.Getenv("TUTTI_KILLS")
	if dir == "" {
		return inner
	}
	g := &gatedNetwork{committeeNetwork: inner, n: n, dir: dir, left: map[string]int{}, base: map[int]int64{}}
	g.gate = killpoint.NewGate(n.index, len(inner.members), killpoint.Plan{}, g.die)
	for i := range inner.members {
		if info, err := os.Stat(g.path("heard", i)); err == nil {
			g.base[i] = info.Size()
		}
	}
	var err error
	if g.heard, err = os.OpenFile(g.path("heard", n.index), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644); err != nil {
		panic(err) // the rig's mistake
	}
	g.look()
	go g.watch()
	return g
}

func (g *gatedNetwork) path(name string, i int) string {
	return filepath.Join(g.dir, name+"-"+strconv.Itoa(i))
}

// look reads what the rig wants.
func (g *gatedNetwork) look() {
	if b, err := os.ReadFile(g.path("plan", g.n.index)); err == nil {
		var p killpoint.Plan
		if err := json.Unmarshal(b, &p); err == nil { // else it is being written
			_ = os.Remove(g.path("plan", g.n.index))
			g.gate.Arm(p)
		}
	}
	there := func(name string) bool {
		_, err := os.Stat(filepath.Join(g.dir, name))
		return err == nil
	}
	mute, lossy := there("mute"), there("lossy")
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mute, g.lossy = mute, lossy
}

// watch lives as long as the process.
func (g *gatedNetwork) watch() {
	asked := time.Now()
	for range time.NewTicker(lookEvery).C {
		g.look()
		if time.Since(asked) > askEvery {
			asked = time.Now()
			if b, err := os.ReadFile(filepath.Join(g.dir, "ask")); err == nil {
				g.ask(string(b))
			}
		}
	}
}

// ask asks a member for what this one has.
func (g *gatedNetwork) ask(what string) {
	who, kind, _ := strings.Cut(what, " ")
	to, err := strconv.Atoi(who)
	height, hash := g.n.blocks.Final()
	if err != nil || to == g.n.index || height == 0 {
		return
	}
	req := append([]byte{0x11}, hash[:]...)
	switch killpoint.Kind(kind) {
	case killpoint.Run:
		req = binary.BigEndian.AppendUint64([]byte{0x12}, uint64(height))
	case killpoint.Headers:
		req = binary.BigEndian.AppendUint16(append([]byte{0x14}, hash[:]...), 10)
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if b, err := g.Request(ctx, to, req); err == nil {
			g.hear(to, b)
		}
	}()
}

func (g *gatedNetwork) hear(from int, payload []byte) {
	h := killpoint.Heard{From: from, Sum: sha256.Sum256(payload), Votes: killpoint.Read(payload)}
	if _, err := g.heard.WriteString(h.Line() + "\n"); err != nil {
		panic(err)
	}
}

func (g *gatedNetwork) Send(to int, class engine.Class, payload []byte) {
	g.mu.Lock()
	held := g.mute && class == engine.ClassProposal
	if votes := killpoint.Read(payload); g.lossy && class == engine.ClassVote && len(votes) > 0 && votes[0].Statement.Kind == consensus.Finalize {
		held = rand.IntN(lossyShare) > 0
	}
	g.mu.Unlock()
	g.gate.Send(to, payload, func() {
		if held {
			return
		}
		g.sent(to, payload)
		g.committeeNetwork.Send(to, class, payload)
	})
}

func (g *gatedNetwork) sent(to int, payload []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left[g.line(to, sha256.Sum256(payload))]++
}

// line is how one hears of a payload from here.
func (g *gatedNetwork) line(to int, sum killpoint.Sum) string {
	return fmt.Sprintf("%d ", to) + killpoint.Heard{From: g.n.index, Sum: sum}.Line()
}

func (g *gatedNetwork) Receive(class engine.Class) <-chan engine.Message {
	in, out := g.committeeNetwork.Receive(class), make(chan engine.Message)
	go func() {
		for m := range in {
			g.hear(m.From, m.Payload)
			out <- m
		}
	}()
	return out
}

func (g *gatedNetwork) Serve(answer func(ctx context.Context, from int, request []byte) ([]byte, error)) {
	g.committeeNetwork.Serve(func(ctx context.Context, from int, request []byte) ([]byte, error) {
		b, err := answer(ctx, from, request)
		if err != nil {
			return b, err
		}
		leaves, dying := g.gate.Answer(from, b)
		if !leaves {
			return nil, context.Canceled
		}
		if dying != nil {
			g.sent(from, b)
			go dying()
		}
		return b, nil
	})
}

// die waits until what left has arrived, writes down how it was, and ends the process.
func (g *gatedNetwork) die(d killpoint.Death) {
	for i, to := range d.To {
		line := g.line(to, d.Sums[i])
		g.mu.Lock()
		want, from := g.left[line], g.base[to]
		g.mu.Unlock()
		_, text, _ := strings.Cut(line, " ")
		for began := time.Now(); g.arrived(to, from, text) < want && time.Since(began) < arrivesIn; {
			<-time.After(time.Millisecond)
		}
	}
	if err := os.WriteFile(g.path("death", g.n.index), d.Encode(), 0o644); err != nil {
		panic(err)
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// arrived counts the lines in heard-I from an offset on that begin with a text.
func (g *gatedNetwork) arrived(to int, from int64, text string) int {
	f, err := os.Open(g.path("heard", to))
	if err != nil {
		return 0
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := f.Seek(from, 0); err != nil {
		return 0
	}
	if _, err := b.ReadFrom(f); err != nil {
		return 0
	}
	return bytes.Count(b.Bytes(), []byte("\n"+text)) + bytes.Count(b.Bytes()[:min(b.Len(), len(text))], []byte(text))
}
