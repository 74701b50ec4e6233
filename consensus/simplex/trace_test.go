package simplex_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"tutti/consensus"
	"tutti/consensus/shred"
	"tutti/consensus/shred/shredtest"
	"tutti/consensus/sim/simtest"
	"tutti/consensus/simplex"
)

// TestTraces runs the scenarios in testdata. One line of input is one event for a machine, its output is the Ready.
// Rewrite them with: go test ./consensus/simplex -run TestTraces -rewrite
func TestTraces(t *testing.T) {
	datadriven.Walk(t, "testdata/traces", func(t *testing.T, path string) {
		var s *scene
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "start" {
				s = newScene(t, d)
			}
			return s.run(d)
		})
	})
}

// scene is a machine, its disk, and the blocks that a scenario has named.
type scene struct {
	t       *testing.T
	c       *consensus.Committee
	index   int
	limits  simplex.Limits
	machine *simplex.Machine
	blocks  map[string]consensus.Block
	names   map[consensus.Hash]string
	log     []simplex.Record
	disk    []consensus.Block
	build   *simplex.Build
	rebuild *simplex.Rebuild
	final   simplex.Finalised // the last hand-over

	root     *consensus.Header
	rootCert consensus.Certificate

	sets map[string]cutter // of blocks whose bodies travel in shards
}

// cutter is a body in parts, or what a liar made of one.
type cutter interface {
	Part(i int, h *consensus.Header, leader consensus.Vote) *shred.Part
}

func newScene(t *testing.T, d *datadriven.TestData) *scene {
	s := &scene{t: t, blocks: make(map[string]consensus.Block), names: make(map[consensus.Hash]string), sets: make(map[string]cutter)}
	powers := []consensus.Power{1, 1, 1, 1}
	if d.HasArg("powers") {
		powers = nil
		var list string
		d.ScanArgs(t, "powers", &list)
		for _, f := range strings.Split(list, "-") {
			var p consensus.Power
			if _, err := fmt.Sscan(f, &p); err != nil {
				d.Fatalf(t, "%v", err)
			}
			powers = append(powers, p)
		}
	}
	s.c = simtest.Committee(1, powers...)
	if s.index = 0; d.HasArg("index") {
		d.ScanArgs(t, "index", &s.index)
	}
	s.limits = simplex.DefaultLimits()
	if d.HasArg("reach") {
		s.limits.Reach = consensus.Height(number(t, d, "reach"))
	}
	if d.HasArg("depth") {
		d.ScanArgs(t, "depth", &s.limits.Depth)
	}
	s.root = s.name("genesis", consensus.Block{Header: simtest.Genesis(s.c)}).Header
	return s
}

func number(t *testing.T, d *datadriven.TestData, key string) (n uint64) {
	d.ScanArgs(t, key, &n)
	return n
}

func (s *scene) name(name string, b consensus.Block) consensus.Block {
	s.blocks[name], s.names[b.Header.Hash()] = b, name
	return b
}

// next is the committee of the next epoch: the same members, and another seed.
func (s *scene) next() *consensus.Committee {
	return simtest.Members(s.c.Epoch+1, 7, []int{0, 1, 2, 3}, []consensus.Power{1, 1, 1, 1})
}

func (s *scene) config() simplex.Config {
	c := simplex.Config{
		Chain: simtest.Chain, Root: s.root, RootCert: s.rootCert, Committee: s.c, Keys: simtest.NewKeys(len(s.c.Validators)),
		Index: s.index, Limits: s.limits, Log: s.log, Blocks: s.disk,
	}
	if s.index >= 0 {
		c.Signer = simtest.NewKeys(len(s.c.Validators)).Signer(s.index)
	}
	return c
}

func (s *scene) run(d *datadriven.TestData) string {
	switch d.Cmd {
	case "start", "restart":
		m, r, err := simplex.New(s.config())
		if err != nil {
			return err.Error() + "\n"
		}
		s.machine = m
		var leaders []string
		for v := consensus.View(1); v <= 8; v++ {
			leaders = append(leaders, fmt.Sprint(s.c.Leader(v)))
		}
		return "leaders of views 1 to 8: " + strings.Join(leaders, " ") + "\n" + s.print(r)
	case "handover": // to the next epoch, from the last block handed over and what made it final
		s.root, s.rootCert, s.c = s.final.Blocks[len(s.final.Blocks)-1].Header, s.final.Cert, s.next()
		return s.run(&datadriven.TestData{Cmd: "restart"})
	case "block": // makes a block without any event
		s.make(d)
		return ""
	case "propose":
		b := s.make(d)
		if b.Header.Body.Codec == consensus.CodecShards {
			return s.step(s.part(d, b, s.index, s.c.Leader(b.Header.View)))
		}
		st := s.statement(consensus.Notarize, b.Header.View, b.Header.Hash())
		p := &consensus.Proposal{Block: b, Vote: s.sign(st, s.c.Leader(b.Header.View), d.HasArg("forged"))}
		return s.step(simplex.ProposalReceived{From: s.c.Leader(b.Header.View), Proposal: p})
	case "vote":
		var out string
		for _, i := range s.list(d, "from") {
			out += fmt.Sprintf("%d:\n", i) + s.step(simplex.VoteReceived{From: i, Vote: s.sign(s.about(d), i, d.HasArg("forged"))})
		}
		return out
	case "cert":
		c := s.cert(s.about(d), s.list(d, "by"))
		if d.HasArg("forged") {
			c.Signature[3]++
		}
		return s.step(simplex.CertificateReceived{From: 1, Cert: c})
	case "part": // NAME of=(I,...) [from=J]: by default each sends its own
		var out string
		for _, i := range s.list(d, "of") {
			from := i
			if d.HasArg("from") {
				d.ScanArgs(s.t, "from", &from)
			}
			out += fmt.Sprintf("%d:\n", i) + s.step(s.part(d, s.block(d), i, from))
		}
		return out
	case "rebuilt":
		set, err := s.rebuild.Parts.Rebuild()
		if err != nil {
			return err.Error() + "\n" + s.step(simplex.Rebuilt{Block: s.rebuild.Block})
		}
		return s.step(simplex.Rebuilt{Block: s.rebuild.Block, Shreds: set})
	case "judged":
		return s.step(simplex.Judged{Block: s.block(d).Header.Hash(), Valid: d.CmdArgs[1].Key == "valid"})
	case "built":
		if d.HasArg("nothing") {
			return s.step(simplex.Built{View: s.build.View})
		}
		var name string
		d.ScanArgs(s.t, "name", &name)
		b := simtest.Child(s.c, s.build.Parent, s.build.View, []byte(name))
		if d.HasArg("shards") {
			b.Header.Body = s.c.ShardsRef(b.Body)
		}
		if d.HasArg("ends") {
			b.Header.NextCommittee = s.next().Hash()
		}
		s.name(name, b)
		return s.step(simplex.Built{View: s.build.View, Block: &b})
	case "fetched":
		b := s.block(d)
		e := simplex.BlockFetched{From: 1, Block: b}
		if d.HasArg("by") {
			e.Notarization = s.cert(s.statement(consensus.Notarize, b.Header.View, b.Header.Hash()), s.list(d, "by"))
		}
		return s.step(e)
	case "synced":
		b := s.block(d)
		c := s.cert(s.statement(consensus.Finalize, b.Header.View, b.Header.Hash()), s.list(d, "by"))
		return s.step(simplex.Synced{Header: b.Header, Cert: c})
	case "lose": // the disk, and with it the vote log; a new one begins with a floor and what else is given
		s.log, s.disk = nil, nil
		if d.HasArg("floor") {
			s.log = append(s.log, simplex.Record{Floor: &simplex.Floor{Shard: s.c.Shard, Epoch: s.c.Epoch, View: consensus.View(number(s.t, d, "floor"))}})
		}
		return ""
	case "leading":
		c, ok := s.machine.Leading()
		switch {
		case !ok:
			return "no answer\n"
		case c.Kind == 0:
			return "none\n"
		}
		return s.says(c.Statement) + "\n"
	case "timer":
		return s.step(simplex.TimerFired{View: consensus.View(number(s.t, d, "view"))})
	case "tick":
		return s.step(simplex.Tick{})
	}
	d.Fatalf(s.t, "unknown command")
	return ""
}

// make makes the block name= on parent= in view=, with one thing wrong= if asked for.
func (s *scene) make(d *datadriven.TestData) consensus.Block {
	var name, parent, wrong string
	d.ScanArgs(s.t, "name", &name)
	d.ScanArgs(s.t, "parent", &parent)
	view := consensus.View(number(s.t, d, "view"))
	body := []byte(name)
	if d.HasArg("size") {
		var size int
		d.ScanArgs(s.t, "size", &size)
		body = make([]byte, size)
	}
	b := simtest.Child(s.c, s.blocks[parent].Header, view, body)
	if d.HasArg("shards") {
		set, err := shred.Cut(s.c, body)
		if err != nil {
			s.t.Fatal(err)
		}
		b.Header.Body, s.sets[name] = set.Ref(), set
	}
	if d.HasArg("spoilt") { // in shards that are no body's
		set := shredtest.Spoil(s.c, body, s.c.Code().N()-1)
		b.Header.Body, s.sets[name] = set.Ref, set
	}
	if d.HasArg("ends") { // its epoch
		b.Header.NextCommittee = s.next().Hash()
	}
	if d.HasArg("echo") {
		b = consensus.Block{Header: consensus.Echo(s.blocks[parent].Header, view)}
	}
	if d.HasArg("wrong") {
		d.ScanArgs(s.t, "wrong", &wrong)
		spoil(b.Header, wrong)
	}
	return s.name(name, b)
}

// part is the event of validator i's part of a block, with the forged vote or a bad shard= if asked for.
func (s *scene) part(d *datadriven.TestData, b consensus.Block, i, from int) simplex.Event {
	h := b.Header
	vote := s.sign(s.statement(consensus.Notarize, h.View, h.Hash()), s.c.Leader(h.View), d.HasArg("forged"))
	p := s.sets[s.names[h.Hash()]].Part(i, h, vote).Clone()
	if d.HasArg("bad") {
		p.Shards[3][7]++
	}
	return simplex.PartReceived{From: from, Part: p}
}

// spoil makes one thing of a header wrong.
func spoil(h *consensus.Header, what string) {
	switch what {
	case "version":
		h.Version++
	case "chain":
		h.Chain[0]++
	case "height":
		h.Height++
	case "parent":
		h.Parent[0]++
	case "time":
		h.TimeMs--
	case "body":
		h.Body.Length++
	case "committee":
		h.Committee[0]++
	case "state":
		h.State[0]++
	case "echo":
		h.Body = consensus.BodyRef{Codec: consensus.CodecNone}
	}
}

func (s *scene) block(d *datadriven.TestData) consensus.Block {
	b, ok := s.blocks[d.CmdArgs[0].Key]
	if !ok {
		d.Fatalf(s.t, "no block of that name")
	}
	return b
}

// about is the statement of a vote or cert command: kind view=V block=NAME.
func (s *scene) about(d *datadriven.TestData) consensus.Statement {
	view := consensus.View(number(s.t, d, "view"))
	switch d.CmdArgs[0].Key {
	case "nullify":
		return s.statement(consensus.Nullify, view, consensus.Hash{})
	case "notarize", "finalize":
		var name string
		d.ScanArgs(s.t, "block", &name)
		k := consensus.Notarize
		if d.CmdArgs[0].Key == "finalize" {
			k = consensus.Finalize
		}
		if s.blocks[name].Header == nil {
			d.Fatalf(s.t, "no block of that name")
		}
		return s.statement(k, view, s.blocks[name].Header.Hash())
	}
	d.Fatalf(s.t, "unknown kind")
	return consensus.Statement{}
}

func (s *scene) list(d *datadriven.TestData, key string) (ids []int) {
	for _, a := range d.CmdArgs {
		if a.Key == key {
			for _, v := range a.Vals {
				var i int
				if _, err := fmt.Sscan(v, &i); err != nil {
					d.Fatalf(s.t, "%v", err)
				}
				ids = append(ids, i)
			}
		}
	}
	return ids
}

func (s *scene) statement(k consensus.Kind, v consensus.View, h consensus.Hash) consensus.Statement {
	return consensus.Statement{Kind: k, Shard: s.c.Shard, Epoch: s.c.Epoch, View: v, Block: h}
}

func (s *scene) sign(st consensus.Statement, i int, forged bool) consensus.Vote {
	return sign(s.c, st, i, forged)
}

func sign(c *consensus.Committee, st consensus.Statement, i int, forged bool) consensus.Vote {
	v := consensus.Vote{Statement: st, Validator: uint16(i)}
	v.Signature = simtest.NewKeys(len(c.Validators)).Signer(i).Sign(consensus.VoteMessage(simtest.Chain, st))
	if forged {
		v.Signature[7]++
	}
	return v
}

func (s *scene) cert(st consensus.Statement, ids []int) consensus.Certificate {
	return cert(s.c, st, ids)
}

func cert(c *consensus.Committee, st consensus.Statement, ids []int) consensus.Certificate {
	all := consensus.NewSigners(len(c.Validators))
	var sigs []consensus.Signature
	for _, i := range ids {
		all.Add(i)
		sigs = append(sigs, sign(c, st, i, false).Signature)
	}
	sum, err := simtest.NewKeys(len(c.Validators)).Aggregate(sigs)
	if err != nil {
		panic(err)
	}
	return consensus.Certificate{Statement: st, Signers: all, Signature: sum}
}

func (s *scene) step(e simplex.Event) string { return s.print(s.machine.Step(e)) }

// print keeps what is persisted and describes a Ready.
func (s *scene) print(r simplex.Ready) string {
	var b strings.Builder
	s.disk = append(s.disk, r.Persist.Blocks...)
	s.log = append(s.log, r.Persist.Records...)
	for _, bl := range r.Persist.Blocks {
		if h := bl.Header; h.IsEcho() && s.blocks[s.names[h.Hash()]].Header == nil {
			s.name(fmt.Sprintf("echo%d", h.View), bl)
		}
		fmt.Fprintf(&b, "log block %s\n", s.short(bl.Header.Hash()))
	}
	for _, rec := range r.Persist.Records {
		if rec.Vote != nil {
			fmt.Fprintf(&b, "log vote %s\n", s.says(rec.Vote.Statement))
		} else {
			fmt.Fprintf(&b, "log certificate %s\n", s.says(rec.Cert.Statement))
		}
	}
	for _, o := range r.Send {
		to := "all"
		if o.To != simplex.ToAll {
			to = fmt.Sprint(o.To)
		}
		switch {
		case o.Proposal != nil:
			fmt.Fprintf(&b, "send %s proposal %s\n", to, s.says(o.Proposal.Vote.Statement))
		case o.Part != nil:
			fmt.Fprintf(&b, "send %s part of %d, %s\n", to, o.Part.Validator, s.says(o.Part.Vote.Statement))
			v := o.Part.Vote
			signed := simtest.NewKeys(len(s.c.Validators)).Verify(int(v.Validator), consensus.VoteMessage(simtest.Chain, v.Statement), v.Signature)
			if err := shred.Check(s.c, o.Part); err != nil || !signed {
				s.t.Errorf("a bad part leaves, signed %v: %v", signed, err)
			}
		case o.Vote != nil:
			fmt.Fprintf(&b, "send %s vote %s\n", to, s.says(o.Vote.Statement))
		default:
			fmt.Fprintf(&b, "send %s certificate %s\n", to, s.says(o.Cert.Statement))
		}
	}
	for _, a := range r.Apply {
		fmt.Fprintf(&b, "%s\n", s.wish(a))
	}
	if b.Len() == 0 {
		return "-\n"
	}
	return b.String()
}

func (s *scene) wish(a simplex.Action) string {
	switch a := a.(type) {
	case simplex.SetTimer:
		return fmt.Sprintf("SetTimer view %d after %v", a.View, a.After)
	case simplex.Build:
		s.build = &a
		return fmt.Sprintf("Build view %d on %s, body up to %d", a.View, s.short(a.Parent.Hash()), a.MaxBody)
	case simplex.Certify:
		return "Certify " + s.short(a.Block.Header.Hash())
	case simplex.Rebuild:
		s.rebuild = &a
		return fmt.Sprintf("Rebuild %s from %d shards", s.short(a.Block), a.Parts.Count())
	case simplex.Fetch:
		return fmt.Sprintf("Fetch %s view %d", s.short(a.Block), a.View)
	case simplex.CancelFetch:
		return "CancelFetch " + s.short(a.Block)
	case simplex.SyncNeeded:
		return "SyncNeeded " + s.says(a.Cert.Statement)
	case simplex.Finalised:
		s.final = a
		var names []string
		for _, bl := range a.Blocks {
			names = append(names, s.short(bl.Header.Hash()))
		}
		if len(a.Echoes) > 0 {
			names = append(names, "echoed as")
		}
		for _, h := range a.Echoes {
			names = append(names, s.short(h.Hash()))
		}
		return fmt.Sprintf("Finalised %s by %s", strings.Join(names, " "), s.says(a.Cert.Statement))
	case simplex.Abandoned:
		return "Abandoned " + s.short(a.Block)
	case simplex.Evidence:
		return fmt.Sprintf("Evidence against %d: %s, %s", a.First.Validator, s.says(a.First.Statement), s.says(a.Second.Statement))
	case simplex.Misbehaved:
		return fmt.Sprintf("Misbehaved %d: %s", a.Validator, a.Reason)
	case simplex.Halted:
		text := fmt.Sprintf("Halted: %s (%s)", a.Reason, s.says(a.Cert.Statement))
		if a.Against != nil {
			text += ", against " + s.says(a.Against.Statement)
		}
		return text
	case simplex.KeyElsewhere:
		return "KeyElsewhere: " + s.says(a.Statement)
	}
	return fmt.Sprintf("%T", a)
}

func (s *scene) short(h consensus.Hash) string {
	if n, ok := s.names[h]; ok {
		return n
	}
	return h.Short()
}

func (s *scene) says(st consensus.Statement) string {
	if st.Kind == consensus.Nullify {
		return fmt.Sprintf("%s view %d", st.Kind, st.View)
	}
	return fmt.Sprintf("%s view %d %s", st.Kind, st.View, s.short(st.Block))
}
