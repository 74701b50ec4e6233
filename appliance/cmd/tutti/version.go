package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"tutti/appliance/config"
	"tutti/consensus"
	"tutti/state/tx"
)

// Set by the linker: -ldflags "-X main.version=1.2.3 -X main.commit=HASH". The commit is otherwise the one that the Go
// tool recorded.
var (
	version = "dev"
	commit  = ""
)

// versionInfo is the answer of `tutti version`.
type versionInfo struct {
	Version  string            `json:"version"`
	Commit   string            `json:"commit"`
	Modified bool              `json:"modified"` // built from a tree with changes that are not in the commit
	Go       string            `json:"go"`
	Platform string            `json:"platform"`
	Formats  map[string]string `json:"formats"` // what this build reads and writes
}

func thisVersion() versionInfo {
	v := versionInfo{
		Version: version, Commit: commit, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Formats: map[string]string{
			"home": config.HomeFormat, "data": config.DataFormat, "keystore": "EIP-2335 version 4",
			"header": fmt.Sprint(consensus.HeaderVersion), "body": fmt.Sprint(tx.BodyVersion),
		},
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision" && v.Commit == "":
				v.Commit = s.Value
			case s.Key == "vcs.modified":
				v.Modified = s.Value == "true"
			}
		}
	}
	if v.Commit == "" {
		v.Commit = "unknown"
	}
	return v
}

func versionCommand(a *app) *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:     "version",
		Short:   "Print the version, the commit and the formats that this build reads and writes",
		Example: "  tutti version\n  tutti version --json | jq -r .commit",
		Args:    arguments(),
		RunE: func(*cobra.Command, []string) error {
			v := thisVersion()
			if a.json {
				return a.printJSON(v)
			}
			modified := ""
			if v.Modified {
				modified = ", with local changes"
			}
			a.say("tutti %s (commit %s%s) %s %s", v.Version, v.Commit, modified, v.Go, v.Platform)
			for _, name := range []string{"home", "data", "keystore", "header", "body"} {
				a.say("  format of %-9s %s", name, v.Formats[name])
			}
			return nil
		},
	})
}
