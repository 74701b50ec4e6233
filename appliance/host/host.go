// Package host knows small things about the machine that Tutti runs on: what it is (Describe), how busy other work
// keeps it (ReadSample, Between), how much room and how fast a sync its disks have (DiskSpace, ProbeSync), how many files
// a process may open, and how to write a small file so that a power cut leaves it whole or absent (CreateFile,
// ReplaceFile).
//
// It reads /proc and asks the kernel; Linux only. Nothing here is fatal: what cannot be found out is an error or an
// empty field, and the caller says so to the user. Functions are safe for concurrent use.
package host

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"tutti/accel"
)

// Machine describes the hardware and kernel. Its JSON is the `machine` object of bench reports.
type Machine struct {
	CPU      string   `json:"cpu"`
	Cores    int      `json:"cores"` // hardware threads that this process may use
	Features []string `json:"features"`
	Memory   uint64   `json:"memory"` // bytes
	Kernel   string   `json:"kernel"`
}

// Describe asks the machine what it is. Fields that cannot be found out stay zero.
func Describe() Machine {
	cpu := accel.Detect()
	m := Machine{CPU: cpu.Name, Cores: cpu.Usable, Features: cpu.Features}
	m.Memory, _, _ = Memory()
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	return m
}

// Memory is the machine's memory and how much of it new work could have without swapping, in bytes.
func Memory() (total, available uint64, err error) { return readMemory("/proc/meminfo") }

func readMemory(path string) (total, available uint64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, fmt.Errorf("host: memory: %w", err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		kib, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 54)
		if err != nil {
			continue
		}
		switch name {
		case "MemTotal":
			total = kib << 10
		case "MemAvailable":
			available = kib << 10
		}
	}
	if total == 0 {
		return 0, 0, fmt.Errorf("host: memory: no MemTotal in %s", path)
	}
	return total, available, nil
}

// OpenFiles is this process's limit on open files: soft is in force, hard is how far the process may raise it (the Go
// runtime does so at start).
func OpenFiles() (soft, hard uint64, err error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, 0, fmt.Errorf("host: open-file limit: %w", err)
	}
	return r.Cur, r.Max, nil
}

// ClockSynced reports whether the kernel knows of a time service that keeps the machine's clock right.
func ClockSynced() (bool, error) {
	var t unix.Timex // no mode bits: only asks
	if _, err := unix.Adjtimex(&t); err != nil {
		return false, fmt.Errorf("host: clock: %w", err)
	}
	return t.Status&unix.STA_UNSYNC == 0, nil
}
