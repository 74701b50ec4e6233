package node_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tutti/appliance/api"
	"tutti/appliance/config"
	"tutti/appliance/genesis"
	"tutti/appliance/localnet"
	"tutti/appliance/node"
	"tutti/appliance/statefile"
	"tutti/consensus"
)

// quiet is a Progress that counts.
func quiet(n *uint64) node.Progress { return func(done, _ uint64) { *n = done } }

// carryState: the state of a node that is stopped goes into a file that the genesis proves, and out of it into an empty
// folder, from which the node takes part again.
func (n *network) carryState(t *testing.T) {
	const name = "s0v1"
	home := config.Home(filepath.Join(string(n.Home), "nodes", name))
	if _, err := node.ExportState(t.Context(), home, n.Genesis, 0, 1000, io.Discard, quiet(new(uint64))); err == nil || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("of a node that runs: %v", err)
	}
	n.stop(name)
	var file bytes.Buffer
	var chunks uint64
	info, err := node.ExportState(t.Context(), home, n.Genesis, 0, 1000, &file, quiet(&chunks))
	if err != nil {
		t.Fatal(err)
	}
	got, err := node.VerifyState(t.Context(), bytes.NewReader(file.Bytes()), n.Genesis, 1, quiet(new(uint64)))
	if err != nil {
		t.Fatal(err)
	}
	if got.Quorum == nil || got.Quorum.Signers < 3 || got.Height != info.Height || got.Root != info.Root || got.Accounts != info.Accounts ||
		got.Bytes != int64(file.Len()) || got.Bytes != info.Bytes || got.Proven+consensus.StateLag > got.Height || chunks == 0 {
		t.Errorf("verified %+v, exported %+v, %d bytes", got, info, file.Len())
	}
	n.spoilState(t, file.Bytes())
	if *updateState {
		n.keepState(t, home, file.Bytes())
	}
	n.importState(t, name, home, file.Bytes())
}

var updateState = flag.Bool("update-state", false, "rewrite the state file in testdata")

// keepState commits the file with its genesis.
func (n *network) keepState(t *testing.T, home config.Home, file []byte) {
	for name, b := range map[string][]byte{goldenState + "genesis.json": nil, goldenState + "accounts.bin": nil, goldenState + "shard0.state": file} {
		if b == nil {
			var err error
			if b, err = os.ReadFile(filepath.Join(string(home), filepath.Base(name))); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(os.MkdirAll(goldenState, 0o755), os.WriteFile(name, b, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

const goldenState = "testdata/state/"

// TestStateGolden: a file of an earlier build is good for ever.
func TestStateGolden(t *testing.T) {
	v, err := genesis.Verify(goldenState + "genesis.json")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(goldenState + "shard0.state")
	if err != nil {
		t.Fatal(err)
	}
	info, err := node.VerifyState(t.Context(), bytes.NewReader(b), v, 1, quiet(new(uint64)))
	if err != nil || info.Accounts < 16/2 || info.Bytes != int64(len(b)) {
		t.Errorf("%+v, %v", info, err)
	}
}

// TestStateAgain: a file becomes a folder, and the folder the same file, byte for byte.
func TestStateAgain(t *testing.T) {
	v, err := genesis.Verify(goldenState + "genesis.json")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(goldenState + "shard0.state")
	if err != nil {
		t.Fatal(err)
	}
	home := config.Home(t.TempDir())
	if _, err := node.ImportState(t.Context(), home, v, bytes.NewReader(want), node.ImportOptions{
		RetentionBlocks: 1000, Workers: 1, NeverVoted: true, Progress: quiet(new(uint64)),
	}); err != nil {
		t.Fatal(err)
	}
	var again bytes.Buffer
	if _, err := node.ExportState(t.Context(), home, v, 0, 1000, &again, quiet(new(uint64))); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Bytes(), want) {
		t.Errorf("%d bytes became %d others", len(want), again.Len())
	}
}

// importState puts a file in the place of a node's data.
func (n *network) importState(t *testing.T, name string, home config.Home, file []byte) {
	into := func(shard consensus.ShardID, file []byte) error {
		_, err := node.ImportState(t.Context(), home, n.Genesis, bytes.NewReader(file), node.ImportOptions{Shard: shard, RetentionBlocks: 1000, Workers: 1, Progress: quiet(new(uint64))})
		return err
	}
	if err := into(0, file); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("over data: %v", err)
	}
	if err := os.Rename(home.Data(), home.Data()+".old"); err != nil {
		t.Fatal(err)
	}
	if err := into(1, file); err == nil || !strings.Contains(err.Error(), "of shard 0") {
		t.Errorf("of another shard: %v", err)
	}
	if err := into(0, file[:len(file)-50]); !errors.As(err, new(*statefile.DamageError)) {
		t.Errorf("cut: %v", err)
	}
	if left, _ := filepath.Glob(home.Data() + "*"); len(left) != 1 {
		t.Errorf("a failed import leaves %q", left)
	}
	if err := os.MkdirAll(filepath.Join(home.Data()+".import", "state"), 0o755); err != nil { // as after a kill
		t.Fatal(err)
	}
	if err := into(0, file); err != nil {
		t.Fatal(err)
	}
	n.start(name)
	n.until(name+" is ready again", func() bool { return n.ready(name) })
	if left, _ := filepath.Glob(home.SyncMark()); len(left) != 0 {
		t.Error("it would adopt its log again")
	}
	balance := func(name string) []byte {
		b, _ := n.raw(name, "/v1/accounts/"+n.member(0).String())
		return b[:bytes.LastIndex(b, []byte("height"))]
	}
	n.until("it says what the others say", func() bool { return bytes.Equal(balance(name), balance("s0v0")) })
	votes := func() { // silent it would be one too many with the next that is stopped
		now, _ := get[api.Status](n, "s0v0", "/v1/status")
		n.signs(name, "s0v0", 1, now.FinalHeight)
	}
	votes()
	n.stop(name) // and from its own folder
	n.start(name)
	n.until(name+" is ready from its folder", func() bool { return n.ready(name) })
	votes()
}

// spoilState changes and cuts each section of a good file, and leaves sections out: nothing passes.
func (n *network) spoilState(t *testing.T, good []byte) {
	verify := func(b []byte) error {
		_, err := node.VerifyState(t.Context(), bytes.NewReader(b), n.Genesis, 1, quiet(new(uint64)))
		return err
	}
	sections := sectionsOf(t, good)
	seen := map[statefile.Kind]bool{}
	for i, s := range sections {
		if seen[s.kind] && s.kind == statefile.Chunk {
			continue
		}
		seen[s.kind] = true
		var damage *statefile.DamageError
		flipped := bytes.Clone(good)
		flipped[s.at+5+len(s.content)/2] ^= 4
		if err := verify(flipped); !errors.As(err, &damage) || damage.Section != uint64(i) {
			t.Errorf("%s %d flipped: %v", s.kind, i, err)
		}
		if err := verify(good[:s.at+20]); !errors.As(err, &damage) || damage.Section != uint64(i) {
			t.Errorf("cut in %s %d: %v", s.kind, i, err)
		}
		// The same with digests that are right: it is not damage then but a lie.
		if s.kind == statefile.End {
			continue
		}
		for at := 0; at < len(s.content); at += max(1, len(s.content)/5) {
			lie := bytes.Clone(s.content)
			lie[at] ^= 4
			if err := verify(written(t, sections, i, lie)); err == nil {
				t.Errorf("%s %d with byte %d changed verifies", s.kind, i, at)
			}
		}
		if s.kind == statefile.Chunk || s.kind == statefile.Keys || s.kind == statefile.Outbox {
			if err := verify(written(t, sections, i, nil)); err == nil {
				t.Errorf("without %s %d it verifies", s.kind, i)
			}
		}
	}
	for _, k := range []statefile.Kind{statefile.Head, statefile.Final, statefile.Outline, statefile.Difference, statefile.Chunk, statefile.Block, statefile.End} {
		if !seen[k] {
			t.Errorf("the file has no %s", k)
		}
	}
	other, err := localnet.Prepare(localnet.Options{Home: filepath.Join(t.TempDir(), "other"), Accounts: 16, APIPort: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := node.VerifyState(t.Context(), bytes.NewReader(good), other.Genesis, 1, quiet(new(uint64))); err == nil || !strings.Contains(err.Error(), "take the genesis file of that network") {
		t.Errorf("of another chain: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := node.VerifyState(ctx, bytes.NewReader(good), n.Genesis, 1, quiet(new(uint64))); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

type section struct {
	kind    statefile.Kind
	at      int
	content []byte
}

func sectionsOf(t *testing.T, file []byte) (out []section) {
	r, err := statefile.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	for {
		at := int(r.Offset())
		k, content, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, section{k, at, bytes.Clone(content)})
	}
}

// written is a file of sections with another content for one; nil leaves it out.
func written(t *testing.T, sections []section, i int, content []byte) []byte {
	var b bytes.Buffer
	w, err := statefile.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	for k, s := range sections {
		if k == i {
			s.content = content
		}
		if s.kind == statefile.End || s.content == nil {
			continue
		}
		if err := w.Add(s.kind, s.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
