package p2p
import ("testing";"time";"tutti/netstack";"fmt";"os";"runtime/pprof")
func TestScale(t *testing.T) {
	n := start(t, 40, tcpOnly)
	for _, node := range n {
		if _, err := node.Subscribe("tutti/final/0", func(netstack.NodeID, []byte) bool { return true }); err != nil { t.Fatal(err) }
	}
	time.Sleep(20*time.Second)
	f, _ := os.Create("/tmp/idle.out"); pprof.StartCPUProfile(f)
	c0 := cpuTime(t); time.Sleep(20*time.Second); fmt.Println("idle cpu ms/node/s", (cpuTime(t)-c0).Seconds()*1e3/800)
	pprof.StopCPUProfile()
}
