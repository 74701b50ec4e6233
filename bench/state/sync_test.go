package state

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tutti/appliance/api"
	"tutti/appliance/config"
	"tutti/appliance/localnet"
	"tutti/internal/plant"
)

// lie is a server of state that changes a bit in some of the chunks that it gives away.
var lie = plant.Bug{
	Name: "lies about chunks", File: "../../state/statesync/server.go",
	Old: "\t\tb[1]++\n",
	New: "\t\tb[1]++\n\t\tif planted(%q) && every(5) {\n\t\t\tb[len(b)-1] ^= 1\n\t\t}\n",
}

// TestBenchSync lets one of four validators, which run under load as processes of their own, lose its data, and measures
// how long it takes from its start to its vote in a final block. Then it loses them again, and one of its three sources lies.
func TestBenchSync(t *testing.T) {
	crowd, rate, span := uint64(3000), 100, 10*time.Second
	if *full {
		crowd, rate, span = uint64(*accounts), 5000, 150*time.Second
	}
	binary := filepath.Join(t.TempDir(), "tutti")
	if out, err := exec.Command("go", "build", "-o", binary, "tutti/appliance/cmd/tutti").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	lying, err := plant.Program(t.TempDir(), "tutti/appliance/cmd/tutti", []plant.Bug{lie})
	if err != nil {
		t.Fatal(err)
	}
	port, err := localnet.FreePorts(4)
	if err != nil {
		t.Fatal(err)
	}
	n, err := localnet.Prepare(localnet.Options{Home: filepath.Join(t.TempDir(), "net"), Shards: 1, Accounts: crowd, APIPort: port})
	if err != nil {
		t.Fatal(err)
	}
	var urls []string
	for i := range 4 {
		urls = append(urls, "http://127.0.0.1:"+strconv.Itoa(port+i))
		process(t, binary, i, n, "", "run")
	}
	for _, u := range urls {
		until(t, u+" is ready", time.Minute, func() bool { return ask(u+"/readyz", nil) == http.StatusOK })
	}
	var loaded []byte
	load := exec.Command(binary, "bench", "--api", urls[0], "--api", urls[1], "--genesis", filepath.Join(string(n.Home), "genesis.json"),
		"--rate", strconv.Itoa(rate), "--warm-up", "2s", "--duration", span.String(), "--json", filepath.Join(t.TempDir(), "load.json"))
	ended := make(chan struct{})
	go func() { defer close(ended); loaded, _ = load.CombinedOutput() }() // its verdict is not ours: a validator is missing
	var before api.Status
	until(t, "the load is there", 3*time.Minute, func() bool {
		return ask(urls[0]+"/v1/status", &before) == http.StatusOK && before.TPS > float64(rate)/2
	})
	const lost, liar = 3, 2
	out := new(table)
	out.sync(t, binary, n, urls, lost, fmt.Sprintf("sync of %d accounts", crowd))
	stop(processes[liar])
	process(t, lying, liar, n, lie.Name, "run")
	until(t, "the liar is ready", time.Minute, func() bool { return ask(urls[liar]+"/readyz", nil) == http.StatusOK })
	said := out.sync(t, binary, n, urls, lost, fmt.Sprintf("sync of %d accounts, one source of three lies", crowd))
	out.print()
	var accused []string
	for line := range strings.Lines(said) {
		if strings.Contains(line, "sent something wrong") {
			accused = append(accused, strings.TrimSpace(line))
		}
	}
	t.Logf("the node said: %q", accused)
	for _, line := range accused {
		if !strings.Contains(line, fmt.Sprintf("s0v%d", liar)) {
			t.Errorf("the liar is s0v%d; the node said %q", liar, line)
		}
	}
	if *full && len(accused) != 1 { // a small state has too few chunks for it to be asked for five
		t.Errorf("the liar is named %d times", len(accused))
	}
	<-ended
	t.Logf("the load meanwhile:\n%s", loaded)
}

// sync takes a validator its data and lets it come back, and adds the times to the table. It returns what the validator
// has logged until its first vote.
func (out *table) sync(t *testing.T, binary string, n *localnet.Network, urls []string, lost int, name string) string {
	t.Helper()
	stop(processes[lost])
	home := config.Home(filepath.Join(string(n.Home), "nodes", fmt.Sprintf("s0v%d", lost)))
	if err := os.RemoveAll(home.Data()); err != nil {
		t.Fatal(err)
	}
	var at api.Block
	ask(urls[0]+"/v1/blocks/latest", &at)
	began := time.Now()
	process(t, binary, lost, n, "", "run", "--sync")
	var whole time.Duration
	var copied uint64
	until(t, "it votes", 10*time.Minute, func() bool {
		var s api.Status
		if whole == 0 && ask(urls[lost]+"/v1/status", &s) == http.StatusOK {
			if s.Sync != nil {
				copied = max(copied, s.Sync.Bytes)
			} else {
				whole = time.Since(began)
			}
		}
		var b api.Block
		return ask(urls[0]+"/v1/blocks/latest", &b) == http.StatusOK && b.Height > at.Height && slices.Contains(b.Signers, lost)
	})
	out.add(name+"/state whole", whole.Seconds(), "s")
	out.add(name+"/first vote", time.Since(began).Seconds(), "s")
	out.add(name+"/copied", float64(copied)/1e6, "MB")
	logs, err := filepath.Glob(filepath.Join(string(home), "log", "*"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no log files: %v", err)
	}
	var said []byte
	for _, path := range logs {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		said = append(said, b...)
	}
	return string(said)
}

// processes are the validators of TestBenchSync.
var processes = map[int]*exec.Cmd{}

// process starts a validator, with a bug awake if there is one.
func process(t *testing.T, binary string, i int, n *localnet.Network, bug string, args ...string) {
	t.Helper()
	home := filepath.Join(string(n.Home), "nodes", fmt.Sprintf("s0v%d", i))
	cmd := exec.Command(binary, append(args, "--home", home)...)
	cmd.Env = plant.Awake(bug)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	processes[i] = cmd
	t.Cleanup(func() { stop(cmd) })
}

func stop(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// ask reads JSON; 0: nobody answers.
func ask(url string, into any) int {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer r.Body.Close()
	if into != nil && r.StatusCode == http.StatusOK && json.NewDecoder(r.Body).Decode(into) != nil {
		return 0
	}
	return r.StatusCode
}

func until(t *testing.T, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	beat := time.NewTicker(200 * time.Millisecond)
	defer beat.Stop()
	for end := time.Now().Add(limit); !ok(); <-beat.C {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, limit)
		}
	}
}
