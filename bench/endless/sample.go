package endless

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Sample is what a chain uses at a height. Sizes are in bytes.
type Sample struct {
	Height   uint64
	CPU      float64 // seconds of this process
	Heap     int64   // live, after a collection
	Resident int64
	Disk     int64 // all of the following
	Tables   int64 // of the ledger's store
	WAL      int64
	Manifest int64 // and the store's other small files
	Blocks   int64 // the block log
	Votes    int64 // the vote log, and the logs' other small files
	Files    int64 // tables, a count
	Held     int64 // blocks in the block log, a count
	Unacked  int64 // receipts, a count
}

// Sample measures. It collects garbage first.
func (n *Chain) Sample() (Sample, error) {
	s := Sample{Height: n.Height(), Held: int64(n.log.Stats().Blocks)}
	ch := &n.ledger.Meta().Channels[0]
	s.Unacked = int64(ch.Sent.Count() - ch.Acked)
	runtime.GC()
	runtime.GC() // what pools hold lives through one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.Heap = int64(m.HeapAlloc)
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return s, err
	}
	s.CPU = float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
	var err error
	if s.Resident, err = resident(); err != nil {
		return s, err
	}
	err = filepath.WalkDir(n.c.Dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) { // removed meanwhile, by a compaction
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		s.file(path, info.Size())
		return nil
	})
	return s, err
}

func (s *Sample) file(path string, size int64) {
	s.Disk += size
	inLedger := strings.Contains(path, string(filepath.Separator)+"ledger"+string(filepath.Separator))
	switch ext := filepath.Ext(path); {
	case inLedger && ext == ".sst":
		s.Tables += size
		s.Files++
	case inLedger && ext == ".log":
		s.WAL += size
	case inLedger:
		s.Manifest += size
	case strings.HasPrefix(filepath.Base(path), "blocks-"):
		s.Blocks += size
	default:
		s.Votes += size
	}
}

// resident is this process's resident memory.
func resident() (int64, error) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0, fmt.Errorf("statm: %q", b)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

const head = "height\tcpu_s\theap\tresident\tdisk\ttables\twal\tmanifest\tblocks\tvotes\ttable_files\tblocks_held\tunacked\n"

// Append appends a sample to a file of tab-separated values.
func (s Sample) Append(path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err == nil && info.Size() == 0 {
		_, err = f.WriteString(head)
	}
	if err == nil {
		_, err = fmt.Fprintf(f, "%d\t%.1f\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", s.Height, s.CPU, s.Heap, s.Resident, s.Disk,
			s.Tables, s.WAL, s.Manifest, s.Blocks, s.Votes, s.Files, s.Held, s.Unacked)
	}
	return err
}

// Read reads such a file.
func Read(r io.Reader) ([]Sample, error) {
	var out []Sample
	lines := bufio.NewScanner(r)
	for n := 0; lines.Scan(); n++ {
		if n == 0 && lines.Text()+"\n" == head {
			continue
		}
		var s Sample
		if _, err := fmt.Sscan(lines.Text(), &s.Height, &s.CPU, &s.Heap, &s.Resident, &s.Disk, &s.Tables, &s.WAL, &s.Manifest,
			&s.Blocks, &s.Votes, &s.Files, &s.Held, &s.Unacked); err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		out = append(out, s)
	}
	return out, lines.Err()
}

// Beyond a twentieth, the last third's maximum may be above the middle third's by tooth, and its median by drift. A tooth
// is what a sample in the middle of a flush and a compaction sees: old tables beside new ones.
const (
	tooth = 8 << 20
	drift = 1 << 20
)

// Flat says what grew. A run is flat when of each size the maximum and the median of the last third of its samples are no
// more than a twentieth and a little above those of the middle third. The first third is for what fills up to its bound.
func Flat(samples []Sample) error {
	if len(samples) < 9 {
		return fmt.Errorf("%d samples are too few to tell", len(samples))
	}
	n := len(samples)
	var grew []error
	for _, l := range lines {
		middleMedian, middleMost := l.typical(samples[n/3 : n*2/3])
		lastMedian, lastMost := l.typical(samples[n*2/3:])
		if lastMost > middleMost+middleMost/20+tooth {
			grew = append(grew, fmt.Errorf("%s grew from at most %.1f MiB in the middle third to %.1f MiB in the last", l.name, mib(middleMost), mib(lastMost)))
		}
		if lastMedian > middleMedian+middleMedian/20+drift {
			grew = append(grew, fmt.Errorf("%s grew from a median of %.1f MiB in the middle third to %.1f MiB in the last", l.name, mib(middleMedian), mib(lastMedian)))
		}
	}
	return errors.Join(grew...)
}

func (l *line) typical(samples []Sample) (median, most int64) {
	v := make([]int64, len(samples))
	for i := range samples {
		v[i] = l.of(&samples[i])
	}
	slices.Sort(v)
	return v[len(v)/2], v[len(v)-1]
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// line is a size that has to stay flat, and that the plot shows.
type line struct {
	name string
	of   func(*Sample) int64
}

var lines = []line{
	{"disk", func(s *Sample) int64 { return s.Disk }},
	{"block log", func(s *Sample) int64 { return s.Blocks }},
	{"tables of the ledger", func(s *Sample) int64 { return s.Tables }},
	{"log of the ledger", func(s *Sample) int64 { return s.WAL }},
	{"resident memory", func(s *Sample) int64 { return s.Resident }},
	{"live Go heap", func(s *Sample) int64 { return s.Heap }},
}
