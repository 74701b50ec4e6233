// Package config is what an operator sets: the options of one node with their defaults and checks (Config, read from and
// written to TOML), the layout of a home folder (Home), and the logger that the options describe (Log.Open).
//
// The struct is the documentation: each field's `doc` tag is the comment that Write puts above the option. Units stand
// last in names. A file with an unknown option is refused, and Validate reports every problem at once, each with the
// option's name and what to do. Nothing here is fatal, and nothing is global.
package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/multiformats/go-multiaddr"

	"tutti/accel"
)

// Config is the options of one node.
type Config struct {
	Home    Home    `toml:"-"` // the folder that the file lies in, absolute; set by Load
	Keys    Keys    `toml:"keys" doc:"The keys in home's folder keys: voting.json and node.json."`
	Network Network `toml:"network" doc:"How this node talks to other nodes."`
	API     API     `toml:"api" doc:"What wallets, dashboards and programs connect to."`
	Log     Log     `toml:"log" doc:"What the node tells about itself."`
	Storage Storage `toml:"storage" doc:"What is kept on disk."`
	Pool    Pool    `toml:"pool" doc:"Transactions that wait for a block."`
	Verify  Verify  `toml:"verify" doc:"Signature checking."`
	Accel   Accel   `toml:"accel" doc:"Cryptographic kernels; 'tutti doctor accel' prints which there are and which are used."`
	Memory  Memory  `toml:"memory" doc:"Memory of this process."`
	Peers   []Peer  `toml:"peers" doc:"The other nodes of the network, each with its node key in hex and the addresses it can be reached at."`
}

// Keys is the `keys` section.
type Keys struct {
	PasswordFile string `toml:"password_file" doc:"File, relative to home and readable by its owner only, with the password of both keys. Empty: ask for it at each start."`
}

// Network is the `network` section.
type Network struct {
	Listen            []string `toml:"listen" doc:"Addresses (multiaddr) to listen at for other nodes."`
	Advertise         []string `toml:"advertise" doc:"Addresses (multiaddr) that reach this node from outside. The node tells its peers the first one's host as that of its API where it listens at every address."`
	StateMiBPerSecond int      `toml:"state_mib_per_second" doc:"MiB each second that other validators of the shard may copy of this node's state, all together."`
}

// API is the `api` section. A client address is an IPv4 address or an IPv6 /64 network.
type API struct {
	Listen                     string   `toml:"listen" doc:"Address, host:port, of the HTTP API and the dashboard. The default can be reached from this machine only."`
	RequestsPerSecond          int      `toml:"requests_per_second" doc:"Requests that one client address may make each second."`
	TotalRequestsPerSecond     int      `toml:"total_requests_per_second" doc:"Requests each second over all clients."`
	TransactionsPerSecond      int      `toml:"transactions_per_second" doc:"Transactions that one client address may submit each second."`
	TotalTransactionsPerSecond int      `toml:"total_transactions_per_second" doc:"Transactions each second over all clients."`
	BatchedPerSecond           int      `toml:"batched_per_second" doc:"Transfers in distilled batches that one client address may submit each second, where a batch counts as 4096 and a straggler as 32 more. They cost a twentieth of those sent on their own."`
	TotalBatchedPerSecond      int      `toml:"total_batched_per_second" doc:"Transfers in distilled batches each second over all clients, and of one peer."`
	MaxConnections             int      `toml:"max_connections" doc:"Connections held open at once, over all clients."`
	MaxSubscribers             int      `toml:"max_subscribers" doc:"Clients that follow finality at once."`
	Brokers                    []string `toml:"brokers" doc:"Brokers of distilled batches that wallets are told of: host:port, or with the broker's key, which 'tutti broker' prints, key@host:port."`
}

// Log is the `log` section.
type Log struct {
	Level      string `toml:"level" doc:"Least level that is written: debug, info, warn or error."`
	Format     string `toml:"format" doc:"text for people, json for programs."`
	File       string `toml:"file" doc:"File to write to, relative to home. Empty: standard error."`
	MaxSizeMiB int    `toml:"max_size_mib" doc:"Size at which the file is set aside as FILE.1 and a new one started, in MiB."`
	MaxFiles   int    `toml:"max_files" doc:"Log files kept, the current one included."`
}

// Storage is the `storage` section.
type Storage struct {
	RetentionBlocks int `toml:"retention_blocks" doc:"Finalised blocks whose bodies are kept, for clients and for nodes that catch up. 0: all of them, for ever, as an archive does; it takes about 200 bytes of memory for each."`
}

// Pool is the `pool` section.
type Pool struct {
	MaxTransactions int `toml:"max_transactions" doc:"Transactions held at most."`
	MaxPerAccount   int `toml:"max_per_account" doc:"Transactions held at most for one paying account."`
	MaxPerSource    int `toml:"max_per_source" doc:"Transactions held at most that came from one client address or one peer."`

	MaxBatched          int `toml:"max_batched" doc:"Transfers in distilled batches held at most."`
	MaxBatchedPerSource int `toml:"max_batched_per_source" doc:"Transfers in distilled batches held at most that came from one client address or one peer."`
}

// Verify is the `verify` section.
type Verify struct {
	Workers int `toml:"workers" doc:"Threads that check signatures and execute blocks. 0: one for each core."`
}

// Accel is the `accel` section.
type Accel struct {
	Use string `toml:"use" doc:"CPU features and kernels to leave out or to insist on, with commas between: -avx512ifma, -avx512, ed25519=voi-batch, merkle=-gohashtree. Empty: what is fastest here. The environment variable TUTTI_ACCEL takes its place."`
}

// Memory is the `memory` section.
type Memory struct {
	LimitMiB int `toml:"limit_mib" doc:"Soft limit of the Go heap, in MiB; the account table lies outside of it. 0: half of the machine's memory."`
	CacheMiB int `toml:"cache_mib" doc:"Cache of the storage engine, in MiB."`
}

// Peer is one entry of the `peers` list.
type Peer struct {
	Node  string   `toml:"node"`
	Addrs []string `toml:"addrs"`
}

// NodeID is the peer's node key. Validate has checked the text.
func (p Peer) NodeID() (id [32]byte, err error) {
	b, err := hex.DecodeString(p.Node)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("node key %q: need 64 hexadecimal digits", p.Node)
	}
	return [32]byte(b), nil
}

// Default ports.
const (
	DefaultPort       = 9710 // between nodes, UDP and TCP
	DefaultAPIPort    = 9700
	DefaultBrokerPort = 9720 // UDP
)

// MaxBrokers is how many brokers a node tells of.
const MaxBrokers = 16

// ParseBroker reads where a broker is: host:port, or key@host:port with its Ed25519 key in hex. key is nil if it is not there.
func ParseBroker(text string) (key *[32]byte, at string, err error) {
	bad := fmt.Errorf("%.100q is not a broker's address: write it as host:port, or as key@host:port with 64 hexadecimal digits", text)
	digits, at, keyed := strings.Cut(text, "@")
	if !keyed {
		at = digits
	} else {
		b, err := hex.DecodeString(digits)
		if err != nil || len(b) != 32 {
			return nil, "", bad
		}
		key = (*[32]byte)(b)
	}
	host, port, err := net.SplitHostPort(at)
	if err != nil || host == "" || len(at) > 300 {
		return nil, "", bad
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return nil, "", bad
	}
	return key, at, nil
}

// Default is the options of a node that nobody configured.
func Default() Config {
	return Config{
		Keys:    Keys{PasswordFile: "keys/password"},
		Network: Network{Listen: ListenAddrs("0.0.0.0", DefaultPort), Advertise: []string{}, StateMiBPerSecond: 32},
		API: API{
			Listen:            net.JoinHostPort("127.0.0.1", strconv.Itoa(DefaultAPIPort)),
			RequestsPerSecond: 100, TotalRequestsPerSecond: 1000,
			TransactionsPerSecond: 10_000, TotalTransactionsPerSecond: 200_000,
			BatchedPerSecond: 150_000, TotalBatchedPerSecond: 300_000,
			MaxConnections: 1024, MaxSubscribers: 64, Brokers: []string{},
		},
		Log:     Log{Level: "info", Format: "text", MaxSizeMiB: 64, MaxFiles: 5},
		Storage: Storage{RetentionBlocks: 10_000},
		Pool: Pool{
			MaxTransactions: 200_000, MaxPerAccount: 256, MaxPerSource: 100_000,
			MaxBatched: 1_000_000, MaxBatchedPerSource: 500_000,
		},
		Memory: Memory{CacheMiB: 64},
	}
}

// ListenAddrs is the addresses to listen at for a node at a host's IPv4 address and port: QUIC and TCP.
func ListenAddrs(ip string, port int) []string {
	return []string{fmt.Sprintf("/ip4/%s/udp/%d/quic-v1", ip, port), fmt.Sprintf("/ip4/%s/tcp/%d", ip, port)}
}

// maxConfigBytes bounds a configuration file.
const maxConfigBytes = 1 << 20

// Load reads a file, fills in defaults, validates, and sets Home.
func Load(path string) (Config, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, fmt.Errorf("config: there is no %s: make it with 'tutti init'", path)
	}
	if err != nil {
		return Config{}, fmt.Errorf("config: %w", err)
	}
	if info.Size() > maxConfigBytes {
		return Config{}, fmt.Errorf("config: %s is over %d bytes: it is not a configuration file", path, maxConfigBytes)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("config: %w", err)
	}
	c, err := Parse(b)
	if err != nil {
		return Config{}, fmt.Errorf("%w (%s)", err, path)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return Config{}, fmt.Errorf("config: %w", err)
	}
	c.Home = Home(dir)
	return c, nil
}

// Parse reads the text of a file, fills in defaults, refuses unknown options, and validates.
func Parse(b []byte) (Config, error) {
	c := Default()
	meta, err := toml.Decode(string(b), &c)
	if err != nil {
		return Config{}, fmt.Errorf("config: %w", err)
	}
	var problems Problems
	for _, k := range meta.Undecoded() {
		problems.add(k.String(), "is not an option", "see the commented file that 'tutti init' writes, and remove or correct it")
	}
	c.validate(&problems)
	if len(problems) > 0 {
		return Config{}, problems
	}
	return c, nil
}

// Problem is one thing wrong with a configuration.
type Problem struct {
	Field  string `json:"field"` // as in the file: log.level
	What   string `json:"what"`
	Remedy string `json:"remedy"`
}

func (p Problem) String() string { return fmt.Sprintf("%s %s: %s", p.Field, p.What, p.Remedy) }

// Problems is everything wrong with a configuration, as an error of one line.
type Problems []Problem

func (p Problems) Error() string {
	text := make([]string, len(p))
	for i := range p {
		text[i] = p[i].String()
	}
	return "config: " + strings.Join(text, "; ")
}

func (p *Problems) add(field, what, remedy string) { *p = append(*p, Problem{field, what, remedy}) }

// Validate reports every problem, as Problems, or nil.
func (c *Config) Validate() error {
	var p Problems
	c.validate(&p)
	if len(p) > 0 {
		return p
	}
	return nil
}

func (c *Config) validate(p *Problems) {
	between := func(field string, value, least, most int) {
		if value < least || value > most {
			p.add(field, fmt.Sprintf("is %d", value), fmt.Sprintf("choose %d to %d", least, most))
		}
	}
	oneOf := func(field, value string, words ...string) {
		if !slices.Contains(words, value) {
			p.add(field, fmt.Sprintf("is %q", value), "choose "+strings.Join(words, ", "))
		}
	}
	if len(c.Network.Listen) == 0 {
		p.add("network.listen", "is empty", fmt.Sprintf("give an address such as %q", ListenAddrs("0.0.0.0", DefaultPort)[0]))
	}
	checkAddrs(p, "network.listen", c.Network.Listen)
	checkAddrs(p, "network.advertise", c.Network.Advertise)
	if host, port, err := net.SplitHostPort(c.API.Listen); err != nil || host == "" {
		p.add("api.listen", fmt.Sprintf("is %q", c.API.Listen), "give host:port, such as 127.0.0.1:9700")
	} else if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		p.add("api.listen", fmt.Sprintf("has port %q", port), "choose 1 to 65535, or 0 for any free one")
	}
	between("network.state_mib_per_second", c.Network.StateMiBPerSecond, 1, 1<<20)
	between("api.requests_per_second", c.API.RequestsPerSecond, 1, 1_000_000)
	between("api.total_requests_per_second", c.API.TotalRequestsPerSecond, 1, 1_000_000)
	between("api.transactions_per_second", c.API.TransactionsPerSecond, 1, 10_000_000)
	between("api.total_transactions_per_second", c.API.TotalTransactionsPerSecond, 1, 10_000_000)
	between("api.batched_per_second", c.API.BatchedPerSecond, 1, 10_000_000)
	between("api.total_batched_per_second", c.API.TotalBatchedPerSecond, 1, 10_000_000)
	between("api.max_connections", c.API.MaxConnections, 1, 65536)
	between("api.max_subscribers", c.API.MaxSubscribers, 1, 4096)
	if len(c.API.Brokers) > MaxBrokers {
		p.add("api.brokers", fmt.Sprintf("has %d entries", len(c.API.Brokers)), fmt.Sprintf("list at most %d", MaxBrokers))
	}
	for _, b := range c.API.Brokers[:min(len(c.API.Brokers), MaxBrokers)] {
		if _, _, err := ParseBroker(b); err != nil {
			p.add("api.brokers", fmt.Sprintf("holds %.100q", b), "write brokers as host:port, or as key@host:port with the 64 hexadecimal digits of the broker's key")
		}
	}
	oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf("log.format", c.Log.Format, "text", "json")
	between("log.max_size_mib", c.Log.MaxSizeMiB, 1, 4096)
	between("log.max_files", c.Log.MaxFiles, 1, 100)
	if n := c.Storage.RetentionBlocks; n != 0 && (n < 100 || n > 100_000_000) {
		p.add("storage.retention_blocks", fmt.Sprintf("is %d", n), "choose 100 to 100000000, or 0 to keep all blocks for ever")
	}
	between("pool.max_transactions", c.Pool.MaxTransactions, 1000, 10_000_000)
	between("pool.max_per_account", c.Pool.MaxPerAccount, 1, 65536)
	between("pool.max_per_source", c.Pool.MaxPerSource, 1, 10_000_000)
	between("pool.max_batched", c.Pool.MaxBatched, 1000, 10_000_000)
	between("pool.max_batched_per_source", c.Pool.MaxBatchedPerSource, 1, 10_000_000)
	between("verify.workers", c.Verify.Workers, 0, 1024)
	if err := accel.CheckUse(c.Accel.Use); err != nil {
		p.add("accel.use", "can't be used", err.Error())
	}
	if c.Memory.LimitMiB != 0 {
		between("memory.limit_mib", c.Memory.LimitMiB, 128, 1<<24)
	}
	between("memory.cache_mib", c.Memory.CacheMiB, 8, 1<<20)
	c.validatePeers(p)
}

// maxPeers bounds the peer list; it is the bound of a committee.
const maxPeers = 1024

func (c *Config) validatePeers(p *Problems) {
	if len(c.Peers) > maxPeers {
		p.add("peers", fmt.Sprintf("has %d entries", len(c.Peers)), fmt.Sprintf("list at most %d", maxPeers))
		return
	}
	seen := make(map[[32]byte]int, len(c.Peers))
	for i, peer := range c.Peers {
		field := fmt.Sprintf("peers[%d]", i)
		id, err := peer.NodeID()
		if err != nil {
			p.add(field+".node", fmt.Sprintf("is %q", peer.Node), "give the peer's node key, 64 hexadecimal digits ('tutti keys show' prints it)")
		} else if first, twice := seen[id]; twice {
			p.add(field+".node", fmt.Sprintf("is also peers[%d]", first), "keep one of the two")
		} else {
			seen[id] = i
		}
		if len(peer.Addrs) == 0 {
			p.add(field+".addrs", "is empty", "give at least one address of the peer")
		}
		checkAddrs(p, field+".addrs", peer.Addrs)
	}
}

// checkAddrs checks a list of multiaddrs that a transport can listen at or dial.
func checkAddrs(p *Problems, field string, addrs []string) {
	const most = 16
	if len(addrs) > most {
		p.add(field, fmt.Sprintf("has %d addresses", len(addrs)), fmt.Sprintf("list at most %d", most))
		return
	}
	for _, a := range addrs {
		m, err := multiaddr.NewMultiaddr(a)
		if err == nil {
			_, udp := m.ValueForProtocol(multiaddr.P_UDP)
			_, quic := m.ValueForProtocol(multiaddr.P_QUIC_V1)
			_, tcp := m.ValueForProtocol(multiaddr.P_TCP)
			if (udp == nil && quic == nil) || tcp == nil {
				continue
			}
		}
		p.add(field, fmt.Sprintf("holds %q", a), fmt.Sprintf("write addresses as %s", strings.Join(ListenAddrs("192.0.2.1", DefaultPort), " or ")))
	}
}
