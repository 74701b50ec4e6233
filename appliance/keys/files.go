package keys

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"tutti/appliance/host"
)

// Load reads the keystore at path. It refuses a file that others than its owner may read.
func Load(path string) (*Keystore, error) {
	b, err := readPrivate(path, MaxFileBytes)
	if err != nil {
		return nil, err
	}
	k, err := Decode(b)
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, path)
	}
	return k, nil
}

// LoadType is Load for a key of one type.
func LoadType(path string, t Type) (*Keystore, error) {
	k, err := Load(path)
	if err == nil && k.Type() != t {
		return nil, fmt.Errorf("keys: %s holds another key (%s) than is needed (%s): name the right file", path, k.Type().Title(), t.Title())
	}
	return k, err
}

// Save writes the keystore to a new file at path, mode 0600, durable when it returns. The folder is made, mode 0700, if
// need be. An existing file is never overwritten: the error wraps fs.ErrExist.
func (k *Keystore) Save(path string) error {
	b, err := k.Encode()
	if err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	return createPrivate(path, b)
}

// EnsureFolder makes a folder, mode 0700, for keys and passwords, or checks that only its owner may enter an existing one.
func EnsureFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("keys: %s is not a folder: move it away", dir)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("keys: others may look into %s (mode %04o): run 'chmod 700 %s'", dir, info.Mode().Perm(), dir)
	}
	return nil
}

func createPrivate(path string, content []byte) error {
	if err := EnsureFolder(filepath.Dir(path)); err != nil {
		return err
	}
	err := host.CreateFile(path, content, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keys: %s exists and is never overwritten: choose another name or move it away: %w", path, fs.ErrExist)
	}
	return err
}

// readPrivate reads a file of at most limit bytes that only its owner, who is this user or root, may read. The checks
// are made on the open file, so the file cannot be swapped in between.
func readPrivate(path string, limit int) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // non-blocking: opening a named pipe must not hang
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("keys: %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("keys: %s is not a regular file: name the file itself", path)
	}
	if mode := st.Mode & 0o777; mode&0o077 != 0 {
		return nil, fmt.Errorf("keys: others may read %s (mode %04o): run 'chmod 600 %s'", path, mode, path)
	}
	if uid := os.Geteuid(); st.Uid != 0 && uid != 0 && int(st.Uid) != uid {
		return nil, fmt.Errorf("keys: %s belongs to another user: run 'chown %d %s'", path, uid, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("keys: %s: %w", path, err)
	}
	if len(b) > limit {
		return nil, fmt.Errorf("keys: %s is over %d bytes: it is not a key or password file", path, limit)
	}
	return b, nil
}
