package host_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"tutti/appliance/host"
)

// takes makes a process of this test that takes what the variable says and waits to be killed.
const takes = "TUTTI_TEST_TAKES"

// TestTake: one holder at a time on the machine, and none after a kill.
func TestTake(t *testing.T) {
	if public := os.Getenv(takes); public != "" {
		if _, err := host.Take([]byte(public)); err != nil {
			fmt.Println(err)
		} else {
			fmt.Println("taken")
		}
		select {}
	}
	public := fmt.Sprintf("%s %d", t.TempDir(), os.Getpid())
	release, err := host.Take([]byte(public))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := host.Take([]byte(public)); !errors.Is(err, host.ErrTaken) {
		t.Errorf("taken twice: %v", err)
	}
	other, err := host.Take([]byte(public + "!"))
	if err != nil {
		t.Errorf("another key: %v", err)
	}
	other()
	release()

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self, "-test.run", "^TestTake$")
	c.Env = append(os.Environ(), takes+"="+public)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "taken\n" {
		t.Errorf("the other process says %q, %v", line, err)
	}
	if _, err := host.Take([]byte(public)); !errors.Is(err, host.ErrTaken) {
		t.Errorf("taken beside another process: %v", err)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // killed
	if release, err = host.Take([]byte(public)); err != nil {
		t.Fatalf("after the other was killed: %v", err)
	}
	release()
}
