package main

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/appliance/config"
	"tutti/appliance/keys"
	"tutti/appliance/localnet"
	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/consensus/simplex"
)

// TestProtection runs 'tutti protection' on homes of validators, one of which has voted: testdata/protection/*.txtar.
func TestProtection(t *testing.T) {
	port, err := localnet.FreePorts(8)
	if err != nil {
		t.Fatal(err)
	}
	net, err := localnet.Prepare(localnet.Options{Home: filepath.Join(t.TempDir(), "net"), Accounts: 16, APIPort: port})
	if err != nil {
		t.Fatal(err)
	}
	home := func(name string) config.Home { return config.Home(filepath.Join(string(net.Home), "nodes", name)) }
	one := home("s0v0")
	clone := func(name string) config.Home {
		to := config.Home(filepath.Join(t.TempDir(), name))
		if err := os.CopyFS(string(to), os.DirFS(string(one))); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(to.NodeKey(), 0o600); err != nil { // copies get what the umask leaves
			t.Fatal(err)
		}
		if err := os.Chmod(to.VotingKey(), 0o600); err != nil {
			t.Fatal(err)
		}
		return to
	}
	old, empty, none := clone("old"), clone("empty"), clone("none")
	if err := os.RemoveAll(none.Data()); err != nil {
		t.Fatal(err)
	}
	vote := func(h config.Home, records ...simplex.Record) {
		l := must(blocklog.Open(blocklog.Options{FS: vfs.Default, Dir: h.Blocks(), Chain: net.Genesis.Hash(), Retention: blocklog.MinRetention}))
		for _, r := range records {
			if err := l.AppendRecord(r); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	password := must(keys.ReadPasswordFile(one.KeyPassword()))
	secret := must(must(must(keys.LoadType(one.VotingKey(), keys.Voting)).Open(password)).BLS())
	cast := func(k consensus.Kind, view consensus.View) simplex.Record {
		st := consensus.Statement{Kind: k, View: view}
		if k != consensus.Nullify {
			st.Block = consensus.Hash{byte(view)}
		}
		return simplex.Record{Vote: &consensus.Vote{Statement: st, Signature: secret.Sign(consensus.VoteMessage(net.Genesis.Hash(), st))}}
	}
	final := consensus.Statement{Kind: consensus.Finalize, View: 40, Block: consensus.Hash{1}}
	vote(old, cast(consensus.Notarize, 30))
	vote(
		one, simplex.Record{Cert: &consensus.Certificate{Statement: final, Signers: consensus.Signers{7}}},
		cast(consensus.Notarize, 41), cast(consensus.Finalize, 42), cast(consensus.Notarize, 43),
	)

	// The running node has the lock.
	release, err := one.Lock()
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"export", "import"} {
		var stderr bytes.Buffer
		file := filepath.Join(t.TempDir(), "file")
		if command == "import" {
			if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		status := run(t.Context(), app{stdin: os.Stdin, stdout: &bytes.Buffer{}, stderr: &stderr, cost: testCost}, []string{"protection", command, file, "--home", string(one)})
		if status != 1 || !strings.Contains(stderr.String(), "another process runs a node") {
			t.Errorf("%s beside a running node: status %d, %s", command, status, &stderr)
		}
	}
	release()

	key := net.Genesis.Shards[0].Validators[0].Key
	runScripts(t, "testdata/protection", map[string]string{
		"ONE": string(one), "OLD": string(old), "EMPTY": string(empty), "OTHER": string(home("s0v1")), "NODATA": string(none),
		"KEY": hex.EncodeToString(key[:]), "GENESIS": net.Genesis.Hash().String(),
	}, nil)
}
