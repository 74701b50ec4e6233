package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"tutti/appliance/host"
)

// Home is a home folder, of a node or of a local network's user. Its methods name what lies where:
//
//	FORMAT            version of this layout
//	lock              held by the process that runs the node
//	config.toml       options
//	genesis.json      the network's beginning, with accounts.bin beside it
//	endpoints.json    API addresses for the command line, where no config.toml says them (a local network)
//	keys/             voting.json, node.json, password
//	wallets/          one keystore a wallet, and password where a local network made them
//	receipts/         finality proofs that `tutti wallet` saved
//	data/             FORMAT, blocks/, votes/, state/; SYNC while they are copied from other validators; evidence: proofs
//	                  that a validator signed a contradiction; epochs: hand-overs from one committee to the next
//	light.json        state of the light client: the hand-overs that it has followed
//	accel-timings.json how fast the cryptographic kernels were here; made anew if missing
//	log/              log files
type Home string

// Resolve makes a path from the configuration absolute: relative ones start at home.
func (h Home) Resolve(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return h.join(path)
}

func (h Home) join(parts ...string) string {
	return filepath.Join(append([]string{string(h)}, parts...)...)
}

func (h Home) Config() string         { return h.join("config.toml") }
func (h Home) Genesis() string        { return h.join("genesis.json") }
func (h Home) Light() string          { return h.join("light.json") }
func (h Home) Keys() string           { return h.join("keys") }
func (h Home) VotingKey() string      { return h.join("keys", "voting.json") }
func (h Home) NodeKey() string        { return h.join("keys", "node.json") }
func (h Home) KeyPassword() string    { return h.join("keys", "password") }
func (h Home) Wallets() string        { return h.join("wallets") }
func (h Home) WalletPassword() string { return h.join("wallets", "password") }
func (h Home) Receipts() string       { return h.join("receipts") }
func (h Home) Data() string           { return h.join("data") }
func (h Home) Blocks() string         { return h.join("data", "blocks") }
func (h Home) Votes() string          { return h.join("data", "votes") }
func (h Home) State() string          { return h.join("data", "state") }
func (h Home) SyncMark() string       { return h.join("data", "SYNC") }
func (h Home) Evidence() string       { return h.join("data", "evidence") }
func (h Home) Epochs() string         { return h.join("data", "epochs") }

// FindHome is the home folder for the command line: flag if given, else $TUTTI_HOME, else ./localnet where there is one,
// else ~/.tutti.
func FindHome(flag string) (Home, error) {
	if flag == "" {
		flag = os.Getenv("TUTTI_HOME")
	}
	if flag == "" {
		if info, err := os.Stat("localnet"); err == nil && info.IsDir() {
			flag = "localnet"
		}
	}
	if flag == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("config: no home folder: %w: give --home or set TUTTI_HOME", err)
		}
		flag = filepath.Join(user, ".tutti")
	}
	abs, err := filepath.Abs(flag)
	if err != nil {
		return "", fmt.Errorf("config: %w", err)
	}
	return Home(abs), nil
}

// Formats of folders that this build reads and writes.
const (
	HomeFormat = "tutti-home 1"
	DataFormat = "tutti-data 1"
)

// formatFile names the file in a folder that says which format the folder has.
const formatFile = "FORMAT"

// CreateFormat makes a folder with a format file, or accepts one that has the same format. A folder that holds other
// things is refused, so that a mistyped path does no harm.
func CreateFormat(dir, format string) error {
	err := CheckFormat(dir, format)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("config: %s holds other files and no %s file: choose an empty folder", dir, formatFile)
	}
	return MarkFormat(dir, format)
}

// MarkFormat writes the format file of a folder that was filled before, as the last step of making it.
func MarkFormat(dir, format string) error {
	return host.CreateFile(filepath.Join(dir, formatFile), []byte(format+"\n"), 0o644)
}

// CheckFormat accepts a folder whose format file says format. The error wraps fs.ErrNotExist where there is no such file.
func CheckFormat(dir, format string) error {
	f, err := os.Open(filepath.Join(dir, formatFile))
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	if got := strings.TrimSpace(string(b)); got != format {
		return fmt.Errorf("config: %s has format %q, this build knows %q: use the version of tutti that wrote it, or another folder", dir, got, format)
	}
	return nil
}

// Lock takes the home for one running node, so that no two processes vote with one key. release gives it back; the
// kernel does too when the process ends.
func (h Home) Lock() (release func(), err error) {
	f, err := os.OpenFile(h.join("lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("config: another process runs a node in %s: stop it first", h)
		}
		return nil, fmt.Errorf("config: lock %s: %w", h, err)
	}
	return func() { f.Close() }, nil
}

// maxEndpoints bounds a list of API addresses.
const maxEndpoints = 1024

type endpointsFile struct {
	API []string `json:"api"`
}

// WriteEndpoints says which API addresses (as http://127.0.0.1:9700) the command line talks to in this home.
func (h Home) WriteEndpoints(api []string) error {
	b, err := json.MarshalIndent(endpointsFile{API: api}, "", "  ")
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	return host.ReplaceFile(h.join("endpoints.json"), append(b, '\n'), 0o644)
}

// Endpoints is the API addresses for the command line: those of endpoints.json, else the node's own from config.toml,
// else none.
func (h Home) Endpoints() ([]string, error) {
	path := h.join("endpoints.json")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		c, err := Load(h.Config())
		if err != nil {
			if _, stat := os.Stat(h.Config()); errors.Is(stat, fs.ErrNotExist) {
				return nil, nil
			}
			return nil, err
		}
		return []string{"http://" + c.API.Listen}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	var e endpointsFile
	if err := json.Unmarshal(b, &e); err != nil || len(e.API) > maxEndpoints {
		return nil, fmt.Errorf("config: %s is not a list of at most %d API addresses: remove it or give --api", path, maxEndpoints)
	}
	for _, a := range e.API {
		if err := CheckEndpoint(a); err != nil {
			return nil, fmt.Errorf("%w (%s)", err, path)
		}
	}
	return e.API, nil
}

// CheckEndpoint accepts the address of an API: http or https, host, and port if need be.
func CheckEndpoint(text string) error {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return fmt.Errorf("config: API address %q: write it as http://127.0.0.1:%d", text, DefaultAPIPort)
	}
	return nil
}
