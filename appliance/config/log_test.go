package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestRotating(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	path := filepath.Join(dir, "tutti.log")
	r, err := OpenRotating(path, 100, 3)
	if err != nil {
		t.Fatal(err)
	}
	line := func(i int) string { return fmt.Sprintf("%029d\n", i) } // 30 bytes: three to a file
	for i := range 20 {
		if n, err := r.Write([]byte(line(i))); n != 30 || err != nil {
			t.Fatal(n, err)
		}
		if i == 10 { // carries on where an earlier process stopped
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if r, err = OpenRotating(path, 100, 3); err != nil {
				t.Fatal(err)
			}
		}
	}
	var all strings.Builder
	for _, name := range []string{"tutti.log.2", "tutti.log.1", "tutti.log"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		info, _ := os.Stat(filepath.Join(dir, name))
		if err != nil || len(b) > 100 || info.Mode().Perm() != 0o640 {
			t.Errorf("%s: %d bytes, mode %v, %v", name, len(b), info.Mode(), err)
		}
		all.Write(b)
	}
	var want strings.Builder
	for i := 12; i < 20; i++ {
		want.WriteString(line(i))
	}
	if all.String() != want.String() {
		t.Errorf("kept\n%swant\n%s", &all, &want)
	}
	if files, _ := os.ReadDir(dir); len(files) != 3 {
		t.Errorf("%d files", len(files))
	}
	if _, err := r.Write(bytes.Repeat([]byte("x"), 500)); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Size() != 100 {
		t.Errorf("a record over the limit left %d bytes", info.Size())
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Write([]byte("x")); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
}

// TestRotatingRecovers: while old files cannot be set aside records are lost with an error and the bound holds; then it goes on.
func TestRotatingRecovers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	if err := os.MkdirAll(filepath.Join(path+".1", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	r, err := OpenRotating(path, 10, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Write([]byte("12345678")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := r.Write([]byte("abcdefgh")); err == nil {
			t.Error("no error")
		}
	}
	if info, _ := os.Stat(path); info.Size() != 8 {
		t.Errorf("%d bytes", info.Size())
	}
	if err := os.RemoveAll(path + ".1"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Write([]byte("ijklmnop")); err != nil {
		t.Error(err)
	}
}

func TestRotatingConcurrent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	r, err := OpenRotating(path, 1000, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for range 100 {
				if _, err := r.Write(append(bytes.Repeat([]byte{byte('a' + g)}, 19), '\n')); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) != 8 {
		t.Errorf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		b, _ := os.ReadFile(f)
		for _, l := range bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n")) {
			if len(l) != 19 || bytes.Count(l, l[:1]) != 19 {
				t.Errorf("torn record %q", l)
			}
		}
	}
}

func TestOpenLog(t *testing.T) {
	home := Home(t.TempDir())
	var stderr bytes.Buffer
	l := Default().Log
	log, c, err := l.Open(home, &stderr)
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("no")
	log.Info("hello", "height", 7)
	if !strings.Contains(stderr.String(), `level=INFO msg=hello height=7`) || strings.Contains(stderr.String(), "no") {
		t.Errorf("text: %s", &stderr)
	}
	l.Level, l.Format, l.File = "debug", "json", "log/tutti.log"
	log, c2, err := l.Open(home, &stderr)
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("deep")
	if err := errors.Join(c.Close(), c2.Close()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(string(home), "log", "tutti.log"))
	var record struct{ Msg, Level string }
	if json.Unmarshal(b, &record) != nil || err != nil || record.Msg != "deep" || record.Level != "DEBUG" {
		t.Errorf("json: %s, %v", b, err)
	}
}
