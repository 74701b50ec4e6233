// Package child runs other programs for benchmarks: processes that end with this one, however it ends, and may be kept
// to some of the machine's cores (Start); and `tutti bench` with its report (Bench). Linux only.
//
// Nothing here is fatal. A Process is safe for concurrent use.
package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a program that runs.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // how it ended; read after done
}

// Start starts cmd. The kernel kills it when this process ends. With cores above 0 it and its descendants run on the
// first so many of those that this process may use.
func Start(cmd *exec.Cmd, cores int) (*Process, error) {
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel's promise is about the thread that started the child, and a child has the cores of that thread. So the
		// thread is this goroutine's alone, lives as long as the child, and ends with it.
		runtime.LockOSThread()
		if cores > 0 {
			if err := keepTo(cores); err != nil {
				started <- err
				return
			}
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL} // Ctrl-C reaches us alone
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("child: %s: %w", cmd.Path, err)
	}
	return p, nil
}

// keepTo keeps the calling thread, and what it starts, to the first so many of its cores.
func keepTo(cores int) error {
	var all, some unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	if cores > all.Count() {
		return fmt.Errorf("%d cores wanted, %d may be used", cores, all.Count())
	}
	for cpu := 0; some.Count() < cores; cpu++ {
		if all.IsSet(cpu) {
			some.Set(cpu)
		}
	}
	return unix.SchedSetaffinity(0, &some)
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how a process ended that has; nil is exit status 0.
func (p *Process) Err() error { return p.err }

// Stop asks the process to end, kills it if it has not after grace, and waits for its end.
func (p *Process) Stop(grace time.Duration) {
	_ = p.cmd.Process.Signal(os.Interrupt) // it may have ended
	select {
	case <-p.done:
		return
	case <-time.After(grace):
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Wait waits for the process's end, and stops it when ctx ends before.
func (p *Process) Wait(ctx context.Context, grace time.Duration) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		p.Stop(grace)
		return context.Cause(ctx)
	}
}

// ResidentMiB is the resident memory of a process.
func ResidentMiB(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, fmt.Errorf("child: %w", err)
	}
	f := bytes.Fields(b) // size, resident, ... in pages
	if len(f) < 2 {
		return 0, errors.New("child: statm is not in the known form")
	}
	pages, err := strconv.ParseUint(string(f[1]), 10, 50)
	if err != nil {
		return 0, fmt.Errorf("child: %w", err)
	}
	return float64(pages) * float64(os.Getpagesize()) / (1 << 20), nil
}
