package durable

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// content is what is at path, nil if there is nothing.
func content(t *testing.T, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestReplace: with a failure at each call of the file system in turn, and a crash after it, the old content or the new one is
// there, whole; and the new one once Replace has returned without an error.
func TestReplace(t *testing.T) {
	before, after := []byte("before"), bytes.Repeat([]byte("after"), 1000)
	for at := int32(0); ; at++ {
		fs := vfs.NewCrashableMem()
		root, err := fs.OpenDir("/")
		if err := errors.Join(err, fs.MkdirAll("/d", 0o755), root.Sync(), root.Close()); err != nil {
			t.Fatal(err)
		}
		if err := Replace(fs, "/d/f", before); err != nil {
			t.Fatal(err)
		}
		err = Replace(errorfs.Wrap(fs, errorfs.ErrInjected.If(errorfs.OnIndex(at))), "/d/f", after)
		crashed := fs.CrashClone(vfs.CrashCloneCfg{})
		got := content(t, crashed, "/d/f")
		if !bytes.Equal(got, after) && (err == nil || !bytes.Equal(got, before)) {
			t.Fatalf("failure at call %d: %v, and then %d bytes are there", at, err, len(got))
		}
		if err := Replace(crashed, "/d/f", after); err != nil || !bytes.Equal(content(t, crashed, "/d/f"), after) {
			t.Fatalf("again after a failure at call %d: %v", at, err)
		}
		if err == nil {
			if at < 6 {
				t.Fatalf("no failure at call %d was told", at)
			}
			return
		}
	}
}
