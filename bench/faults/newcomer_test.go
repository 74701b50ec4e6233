package faults

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tutti/appliance/localnet"
)

// patience bounds each wait of a newcomer; on a quiet machine none takes more than a few seconds.
const patience = 2 * time.Minute

// TestNewcomer does what the README tells a newcomer to do, with the real binary: start the demo network, read its
// status, send money to the other shard, check the receipt offline, stop with Ctrl-C, and start again.
func TestNewcomer(t *testing.T) {
	binary, home := build(t, ""), filepath.Join(t.TempDir(), "net")
	ports, err := localnet.FreePorts(8)
	if err != nil {
		t.Fatal(err)
	}
	tutti := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(binary, append(args, "--home", home)...).CombinedOutput()
		if err != nil {
			t.Fatalf("tutti %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}

	first := startDemo(t, binary, home, ports)
	address := first.await(t, `^API and dashboard: (http://\S+)$`)[1]
	send := first.await(t, `tutti wallet send demo (\S+) 1000`)
	first.await(t, `^load +200 tx/s wanted +\d+ sent, +[1-9]\d* final and proven, 0 rejected`)
	var status struct {
		Shard  int    `json:"shard"`
		Height uint64 `json:"final_height"`
	}
	if err := json.Unmarshal([]byte(tutti("status", "--api", address, "--json")), &status); err != nil || status.Height == 0 {
		t.Fatalf("status: %+v, %v", status, err)
	}
	before := tutti("wallet", "balance", "demo")
	sent := tutti("wallet", "send", "demo", send[1], "1000")
	receipt := regexp.MustCompile(`Credited: block \d+ of shard 1.\nProof: (\S+)`).FindStringSubmatch(sent)
	if !strings.Contains(sent, "Final after") || receipt == nil {
		t.Fatalf("a transfer to the other shard:\n%s", sent)
	}
	first.stop(t)
	if out := tutti("wallet", "receipt", receipt[1]); !strings.Contains(out, "shard 1") { // no node runs now
		t.Errorf("the receipt, offline:\n%s", out)
	}

	again := startDemo(t, binary, home, ports)
	line := again.await(t, fmt.Sprintf(`^shard %d  height +(\d+) `, status.Shard))
	if height, err := strconv.ParseUint(line[1], 10, 64); err != nil || height < status.Height {
		t.Errorf("shard %d goes on from height %s (%v), it was at %d", status.Shard, line[1], err, status.Height)
	}
	again.await(t, `^load +200 tx/s wanted +\d+ sent, +[1-9]\d* final and proven`)
	if after := tutti("wallet", "balance", "demo"); after == before {
		t.Errorf("the balance is as before the transfer:\n%s", after)
	}
	again.stop(t)
}

// demo is a `tutti localnet` that runs. The test's goroutine owns it.
type demo struct {
	cmd   *exec.Cmd
	lines chan string // its output, closed at its end
}

func startDemo(t *testing.T, binary, home string, port int) *demo {
	t.Helper()
	d := &demo{cmd: exec.Command(binary, "localnet", "--home", home, "--api-port", strconv.Itoa(port)), lines: make(chan string, 1024)}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	d.cmd.Stderr = os.Stderr
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill()
		for range d.lines { // until the pipe is closed: nobody holds it any more
		}
		_ = d.cmd.Wait()
	})
	go func() {
		defer close(d.lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			d.lines <- in.Text()
		}
	}()
	return d
}

// await reads on to the first line that matches, and returns its groups.
func (d *demo) await(t *testing.T, pattern string) []string {
	t.Helper()
	want := regexp.MustCompile(pattern)
	late := time.After(patience)
	for {
		select {
		case line, more := <-d.lines:
			if !more {
				t.Fatalf("it ended before a line like %s", pattern)
			}
			if m := want.FindStringSubmatch(line); m != nil {
				return m
			}
		case <-late:
			t.Fatalf("no line like %s", pattern)
		}
	}
}

// stop does what Ctrl-C does to it alone, and wants everything that it started to be gone: the validators hold the pipe
// of its output open while they live.
func (d *demo) stop(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	late := time.After(patience)
	for {
		select {
		case _, more := <-d.lines:
			if more {
				continue
			}
			if err := d.cmd.Wait(); err != nil {
				t.Fatalf("after Ctrl-C: %v", err)
			}
			return
		case <-late:
			t.Fatal("it does not end, or a process that it started lives on")
		}
	}
}
