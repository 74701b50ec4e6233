package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFindHome(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("HOME", filepath.Join(dir, "user"))
	t.Setenv("TUTTI_HOME", "")
	is := func(flag, want string) {
		t.Helper()
		if got, err := FindHome(flag); err != nil || string(got) != want {
			t.Errorf("FindHome(%q) = %q, %v; want %q", flag, got, err, want)
		}
	}
	is("", filepath.Join(dir, "user", ".tutti"))
	if err := os.Mkdir("localnet", 0o700); err != nil {
		t.Fatal(err)
	}
	is("", filepath.Join(dir, "localnet"))
	t.Setenv("TUTTI_HOME", "/somewhere")
	is("", "/somewhere")
	is("here", filepath.Join(dir, "here"))
}

func TestFormat(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "home")
	if err := CheckFormat(dir, HomeFormat); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("check of no folder: %v", err)
	}
	for range 2 {
		if err := CreateFormat(dir, HomeFormat); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []func(dir, format string) error{CheckFormat, CreateFormat} {
		if err := f(dir, "tutti-home 2"); err == nil || !strings.Contains(err.Error(), "use the version of tutti that wrote it") {
			t.Errorf("unknown format: %v", err)
		}
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "thesis.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CreateFormat(other, HomeFormat); err == nil || !strings.Contains(err.Error(), "choose an empty folder") {
		t.Errorf("folder with other files: %v", err)
	}
}

func TestLock(t *testing.T) {
	h := Home(t.TempDir())
	release, err := h.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Lock(); err == nil || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("second lock: %v", err)
	}
	release()
	release, err = h.Lock()
	if err != nil {
		t.Fatal(err)
	}
	release()
}

func TestEndpoints(t *testing.T) {
	h := Home(t.TempDir())
	is := func(want ...string) {
		t.Helper()
		got, err := h.Endpoints()
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
	is()
	c := Default()
	if err := c.Write(h.Config()); err != nil {
		t.Fatal(err)
	}
	is("http://127.0.0.1:9700")
	api := []string{"http://127.0.0.1:1", "https://tutti.example"}
	if err := h.WriteEndpoints(api); err != nil {
		t.Fatal(err)
	}
	is(api...)
	if err := h.WriteEndpoints([]string{"127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Endpoints(); err == nil || !strings.Contains(err.Error(), "write it as http://") {
		t.Errorf("endpoint without a scheme: %v", err)
	}
}
