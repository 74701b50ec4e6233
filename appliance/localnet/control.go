package localnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What follows does to single nodes what machines and operators do to them. All but Alive and Died are for one goroutine
// at a time. An end that was asked for here is no news: Run does not report it.

// launch starts the process of a node.
func (n *Network) launch(name string) error {
	home := n.nodeHome(name)
	args := []string{"run", "--home", home, "--parent-fd", strconv.Itoa(ParentFD)}
	if n.opt.Profiles != "" {
		args = append(args, "--cpu-profile", filepath.Join(n.opt.Profiles, name+".pprof"))
	}
	return n.children.start(name, n.Stderr(name), nil, n.opt.Binary, args...)
}

// brokerName is that of the broker's process, which is no node.
const brokerName = "broker"

// launchBroker starts the broker's process.
func (n *Network) launchBroker() error {
	var apis []string
	for _, urls := range n.APIs {
		apis = append(apis, urls...)
	}
	args := []string{"broker", "--home", string(n.Home), "--api", strings.Join(apis, ","), "--listen", n.BrokerAddr(), "--parent-fd", strconv.Itoa(ParentFD)}
	if n.opt.Profiles != "" {
		args = append(args, "--cpu-profile", filepath.Join(n.opt.Profiles, brokerName+".pprof"))
	}
	return n.children.start(brokerName, n.brokerLog(), &n.broker, n.opt.Binary, args...)
}

// brokerLog is the file with the broker's log, begun anew at each start.
func (n *Network) brokerLog() string { return filepath.Join(string(n.Home), "broker.log") }

// BrokerAddr is where the broker listens, with Options.Broker.
func (n *Network) BrokerAddr() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(n.brokerPort()))
}

func (n *Network) brokerPort() int { return n.opt.APIPort + portsApart + n.opt.Shards*n.opt.Validators }

// BrokerPID is the broker's process; 0: there is none.
func (n *Network) BrokerPID() int {
	c, err := n.child(brokerName)
	if err != nil {
		return 0
	}
	return c.cmd.Process.Pid
}

func (n *Network) pids() []int {
	var out []int
	for _, c := range n.children.all {
		if c.name != brokerName {
			out = append(out, c.cmd.Process.Pid)
		}
	}
	return out
}

// Stderr is the file with the standard error of a node's process, begun anew at each start. It is empty unless the
// process ended with an error or panicked.
func (n *Network) Stderr(name string) string { return filepath.Join(n.nodeHome(name), "stderr.log") }

// Log is the file with the log of a node.
func (n *Network) Log(name string) string { return filepath.Join(n.nodeHome(name), logFile) }

// URL is the address of a node's API, empty for a name that there is not.
func (n *Network) URL(name string) string {
	k := slices.Index(n.Names, name)
	if k < 0 {
		return ""
	}
	return "http://" + n.apiAddr(k)
}

// Alive reports whether a node's process runs, standing still or not.
func (n *Network) Alive(name string) bool {
	c, err := n.child(name)
	return err == nil && !c.over()
}

// Died is the next process that ended without being asked to, and how, if there is one.
func (n *Network) Died() (name, why string, ok bool) {
	select {
	case c := <-n.children.ended:
		return c.name, c.why(), true
	default:
		return "", "", false
	}
}

// Kill ends processes with SIGKILL, all at the same moment, and waits until they are gone.
func (n *Network) Kill(names ...string) error { return n.end(syscall.SIGKILL, names) }

// Stop ends processes with SIGTERM, all at the same moment, and waits until they are gone. One that takes longer than
// ten seconds is killed, which is an error.
func (n *Network) Stop(names ...string) error { return n.end(syscall.SIGTERM, names) }

// Pause makes processes stand still (SIGSTOP).
func (n *Network) Pause(names ...string) error { return n.signal(syscall.SIGSTOP, names) }

// Continue lets paused processes go on (SIGCONT).
func (n *Network) Continue(names ...string) error { return n.signal(syscall.SIGCONT, names) }

// Restart starts the processes of nodes that have ended. It does not wait until they answer.
func (n *Network) Restart(names ...string) error {
	for _, name := range names {
		c, err := n.child(name)
		if err != nil && !slices.Contains(n.opt.Absent, name) {
			return err
		}
		if err == nil && !c.over() {
			return fmt.Errorf("localnet: %s is running", name)
		}
		if err := n.launch(name); err != nil {
			return err
		}
	}
	n.PIDs = n.pids()
	return nil
}

func (n *Network) child(name string) (*child, error) {
	for _, c := range n.children.all {
		if c.name == name {
			return c, nil
		}
	}
	return nil, fmt.Errorf("localnet: there is no node %q", name)
}

func (c *child) over() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// signal sends a signal to processes that run.
func (n *Network) signal(s syscall.Signal, names []string) error {
	var errs []error
	for _, name := range names {
		c, err := n.child(name)
		if err == nil {
			err = c.cmd.Process.Signal(s)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("localnet: %s to %s: %w", s, name, err))
		}
	}
	return errors.Join(errs...)
}

// end signals processes that run and waits for their ends.
func (n *Network) end(s syscall.Signal, names []string) error {
	for _, name := range names {
		if c, err := n.child(name); err == nil {
			c.meant.Store(true)
		}
	}
	if err := n.signal(s, names); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace+time.Second)
	defer cancel()
	var errs []error
	for _, name := range names {
		c, err := n.child(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		select {
		case <-c.done:
		case <-ctx.Done():
			_ = c.cmd.Process.Kill()
			<-c.done
			errs = append(errs, fmt.Errorf("localnet: %s did not stop within %s and was killed", name, stopGrace))
		}
	}
	return errors.Join(errs...)
}
