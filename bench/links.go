package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"tutti/appliance/localnet"
	"tutti/bench/lan"
)

// # Links
//
// With Config.Link each validator of a network of our own has a network namespace of its own, and packets between any two of them,
// and between them and this client, take as long as on that link and are lost as there (bench/lan, which stands in for netem: that is
// not in every kernel). A broker is at the client's. The process needs root and a namespace of its own: see Isolate. The CPU of
// the switch is this process's, not a validator's.

// Link is a network to measure on.
type Link struct {
	Name, Says string
	of         lan.Link // from each to each
}

// Links are those that there are.
var Links = []Link{
	{"lan", "0.25 ms each way, 1 Gbit/s", lan.Link{Delay: 250 * time.Microsecond, BytesPerSecond: 125_000_000}},
	{"continent", "15 ms each way and up to 3 more, 200 Mbit/s", lan.Link{Delay: 15 * time.Millisecond, Jitter: 3 * time.Millisecond, BytesPerSecond: 25_000_000}},
	{"world", "75 ms each way and up to 10 more, 1 packet in 1,000 lost, 200 Mbit/s", lan.Link{
		Delay: 75 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.001, BytesPerSecond: 25_000_000,
	}},
}

// LinkNamed finds a link. The error names all.
func LinkNamed(name string) (*Link, error) {
	var names []string
	for i := range Links {
		if Links[i].Name == name {
			return &Links[i], nil
		}
		names = append(names, fmt.Sprintf("%s (%s)", Links[i].Name, Links[i].Says))
	}
	return nil, fmt.Errorf("link %q: choose one of %s", name, strings.Join(names, ", "))
}

// String is how a report names the link.
func (l *Link) String() string { return l.Name + ": " + l.Says }

// linkPort is where the APIs begin that have an address of their own.
const linkPort = 9700

// join makes the switch for the validators of a network of our own, and has them start at it.
func (l *Link) join(o *localnet.Options) (*lan.Switch, error) {
	n := o.Shards * o.Validators
	s, err := lan.New(n)
	if err != nil {
		return nil, err
	}
	if err := s.Join(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.Set(func(from, to int) lan.Link { return l.of })
	at := map[string]int{}
	for shard := range o.Shards {
		for v := range o.Validators {
			at[localnet.NodeName(shard, v)] = 1 + shard*o.Validators + v
		}
	}
	for port := 1; port <= n; port++ {
		o.Hosts = append(o.Hosts, lan.Addr(port))
	}
	o.APIPort = linkPort
	o.Spawn = func(name string, cmd *exec.Cmd) error {
		if port, ok := at[name]; ok {
			return s.Start(port, cmd)
		}
		return cmd.Start() // the broker
	}
	return s, nil
}

// isolatedEnv says that a process has a network namespace of its own.
const isolatedEnv = "TUTTI_BENCH_ISOLATED"

// Isolate runs this program once more, with its arguments, in a network namespace of its own, as Config.Link needs it, and returns
// its exit status when it ends. done is false in the process that it started, and there nothing happens. The end of ctx interrupts it.
func Isolate(ctx context.Context) (status int, done bool, err error) {
	if os.Getenv(isolatedEnv) != "" {
		return 0, false, os.Unsetenv(isolatedEnv)
	}
	if err := lan.Supported(); err != nil {
		return 0, true, fmt.Errorf("bench: a link needs namespaces: run it as root, where /dev/net/tun is: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return 0, true, fmt.Errorf("bench: %w", err)
	}
	runtime.LockOSThread() // the process ends with the thread that started it
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), isolatedEnv+"=1")
	// A terminal's interrupt reaches it through us alone: a second one would kill it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	var exit *exec.ExitError
	switch err := cmd.Run(); {
	case err == nil:
		return 0, true, nil
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode(), true, nil
	default: // it could not be started, or was killed
		return 0, true, fmt.Errorf("bench: in a network namespace: %w", err)
	}
}
