package host

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// ErrTaken says that another process on this machine holds what was to be taken.
var ErrTaken = errors.New("taken by another process on this machine")

// Take makes this process the only one on this machine that holds a secret's public part, whatever folders the processes use.
// release gives it back; the kernel does when the process ends, however it ends, so that nothing stale is ever left. It is a
// name in the abstract namespace of Unix sockets, which machines have one of for each network namespace: containers with
// networks of their own do not see each other. The error wraps ErrTaken if another process, or this one, has it.
func Take(public []byte) (release func(), err error) {
	name := fmt.Sprintf("@tutti-%x", sha256.Sum256(append([]byte("tutti/exclusive/1"), public...)))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("host: %w", ErrTaken)
	}
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	return func() { l.Close() }, nil
}
