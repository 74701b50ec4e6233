package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tutti/accel"
	"tutti/appliance/config"
	"tutti/appliance/host"
	"tutti/appliance/keys"
)

// What one check found.
const (
	fine    = "ok"
	caution = "warn" // works, with a drawback
	broken  = "fail" // a node cannot run, or not safely
)

// finding is the result of one check.
type finding struct {
	Check   string `json:"check"`
	Verdict string `json:"verdict"`
	Found   string `json:"found"`
	Remedy  string `json:"remedy,omitempty"`
}

// doctor collects findings.
type doctor struct{ findings []finding }

func (d *doctor) ok(check, format string, args ...any) {
	d.findings = append(d.findings, finding{check, fine, fmt.Sprintf(format, args...), ""})
}

func (d *doctor) warn(check, found, remedy string) {
	d.findings = append(d.findings, finding{check, caution, found, remedy})
}

func (d *doctor) fail(check, found, remedy string) {
	d.findings = append(d.findings, finding{check, broken, found, remedy})
}

func doctorCommand(a *app) *cobra.Command {
	c := a.jsonFlag(&cobra.Command{
		Use:   "doctor",
		Short: "Check that this machine and this home folder are fit to run a node",
		Long: `Check that this machine and this home folder are fit to run a node: processor and cryptography, memory, disk space and
sync latency, open files, clock, work of others on the processor, then options, keys and genesis file. Nothing is changed; timings
of the cryptographic kernels are kept for the next start.

Exit status 1 if a check failed; warnings do not count.`,
		Example: "  tutti doctor\n  tutti doctor --home /var/lib/tutti --json",
		Args:    arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			h, err := a.home()
			if err != nil {
				return err
			}
			d := new(doctor)
			_, notes, err := a.configureAccel(h)
			if err != nil {
				d.fail("cryptography", err.Error(), "correct it; 'tutti doctor accel --help' tells what can be set")
			}
			for _, note := range notes {
				d.warn("cryptography", note, "nothing: it costs some tenths of a second at each start")
			}
			if err := d.machine(c.Context(), h); err != nil {
				return err
			}
			d.home(h)
			return a.report(d)
		},
	})
	c.AddCommand(doctorAccelCommand(a))
	return c
}

// report prints the findings and fails if one of them is broken.
func (a *app) report(d *doctor) error {
	failed := 0
	t := newTable()
	for _, f := range d.findings {
		colour := map[string]string{fine: good, caution: warn, broken: bad}[f.Verdict]
		t.row(a.colour(colour, f.Verdict), f.Check, f.Found)
		if f.Remedy != "" {
			t.row("", "", "→ "+f.Remedy)
		}
		if f.Verdict == broken {
			failed++
		}
	}
	if a.json {
		if err := a.printJSON(d.findings); err != nil {
			return err
		}
	} else {
		t.write(a.stdout)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed: do what stands below them", failed, len(d.findings))
	}
	return nil
}

// Thresholds of doctor.
const (
	leastMemory    = 1 << 30
	leastDisk      = 10 << 30
	leastOpenFiles = 4096
	slowSync       = 20 * time.Millisecond
	syncWrites     = 50
	loadSpan       = 500 * time.Millisecond
)

// machine checks the hardware and the kernel.
func (d *doctor) machine(ctx context.Context, h config.Home) error {
	m := host.Describe()
	d.ok("processor", "%s, %d hardware threads, %s", m.CPU, m.Cores, m.Kernel)
	d.ok("processor", "features: %s", strings.Join(m.Features, " "))
	for _, note := range accel.Detect().Notes {
		d.ok("processor", "%s", note)
	}
	d.cryptography()
	if total, available, err := host.Memory(); err != nil {
		d.warn("memory", err.Error(), "make /proc readable")
	} else if available < leastMemory {
		d.warn("memory", fmt.Sprintf("%s of %s available", bytesText(available), bytesText(total)), "stop other programs or use a machine with more memory: a node needs 1 GiB and 64 bytes for each account")
	} else {
		d.ok("memory", "%s of %s available", bytesText(available), bytesText(total))
	}
	d.disk(h)
	if soft, hard, err := host.OpenFiles(); err != nil {
		d.warn("open files", err.Error(), "check 'ulimit -n'")
	} else if soft < leastOpenFiles {
		d.fail("open files", fmt.Sprintf("limit %s (hard limit %s)", number(soft), number(hard)), fmt.Sprintf("raise it: 'ulimit -n %d', or LimitNOFILE= in the service", leastOpenFiles))
	} else {
		d.ok("open files", "limit %s", number(soft))
	}
	if synced, err := host.ClockSynced(); err != nil {
		d.warn("clock", err.Error(), "make sure that a time service runs")
	} else if !synced {
		d.warn("clock", "no time service keeps it right", "run chrony or systemd-timesyncd: leaders stamp blocks with this clock")
	} else {
		d.ok("clock", "kept right by a time service")
	}
	return d.load(ctx)
}

// cryptography runs the known-answer tests of every backend.
func (d *doctor) cryptography() {
	verdicts := accel.SelfTest()
	for _, v := range verdicts {
		name := v.Operation + " by " + v.Backend
		switch {
		case v.Failed:
			d.warn("cryptography", name+": "+v.Reason, "another one is used; if this one should work here, report it")
		case v.Chosen:
			d.ok("cryptography", "%s: used for %s, %s", name, spansText(v.Uses), v.Reason)
		default:
			d.ok("cryptography", "%s: %s", name, v.Reason)
		}
	}
	d.ok("cryptography", "'tutti doctor accel' shows how fast they are")
	if err := accel.Ready(verdicts); err != nil {
		d.fail("cryptography", err.Error(), "a node cannot run on this machine with this build")
	}
}

func (d *doctor) disk(h config.Home) {
	dir := string(h)
	for { // the home may not have been made yet
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			break
		}
		dir = filepath.Dir(dir)
	}
	if free, total, err := host.DiskSpace(dir); err != nil {
		d.fail("disk space", err.Error(), "name a home folder on a disk of this machine")
	} else if free < leastDisk {
		d.warn("disk space", fmt.Sprintf("%s of %s free at %s", bytesText(free), bytesText(total), dir), "make room or use another disk: blocks are kept for nodes that catch up")
	} else {
		d.ok("disk space", "%s of %s free at %s", bytesText(free), bytesText(total), dir)
	}
	l, err := host.ProbeSync(dir, syncWrites)
	text := fmt.Sprintf("%.1f ms median, %.1f ms p99", ms(l.P50), ms(l.P99))
	switch {
	case errors.Is(err, fs.ErrPermission):
		d.fail("disk sync", err.Error(), "give this user write access to the home folder")
	case err != nil:
		d.fail("disk sync", err.Error(), "use another disk")
	case l.P99 > slowSync:
		d.warn("disk sync", text, "use an SSD: every vote waits for a sync")
	default:
		d.ok("disk sync", "%s", text)
	}
}

// load measures what else keeps the processor busy.
func (d *doctor) load(ctx context.Context) error {
	a, err := host.ReadSample()
	if err == nil {
		select {
		case <-time.After(loadSpan):
		case <-ctx.Done():
			return ctx.Err()
		}
		var b host.Sample
		if b, err = host.ReadSample(); err == nil {
			l := host.Between(a, b)
			text := fmt.Sprintf("%.1f cores busy with other work, %.1f stolen by the hypervisor", l.Foreign, l.Steal)
			if l.Foreign+l.Steal > 0.5 {
				d.warn("other work", text, "benchmark figures will not be reproducible while it lasts")
			} else {
				d.ok("other work", "%s", text)
			}
			return nil
		}
	}
	d.warn("other work", err.Error(), "benchmark reports will not say how busy the machine was")
	return nil
}

// home checks the home folder, as far as there is one.
func (d *doctor) home(h config.Home) {
	err := config.CheckFormat(string(h), config.HomeFormat)
	if errors.Is(err, fs.ErrNotExist) {
		d.ok("home", "none at %s yet; 'tutti init' makes one", h)
		return
	}
	if err != nil {
		d.fail("home", err.Error(), "use the version of tutti that wrote it")
		return
	}
	d.ok("home", "%s", h)
	if _, err := os.Stat(h.Config()); err == nil {
		d.node(h)
	}
	wallets, err := keys.Store{Dir: h.Wallets()}.List()
	if err != nil {
		d.fail("wallets", err.Error(), "make the folder readable")
		return
	}
	for _, w := range wallets {
		if w.Err != nil {
			d.fail("wallets", fmt.Sprintf("%s: %v", w.Name, w.Err), "restore it from a backup, or correct what the message names")
		}
	}
	d.ok("wallets", "%s", number(len(wallets)))
}

// node checks options, keys, ports and genesis of a node's home.
func (d *doctor) node(h config.Home) {
	c, err := config.Load(h.Config())
	var problems config.Problems
	switch {
	case errors.As(err, &problems):
		for _, p := range problems {
			d.fail("options", p.Field+" "+p.What, p.Remedy)
		}
		return
	case err != nil:
		d.fail("options", err.Error(), "correct "+h.Config())
		return
	}
	d.ok("options", "%s", h.Config())
	d.nodeKeys(h, c)
	d.genesis(h)
	release, err := h.Lock()
	if err != nil {
		d.ok("running", "a node runs in this home")
		return
	}
	defer release()
	l, err := net.Listen("tcp", c.API.Listen)
	if err != nil {
		d.fail("api address", err.Error(), "stop what uses it, or change api.listen")
		return
	}
	l.Close()
	d.ok("api address", "%s is free", c.API.Listen)
	if ip := l.Addr().(*net.TCPAddr).IP; !ip.IsLoopback() {
		d.warn("api address", c.API.Listen+" can be reached from other machines", "put a proxy with TLS before it, or use 127.0.0.1")
	}
}

// nodeKeys checks that the node's keys can be opened with what the options say.
func (d *doctor) nodeKeys(h config.Home, c config.Config) {
	var password *keys.Password
	if c.Keys.PasswordFile != "" {
		p, err := keys.ReadPasswordFile(h.Resolve(c.Keys.PasswordFile))
		if err != nil {
			d.fail("keys", err.Error(), "restore the file, or set keys.password_file")
		} else {
			password = &p
		}
	}
	for _, t := range []keys.Type{keys.Voting, keys.Node} {
		k, err := keys.LoadType(keyPath(h, t), t)
		if err == nil && password != nil {
			_, err = k.Open(*password)
		}
		switch {
		case err != nil:
			d.fail("keys", err.Error(), "restore the key from a backup with 'tutti keys import'")
		case k.Weak():
			d.warn("keys", fmt.Sprintf("%s %x… is cheap to guess at", t.Title(), k.Public()[:4]), "use it on a throw-away local network only")
		default:
			d.ok("keys", "%s %x…", t.Title(), k.Public()[:4])
		}
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
