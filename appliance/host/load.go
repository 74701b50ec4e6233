package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
)

// Sample is the CPU time used since boot, in seconds summed over all cores, at one moment.
type Sample struct {
	Time  time.Time
	Busy  float64 // all work on this machine: user, nice, system, interrupts
	Steal float64 // time that a hypervisor gave to other machines while this one wanted to run
	Own   float64 // work of this process, its descendants, and the extra processes asked for with theirs
}

// Load is the mean use of the machine between two samples, in cores (2.0 is two cores fully busy).
type Load struct {
	Own     float64 `json:"own_cores"`
	Foreign float64 `json:"foreign_cores"` // work of others; network interrupts on our behalf count here
	Steal   float64 `json:"steal_cores"`
}

// userHz is the unit of /proc times: Linux fixes it at 100 a second for user space on all architectures of Go.
const userHz = 100

// maxProcesses bounds a scan of /proc.
const maxProcesses = 1 << 16

// ReadSample takes a sample. Processes that ended count as long as their parent, still running, waited for them.
func ReadSample(extra ...int) (Sample, error) {
	return readSample(os.DirFS("/proc"), append([]int{os.Getpid()}, extra...))
}

// Between is the load from sample a to the later sample b.
func Between(a, b Sample) Load {
	span := b.Time.Sub(a.Time).Seconds()
	if span <= 0 {
		return Load{}
	}
	own := max(0, b.Own-a.Own)
	return Load{
		Own:     own / span,
		Foreign: max(0, b.Busy-a.Busy-own) / span,
		Steal:   max(0, b.Steal-a.Steal) / span,
	}
}

func readSample(proc fs.FS, roots []int) (Sample, error) {
	s := Sample{Time: time.Now()}
	stat, err := fs.ReadFile(proc, "stat")
	if err != nil {
		return s, fmt.Errorf("host: CPU use: %w", err)
	}
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	// cpu user nice system idle iowait irq softirq steal ...; guest time is inside user already.
	f := strings.Fields(string(line))
	if len(f) < 9 || f[0] != "cpu" {
		return s, errors.New("host: CPU use: /proc/stat does not start with the sum over all cores")
	}
	var ticks [9]float64
	for i := 1; i < 9; i++ {
		if ticks[i], err = strconv.ParseFloat(f[i], 64); err != nil {
			return s, fmt.Errorf("host: CPU use: /proc/stat: %w", err)
		}
	}
	s.Busy = (ticks[1] + ticks[2] + ticks[3] + ticks[6] + ticks[7]) / userHz
	s.Steal = ticks[8] / userHz
	s.Own, err = ownTime(proc, roots)
	return s, err
}

type process struct {
	parent int
	used   float64 // seconds, with the children it waited for
}

// ownTime sums the CPU time of the processes in roots and of all that descend from them.
func ownTime(proc fs.FS, roots []int) (float64, error) {
	entries, err := fs.ReadDir(proc, ".")
	if err != nil {
		return 0, fmt.Errorf("host: processes: %w", err)
	}
	all := make(map[int]process, len(entries))
	children := make(map[int][]int, len(entries))
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || len(all) == maxProcesses {
			continue
		}
		stat, err := fs.ReadFile(proc, e.Name()+"/stat")
		if err != nil {
			continue // it ended meanwhile
		}
		p, ok := parseProcess(string(stat))
		if !ok {
			return 0, fmt.Errorf("host: processes: /proc/%d/stat is not in the known form", pid)
		}
		all[pid] = p
		children[p.parent] = append(children[p.parent], pid)
	}
	var sum float64
	for queue := roots; len(queue) > 0; {
		pid := queue[0]
		queue = queue[1:]
		if p, ok := all[pid]; ok {
			sum += p.used
			delete(all, pid) // each process once, also when a root descends from another
			queue = append(queue, children[pid]...)
		}
	}
	return sum, nil
}

// parseProcess reads a line of /proc/PID/stat: pid (name) state ppid ... utime stime cutime cstime as fields 14 to 17.
// The name may hold spaces and brackets, so fields are counted from the last closing one.
func parseProcess(stat string) (p process, ok bool) {
	at := strings.LastIndexByte(stat, ')')
	if at < 0 {
		return p, false
	}
	f := strings.Fields(stat[at+1:])
	if len(f) < 15 {
		return p, false
	}
	var err error
	if p.parent, err = strconv.Atoi(f[1]); err != nil {
		return p, false
	}
	for _, field := range f[11:15] {
		ticks, err := strconv.ParseUint(field, 10, 63)
		if err != nil {
			return p, false
		}
		p.used += float64(ticks) / userHz
	}
	return p, true
}
