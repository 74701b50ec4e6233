package config

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestFile: the written file is the golden one, says nothing but the defaults, and with its options enabled means the same.
func TestFile(t *testing.T) {
	c := Default()
	b, err := c.encode()
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "config.toml")
	if *update {
		if err := os.WriteFile(golden, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(b)); diff != "" {
		t.Errorf("testdata/config.toml is out of date; rewrite with -update (-want +got):\n%s", diff)
	}
	enabled := regexp.MustCompile(`(?m)^#(\w+ = )`).ReplaceAll(b[:strings.Index(string(b), "#[[peers]]")], []byte("$1"))
	for name, text := range map[string][]byte{"as written": b, "all enabled": enabled} {
		got, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(c, got); diff != "" {
			t.Errorf("%s is not the default (-want +got):\n%s", name, diff)
		}
	}
	if n := strings.Count(string(enabled), " = "); n != options(reflect.TypeFor[Config]()) {
		t.Errorf("the file has %d options", n)
	}
}

// options counts the plain options of a section and its sub-sections and checks that each is documented.
func options(s reflect.Type) (n int) {
	for i := range s.NumField() {
		f := s.Field(i)
		if f.Tag.Get("toml") == "-" {
			continue
		}
		if f.Tag.Get("doc") == "" || f.Tag.Get("toml") == "" {
			panic(f.Name + " has no doc or toml tag")
		}
		switch {
		case f.Type.Kind() == reflect.Struct:
			n += options(f.Type)
		case f.Type != reflect.TypeFor[[]Peer]():
			n++
		}
	}
	return n
}

func TestWriteAndLoad(t *testing.T) {
	dir := t.TempDir()
	path := Home(dir).Config()
	c := Default()
	c.Log.Level, c.API.Listen, c.Network.Advertise = "debug", "0.0.0.0:80", ListenAddrs("192.0.2.7", 9)
	c.Network.Listen = []string{"/ip6/::/udp/1/quic-v1"}
	c.Peers = []Peer{{strings.Repeat("ab", 32), ListenAddrs("192.0.2.1", 5)}, {strings.Repeat("cd", 32), []string{"/dns4/a.example/tcp/5"}}}
	if err := c.Write(path); err != nil {
		t.Fatal(err)
	}
	if err := c.Write(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second write: %v", err)
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	c.Home = Home(dir)
	if diff := cmp.Diff(c, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if id, err := got.Peers[1].NodeID(); err != nil || id[31] != 0xcd {
		t.Errorf("NodeID = %x, %v", id, err)
	}
	if _, err := Load(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "tutti init") {
		t.Errorf("load of no file: %v", err)
	}
}

func TestProblems(t *testing.T) {
	key := strings.Repeat("ab", 32)
	for name, c := range map[string]struct{ text, want string }{
		"syntax":         {"a = = 1", "toml"},
		"unknown option": {"[log]\ncolour = 1", "log.colour is not an option"},
		"two at once":    {"x = 1\n[log]\nlevel = \"loud\"", "x is not an option: see the commented file that 'tutti init' writes, and remove or correct it; log.level is \"loud\": choose debug, info, warn, error"},
		"wrong type":     {"[log]\nlevel = 7", "log.level"},
		"no listen":      {"[network]\nlisten = []", `network.listen is empty: give an address such as "/ip4/0.0.0.0/udp/9710/quic-v1"`},
		"no multiaddr":   {"[network]\nlisten = [\"1.2.3.4:5\"]", `network.listen holds "1.2.3.4:5": write addresses as /ip4/192.0.2.1/udp/9710/quic-v1 or`},
		"bare udp":       {"[network]\nadvertise = [\"/ip4/1.2.3.4/udp/5\"]", "network.advertise holds"},
		"api":            {"[api]\nlisten = \":9700\"", "api.listen is \":9700\": give host:port"},
		"api port":       {"[api]\nlisten = \"127.0.0.1:99999\"", `api.listen has port "99999": choose 1 to 65535`},
		"numbers":        {"[log]\nmax_files = 0\n[pool]\nmax_transactions = 1\n[memory]\nlimit_mib = 3", "log.max_files is 0: choose 1 to 100; pool.max_transactions is 1: choose 1000 to 10000000; memory.limit_mib is 3"},
		"retention":      {"[storage]\nretention_blocks = 7", "storage.retention_blocks is 7: choose 100 to 100000000, or 0 to keep all blocks for ever"},
		"accel":          {"[accel]\nuse = \"-avx1024\"", `accel.use can't be used: "-avx1024" switches off a feature that nothing here uses: known are`},
		"peer key":       {"[[peers]]\nnode = \"ab\"\naddrs = [\"/ip4/1.2.3.4/tcp/5\"]", `peers[0].node is "ab": give the peer's node key`},
		"peer twice":     {"[[peers]]\nnode = \"" + key + "\"\naddrs = [\"/ip4/1.2.3.4/tcp/5\"]\n[[peers]]\nnode = \"" + key + "\"\naddrs = []", "peers[1].node is also peers[0]: keep one of the two; peers[1].addrs is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
	if c, err := Parse([]byte("[storage]\nretention_blocks = 0")); err != nil || c.Storage.RetentionBlocks != 0 {
		t.Errorf("an archive: %v", err)
	}
	bad := Default()
	bad.Peers = make([]Peer, maxPeers+1)
	bad.Network.Listen = make([]string, 17)
	var p Problems
	if err := bad.Validate(); !errors.As(err, &p) || len(p) != 2 {
		t.Errorf("too many of everything: %v", err)
	}
	if err := bad.Write(filepath.Join(t.TempDir(), "c")); err == nil {
		t.Error("wrote an invalid configuration")
	}
}

// FuzzParse: any text is refused or gives a valid configuration that survives being written.
func FuzzParse(f *testing.F) {
	c := Default()
	c.Peers = []Peer{{strings.Repeat("ab", 32), ListenAddrs("192.0.2.1", 5)}}
	b, err := c.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("[log]\nfile = \"a\\u0001\\\"b\"\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err != nil {
			return
		}
		text, err := c.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(text)
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if diff := cmp.Diff(c, again); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
