package keys

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"tutti/state/tx"
)

func demoKey(t *testing.T, kind Type) *Keystore {
	t.Helper()
	s, err := New(kind)
	if err != nil {
		t.Fatal(err)
	}
	k, err := Seal(s, password(t, "password"), 1<<6, "")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSaveAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	path := filepath.Join(dir, "voting.json")
	k := demoKey(t, Voting)
	if err := k.Save(path); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{dir: 0o700, path: 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
	before, _ := os.ReadFile(path)
	if err := demoKey(t, Voting).Save(path); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "never overwritten") {
		t.Errorf("saved over a key: %v", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("the key was overwritten")
	}
	back, err := Load(path)
	if err != nil || !bytes.Equal(back.Public(), k.Public()) {
		t.Errorf("loaded %v, %v", back, err)
	}
	if _, err := LoadType(path, Node); err == nil || !strings.Contains(err.Error(), "holds another key (BLS voting key) than is needed (Ed25519 node key)") {
		t.Errorf("a voting key as a node key: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("temporary files left: %v", left)
	}
}

func TestRefusesUnsafeFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keys", "k.json")
	if err := demoKey(t, Node).Save(path); err != nil {
		t.Fatal(err)
	}
	fails := func(want string) {
		t.Helper()
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		fails("run 'chmod 600 " + path + "'")
	}
	if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := demoKey(t, Node).Save(filepath.Join(filepath.Dir(path), "other.json")); err == nil || !strings.Contains(err.Error(), "run 'chmod 700 ") {
		t.Errorf("saved into an open folder: %v", err)
	}
	path = filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	fails("not a regular file")
	path = dir
	fails("not a regular file")
	path = filepath.Join(dir, "long")
	if err := os.WriteFile(path, make([]byte, MaxFileBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	fails("over 16384 bytes")
	path = filepath.Join(dir, "none")
	fails("no such file")
}

func TestPasswordFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	path := filepath.Join(dir, "password")
	p := RandomPassword()
	if err := WritePasswordFile(path, p); err != nil {
		t.Fatal(err)
	}
	if err := WritePasswordFile(path, RandomPassword()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second write: %v", err)
	}
	back, err := ReadPasswordFile(path)
	if err != nil || !bytes.Equal(back.normal(), p.normal()) || p.ForNew() != nil {
		t.Errorf("read back: %v", err)
	}
	for name, c := range map[string]struct{ content, want string }{
		"empty":      {"", "1 to 1024 bytes"},
		"two lines":  {"secretword\nsecretword2\n", "more than one line"},
		"too long":   {strings.Repeat("secretword", 103), "over 1026 bytes"},
		"not UTF-8":  {"secretword\xff", "UTF-8"},
		"one line":   {"secretword", ""},
		"CR LF":      {"secretword\r\n", ""},
		"blank tail": {"secretword\n\n", ""},
	} {
		path := filepath.Join(dir, "p")
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := ReadPasswordFile(path)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "secretword") {
			t.Errorf("%s: the error shows the password: %v", name, err)
		}
		if err == nil && string(p.normal()) != "secretword" {
			t.Errorf("%s: %q", name, p.normal())
		}
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPasswordFile(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("open password file: %v", err)
	}
	if err := WritePasswordFile(filepath.Join(dir, "zero"), Password{}); err == nil {
		t.Error("wrote no password")
	}
	notTerminal, _ := os.Open(os.DevNull)
	defer notTerminal.Close()
	if _, err := Prompt(notTerminal, &bytes.Buffer{}, "Password", false); !errors.Is(err, ErrNoTerminal) {
		t.Errorf("prompt without a terminal: %v", err)
	}
}

func TestStore(t *testing.T) {
	s := Store{filepath.Join(t.TempDir(), "wallets")}
	if all, err := s.List(); len(all) != 0 || err != nil {
		t.Errorf("no folder: %v, %v", all, err)
	}
	alice := demoKey(t, Wallet)
	for name, k := range map[string]*Keystore{"alice": alice, "Bob_2": demoKey(t, Wallet)} {
		if err := s.Add(name, k); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Add("alice", demoKey(t, Wallet)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second alice: %v", err)
	}
	if err := s.Add("node", demoKey(t, Node)); err == nil {
		t.Error("a node key became a wallet")
	}
	for _, name := range []string{"", "a/b", "..", "a.b", "-x", "é", strings.Repeat("a", 65)} {
		if err := s.Add(name, alice); err == nil || !strings.Contains(err.Error(), "cannot be a wallet's name") {
			t.Errorf("%q: %v", name, err)
		}
	}
	here, there := Account{tx.Hash{1}, 77, 3}, Account{tx.Hash{2}, 78, 0}
	moved := Account{tx.Hash{1}, 79, 1}
	for _, a := range []Account{here, there, moved} {
		if err := s.SetAccount("alice", a); err != nil {
			t.Fatal(err)
		}
	}
	for i := range maxAccounts {
		if err := s.SetAccount("Bob_2", Account{tx.Hash{byte(i), 1}, tx.ID(i), 0}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SetAccount("Bob_2", here); err != nil {
		t.Fatal(err)
	}
	if err := s.SetAccount("carol", here); err == nil || !strings.Contains(err.Error(), "tutti wallet list") {
		t.Errorf("account of no wallet: %v", err)
	}
	if err := os.WriteFile(s.Path("broken"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WritePasswordFile(filepath.Join(s.Dir, "password"), RandomPassword()); err != nil {
		t.Fatal(err)
	}
	all, err := s.List()
	if err != nil || len(all) != 3 {
		t.Fatalf("%+v, %v", all, err)
	}
	if all[0].Name != "Bob_2" || len(all[0].Accounts) != maxAccounts || all[2].Name != "broken" || all[2].Err == nil {
		t.Errorf("%+v", all)
	}
	if _, ok := all[0].Account(tx.Hash{0, 1}); ok {
		t.Error("the account on the oldest of too many networks was kept")
	}
	want := Entry{Name: "alice", Key: [32]byte(alice.Public()), Accounts: []Account{there, moved}, Weak: true}
	if diff := cmp.Diff(want, all[1]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if a, ok := all[1].Account(tx.Hash{1}); !ok || a != moved {
		t.Errorf("account %+v, %v", a, ok)
	}
}

// FuzzAccounts: any bytes are refused or give a bounded list that survives being written.
func FuzzAccounts(f *testing.F) {
	f.Add([]byte(`{"accounts":[{"genesis":"` + strings.Repeat("ab", 32) + `","account":"` + tx.ID(5).String() + `","shard":2}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := decodeAccounts(b)
		if err != nil {
			return
		}
		if len(all) > maxAccounts {
			t.Fatalf("%d accounts", len(all))
		}
		file := accountsFile{Accounts: make([]accountJSON, len(all))}
		for i, a := range all {
			file.Accounts[i] = accountJSON{a.Genesis.String(), a.ID, a.Shard}
		}
		out, err := json.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeAccounts(out)
		if diff := cmp.Diff(all, again); diff != "" || err != nil {
			t.Errorf("%v\n%s", err, diff)
		}
	})
}
