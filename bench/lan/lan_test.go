package lan

import (
	"encoding/binary"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// two makes a switch of two ports, with a UDP socket at each.
func two(t *testing.T) (s *Switch, a, b *net.UDPConn) {
	t.Helper()
	if err := Supported(); err != nil {
		t.Skip(err)
	}
	s, err := New(2)
	if err != nil {
		t.Fatal(err)
	}
	sockets := make([]*net.UDPConn, 3)
	for i := 1; i <= 2; i++ {
		if err := s.In(i, func() (err error) {
			sockets[i], err = net.ListenUDP("udp4", &net.UDPAddr{IP: addr(i), Port: 5000})
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, c := range sockets[1:] {
			c.Close()
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, sockets[1], sockets[2]
}

// send sends numbered messages from one socket to the other and returns those that came within a while, in their order.
func send(t *testing.T, from, to *net.UDPConn, n, size int, within time.Duration) (got []int) {
	t.Helper()
	b := make([]byte, size)
	for i := range n {
		binary.BigEndian.PutUint32(b, uint32(i))
		if _, err := from.WriteTo(b, to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	_ = to.SetReadDeadline(time.Now().Add(within))
	for {
		k, err := to.Read(b)
		if err != nil {
			return got
		}
		if k == size {
			got = append(got, int(binary.BigEndian.Uint32(b)))
		}
	}
}

const few = 120 // that a socket holds twice

func TestLinks(t *testing.T) {
	s, a, b := two(t)
	only := func(l Link) { // from port 1 to port 2
		s.Set(func(from, to int) Link {
			if from == 1 && to == 2 {
				return l
			}
			return Link{}
		})
	}
	inOrder := func(got []int) bool {
		for i := range got {
			if i > 0 && got[i] < got[i-1] {
				return false
			}
		}
		return true
	}
	for _, c := range []struct {
		name   string
		link   Link
		within time.Duration
		good   func(got []int) bool
	}{
		{"clean", Link{}, 200 * time.Millisecond, func(got []int) bool { return len(got) == few && inOrder(got) }},
		{"cut", Link{Cut: true}, 100 * time.Millisecond, func(got []int) bool { return len(got) == 0 }},
		{"half lost", Link{Loss: 0.5}, 200 * time.Millisecond, func(got []int) bool { return len(got) > few/4 && len(got) < few*3/4 }},
		{"doubled", Link{Duplicate: 1}, 200 * time.Millisecond, func(got []int) bool { return len(got) == 2*few }},
		{"late", Link{Delay: 300 * time.Millisecond}, 200 * time.Millisecond, func(got []int) bool { return len(got) == 0 }},
		{"late, at last", Link{}, 300 * time.Millisecond, func(got []int) bool { return len(got) == 2*few }}, // and those of before
		{"jitter in order", Link{Jitter: 50 * time.Millisecond}, 300 * time.Millisecond, func(got []int) bool { return len(got) == few && inOrder(got) }},
		{"out of order", Link{Jitter: 50 * time.Millisecond, Reorder: true}, 300 * time.Millisecond, func(got []int) bool { return len(got) == few && !inOrder(got) }},
		{"slow", Link{BytesPerSecond: 50 * 128}, 2 * time.Second, func(got []int) bool { return len(got) > 45 && len(got) < 60 }}, // a second's worth waits
		{"clean again", Link{}, 200 * time.Millisecond, func(got []int) bool { return len(got) == few && inOrder(got) }},
	} {
		only(c.link)
		got := send(t, a, b, few, 100, c.within) // 128 bytes on the wire
		if !c.good(got) {
			t.Errorf("%s: %d of %d came: %v", c.name, len(got), few, got)
		}
	}
	only(Link{Cut: true})
	if got := send(t, b, a, few, 100, 200*time.Millisecond); len(got) != few {
		t.Errorf("cut the other way: %d of %d came", len(got), few)
	}
	if passed, dropped := s.Counts(); passed == 0 || dropped == 0 {
		t.Errorf("counted %d passed, %d dropped", passed, dropped)
	}
}

func TestAnd(t *testing.T) {
	a := Link{Loss: 0.5, Delay: 1, Jitter: 2, BytesPerSecond: 10}
	b := Link{Loss: 0.5, Duplicate: 0.1, Delay: 3, Reorder: true, BytesPerSecond: 5}
	want := Link{Loss: 0.75, Duplicate: 0.1, Delay: 4, Jitter: 2, Reorder: true, BytesPerSecond: 5}
	for _, got := range []Link{a.And(b), b.And(a)} {
		if got.Duplicate -= 0.1; got.Duplicate > 1e-9 || got.Duplicate < -1e-9 {
			t.Errorf("%+v", got)
		}
		if got.Duplicate = 0.1; got != want {
			t.Errorf("%+v, expected %+v", got, want)
		}
	}
	if got := a.And(Link{}); got != a {
		t.Errorf("with nothing: %+v, expected %+v", got, a)
	}
}

// TestAlone: a process sees its own device and loopback, and nothing else.
func TestAlone(t *testing.T) {
	s, _, _ := two(t)
	cmd := exec.Command("cat", "/proc/self/net/dev")
	out := new(strings.Builder)
	cmd.Stdout = out
	if err := s.Start(1, cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	var devices []string
	for _, line := range strings.Split(out.String(), "\n") {
		if name, _, ok := strings.Cut(line, ":"); ok {
			devices = append(devices, strings.TrimSpace(name))
		}
	}
	for _, d := range devices {
		if d != "lo" && d != device {
			t.Errorf("devices %v", devices)
		}
	}
	if len(devices) != 2 {
		t.Errorf("devices %v", devices)
	}
}
