package lan

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	mtu      = 1500 // bytes of a packet, as on Ethernet
	maxPorts = 200
	maxQueue = 4096 // packets on their way to a port
	device   = "lan0"
)

// Switch joins ports 1 to n, each in a namespace of its own, and port 0 once Join was called. Safe for concurrent use.
type Switch struct {
	ports []*port // by number; 0 is nil without Join
	group sync.WaitGroup
	done  chan struct{}

	mu      sync.Mutex // guards what follows
	links   [][]link   // from, to
	dropped int        // packets, for any reason
	passed  int
}

// port is one namespace's device, as the switch sees it.
type port struct {
	space *os.File // the namespace; nil for port 0
	tun   *os.File
	wake  chan struct{} // poked when the head of the queue has changed

	mu    sync.Mutex // guards queue and next
	queue arrivals
	next  uint64
}

// Supported says why there can be no Switch here; nil: there can.
func Supported() error {
	s, err := New(1)
	if err != nil {
		return fmt.Errorf("lan: network namespaces need root and /dev/net/tun: %w", err)
	}
	return s.Close()
}

// New makes a switch with ports 1 to n.
func New(n int) (_ *Switch, err error) {
	if n < 1 || n > maxPorts {
		return nil, fmt.Errorf("lan: %d ports: choose 1 to %d", n, maxPorts)
	}
	s := &Switch{ports: make([]*port, n+1), links: make([][]link, n+1), done: make(chan struct{})}
	for i := range s.links {
		s.links[i] = make([]link, n+1)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	for i := 1; i <= n; i++ {
		p := &port{wake: make(chan struct{}, 1)}
		if err := onThread(func() (err error) {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			if p.space, err = os.Open("/proc/thread-self/ns/net"); err != nil {
				return err
			}
			p.tun, err = open(i)
			return err
		}); err != nil {
			if p.space != nil {
				err = errors.Join(err, p.space.Close())
			}
			return nil, fmt.Errorf("lan: port %d: %w", i, err)
		}
		s.add(i, p)
	}
	return s, nil
}

// Join puts port 0 into this process's own network namespace, which should be one that nobody else uses.
func (s *Switch) Join() error {
	tun, err := open(0)
	if err != nil {
		return fmt.Errorf("lan: port 0: %w", err)
	}
	s.add(0, &port{tun: tun, wake: make(chan struct{}, 1)})
	return nil
}

func (s *Switch) add(i int, p *port) {
	s.mu.Lock()
	s.ports[i] = p
	s.mu.Unlock()
	s.group.Go(func() { s.read(i, p) })
	s.group.Go(func() { s.write(p) })
}

// Close takes the devices away. Processes in the namespaces stay, without a network.
func (s *Switch) Close() error {
	close(s.done)
	var errs []error
	for _, p := range s.ports {
		if p == nil {
			continue
		}
		errs = append(errs, p.tun.Close())
		if p.space != nil {
			errs = append(errs, p.space.Close())
		}
	}
	s.group.Wait()
	return errors.Join(errs...)
}

// Addr is the IPv4 address of a port.
func Addr(port int) string { return net.IP(addr(port)).String() }

func addr(port int) []byte { return []byte{10, 83, 0, byte(port + 1)} }

// Start starts a process in the namespace of a port.
func (s *Switch) Start(port int, cmd *exec.Cmd) error { return s.In(port, cmd.Start) }

// In runs do on a thread in the namespace of a port from 1 on. Sockets that do opens stay in it.
func (s *Switch) In(port int, do func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(s.ports[port].space.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("lan: port %d: %w", port, err)
		}
		return do()
	})
}

// onThread runs do on a thread of its own, which ends with it and so takes its namespace along.
func onThread(do func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		result <- do()
	}()
	return <-result
}

// open makes the device in the namespace of this thread, and brings it and loopback up.
func open(port int) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	if err := configure(fd, port); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "tun"), nil
}

func configure(tun, port int) error {
	control, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(control)
	for _, step := range []struct {
		what    string
		fd      int
		request uint
		name    string
		set     func(*unix.Ifreq) error
	}{
		{"make a device", tun, unix.TUNSETIFF, device, word(unix.IFF_TUN | unix.IFF_NO_PI)},
		{"set its address", control, unix.SIOCSIFADDR, device, inet(addr(port))},
		{"set its mask", control, unix.SIOCSIFNETMASK, device, inet([]byte{255, 255, 255, 0})},
		{"set its packet size", control, unix.SIOCSIFMTU, device, func(r *unix.Ifreq) error { r.SetUint32(mtu); return nil }},
		{"bring it up", control, unix.SIOCSIFFLAGS, device, word(unix.IFF_UP | unix.IFF_RUNNING)},
		{"bring loopback up", control, unix.SIOCSIFFLAGS, "lo", word(unix.IFF_UP | unix.IFF_RUNNING)},
	} {
		r, err := unix.NewIfreq(step.name)
		if err == nil {
			err = step.set(r)
		}
		if err == nil {
			err = unix.IoctlIfreq(step.fd, step.request, r)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

func word(v uint16) func(*unix.Ifreq) error {
	return func(r *unix.Ifreq) error { r.SetUint16(v); return nil }
}

func inet(v []byte) func(*unix.Ifreq) error {
	return func(r *unix.Ifreq) error { return r.SetInet4Addr(v) }
}

// read takes packets from a port's device until it is closed.
func (s *Switch) read(from int, p *port) {
	b := make([]byte, 65536)
	for {
		n, err := p.tun.Read(b)
		if err != nil {
			return
		}
		if to, ok := s.target(b[:n]); ok {
			s.forward(from, to, b[:n])
		}
	}
}

// target is the port that a packet goes to.
func (s *Switch) target(b []byte) (to int, ok bool) {
	const header = 20
	if len(b) < header || b[0]>>4 != 4 || [3]byte(b[16:19]) != [3]byte(addr(0)) {
		return 0, false // IPv6's own talk, or broadcast
	}
	to = int(b[19]) - 1
	return to, to >= 0 && to < len(s.ports)
}

// write gives a port what is due.
func (s *Switch) write(p *port) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		b, wait := p.due()
		if b != nil {
			if _, err := p.tun.Write(b); errors.Is(err, os.ErrClosed) {
				return
			}
			continue // a full device has dropped it
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-p.wake:
		case <-s.done:
			return
		}
	}
}
