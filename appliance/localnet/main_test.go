package localnet

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// The test binary is started again as the processes of a network, by its first argument:
//
//	run ...          a tutti that fails at once, and says why
//	well-behaved F   holds a lock on the file F until its parent's pipe or SIGTERM ends it
//	stubborn F       the same, but only SIGKILL ends it
//	parent F         starts a well-behaved F, tells that it runs, and waits to be killed
func TestMain(m *testing.M) {
	if len(os.Args) < 2 {
		goleak.VerifyTestMain(m)
	}
	switch os.Args[1] {
	case "run":
		fmt.Fprintln(os.Stderr, "tutti: the disk is full: free some space")
		os.Exit(1)
	case "well-behaved":
		hold(os.Args[2])
		_, _ = io.Copy(io.Discard, os.NewFile(ParentFD, "parent"))
		os.Exit(0)
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		hold(os.Args[2])
		select {}
	case "parent":
		c, err := newChildren(1)
		if err == nil {
			err = c.start("child", os.Args[2]+".stderr", nil, os.Args[0], "well-behaved", os.Args[2])
		}
		if err != nil {
			panic(err)
		}
		fmt.Println("started")
		select {}
	default:
		goleak.VerifyTestMain(m)
	}
}

// hold takes a lock that ends with the process.
func hold(path string) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err == nil {
		_, err = f.WriteString("held")
	}
	if err != nil {
		panic(err)
	}
}
