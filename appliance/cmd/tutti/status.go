package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tutti/appliance/api"
)

func statusCommand(a *app) *cobra.Command {
	n := new(networkFlags)
	c := &cobra.Command{
		Use:   "status",
		Short: "Print how a node and its network are doing",
		Example: `  tutti status
  tutti status --api http://127.0.0.1:9700 --json | jq .final_height`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			h, err := a.home()
			if err != nil {
				return err
			}
			cl, err := n.client(h, nil)
			if err != nil {
				return err
			}
			defer cl.Close()
			st, err := cl.Status(c.Context())
			if err != nil {
				return fmt.Errorf("%w: is the node running? 'tutti run' or 'tutti localnet' starts one", err)
			}
			if a.json {
				return a.printJSON(st)
			}
			if st.Sync != nil {
				a.saySync(&st)
				return nil
			}
			network, err := cl.Network(c.Context())
			if err != nil {
				return err
			}
			a.sayStatus(&st, &network)
			return nil
		},
	}
	c.Flags().StringSliceVar(&n.api, "api", nil, "API address of a node, such as http://127.0.0.1:9700 (default $TUTTI_API, else what the home folder says)")
	return a.jsonFlag(c)
}

// sayStatus prints the node, then the shards, then the validators of its shard.
func (a *app) sayStatus(st *api.Status, n *api.Network) {
	state := a.colour(good, "in step")
	if st.Syncing {
		state = a.colour(warn, "catching up")
	}
	t := newTable()
	t.row("node", fmt.Sprintf("%x… %s of shard %d of %d, %s", st.Node[:4], st.Role, st.Shard, st.Shards, state))
	t.row("network", fmt.Sprintf("%s, genesis %x…", st.Chain, st.Genesis[:4]))
	t.row("version", fmt.Sprintf("%s (%.12s), up %s", st.Version, st.Commit, (time.Duration(st.UptimeS)*time.Second).String()))
	t.row("final", fmt.Sprintf("block %s, %s tx/s", number(uint64(st.FinalHeight)), number(int(st.TPS+0.5))))
	if e := &st.Epoch; e.Left != nil {
		seat := "no seat"
		if st.ValidatorIndex >= 0 {
			seat = fmt.Sprintf("seat %d", st.ValidatorIndex)
		}
		t.row("epoch", fmt.Sprintf("%s, %s of %d; ends with block %s, in %s", number(uint64(e.Number)), seat, e.Seats, number(uint64(e.Last)), number(*e.Left)))
	}
	t.row("finality", finalityText(st.FinalityMs))
	waiting := fmt.Sprintf("%s of at most %s transactions", number(st.Pool.Txs), number(st.Pool.Limit))
	if st.Pool.Batches > 0 {
		waiting += fmt.Sprintf(", and %s of %s in %s batches", number(st.Pool.Batched), number(st.Pool.BatchedLimit), number(st.Pool.Batches))
	}
	t.row("waiting", waiting)
	t.row("accounts", number(st.Accounts))
	supply := "adds up"
	if !st.Supply.Conserved() {
		supply = a.colour(bad, "DOES NOT ADD UP")
	}
	t.row("supply", fmt.Sprintf("%s in balances, %s in fees and deposits; %s", number(st.Supply.Balances), number(st.Supply.Fees+st.Supply.Deposits+st.Supply.Treasury), supply))
	t.row("machine", fmt.Sprintf("%s MiB memory, %s MiB on disk, %s peers connected", number(int(st.Memory.RSSMiB)), number(int(st.DiskMiB)), number(st.PeersConnected)))
	t.row("memory", memoryText(st.Memory.Kinds))
	t.row("written", writesText(&st.Writes))
	t.write(a.stdout)

	a.say("")
	t = newTable(0, 1, 2, 3, 4)
	t.row("shard", "final block", "tx/s", "finality p50", "p99", "")
	for _, s := range n.Shards {
		stale := ""
		if s.StaleMs > 10_000 {
			stale = a.colour(warn, fmt.Sprintf("as of %s s ago", number(s.StaleMs/1000)))
		}
		t.row(fmt.Sprint(s.Shard), number(uint64(s.Height)), number(int(s.TPS+0.5)), fmt.Sprintf("%.0f ms", s.FinalityMs.P50), fmt.Sprintf("%.0f ms", s.FinalityMs.P99), stale)
	}
	t.write(a.stdout)

	a.say("")
	t = newTable(2, 3, 4)
	t.row("validator", "", "power", "lag", "last vote", fmt.Sprintf("(shard %d)", st.Shard))
	for _, v := range st.Validators {
		t.row(validatorRow(a, v)...)
	}
	t.write(a.stdout)
}

// saySync prints how far a node is that gets its state from the others.
func (a *app) saySync(st *api.Status) {
	s := st.Sync
	t := newTable()
	t.row("node", fmt.Sprintf("%x… %s of shard %d of %d, %s", st.Node[:4], st.Role, st.Shard, st.Shards, a.colour(warn, "syncing: "+s.String())))
	t.row("network", fmt.Sprintf("%s, genesis %x…", st.Chain, st.Genesis[:4]))
	t.row("now", s.Step)
	if s.TotalBytes > 0 {
		t.row("accounts", fmt.Sprintf("%s of %s", number(s.Accounts), number(s.TotalAccounts)))
		t.row("data", fmt.Sprintf("%s of %s MiB, %s MiB/s", number(s.Bytes>>20), number(s.TotalBytes>>20), number(int(s.BytesPerSecond/(1<<20)+0.5))))
	}
	t.row("blocks", fmt.Sprintf("%s of %s", number(uint64(s.Height)), number(uint64(s.Tip))))
	t.write(a.stdout)

	a.say("")
	t = newTable(1, 2)
	t.row("source", "answers", "MiB", "")
	for _, p := range s.Peers {
		trouble := p.Trouble
		if p.Dropped {
			trouble = a.colour(bad, "dropped, it sent something wrong: "+p.Trouble)
		}
		t.row(p.Name, number(p.Answers), number(p.Bytes>>20), trouble)
	}
	t.write(a.stdout)
}

func validatorRow(a *app, v api.ValidatorStatus) []string {
	link := a.colour(good, "connected")
	switch {
	case v.Self:
		link = "this node"
	case !v.Connected:
		link = a.colour(bad, "not connected")
	}
	vote := "none seen"
	if v.LastVoteMs >= 0 {
		vote = number(v.LastVoteMs) + " ms ago"
	}
	return []string{v.Name, link, number(uint64(v.Power)), number(v.Lag), vote}
}

// memoryText is what each account takes, by kind; and what is there whether there are accounts or not.
func memoryText(kinds []api.MemoryKind) string {
	var each, all []string
	for _, k := range kinds {
		name := strings.ReplaceAll(k.Kind, "_", " ")
		switch k.Kind {
		case "storage_engine", "blocks", "heap":
			all = append(all, fmt.Sprintf("%s %s MiB", name, number((k.Bytes+1<<19)>>20)))
		default:
			each = append(each, fmt.Sprintf("%s %.1f", name, k.PerAccount))
		}
	}
	return fmt.Sprintf("bytes for each account: %s; in all: %s", strings.Join(each, ", "), strings.Join(all, ", "))
}

// writesText is how much is written in a day, idle and loaded.
func writesText(w *api.Writes) string {
	rate := func(name string, r api.WriteRate) string {
		if r.Seconds == 0 {
			return "not " + name + " yet"
		}
		return fmt.Sprintf("%s %.1f GB a day (engine %.1f, logs %.1f; the kernel counts %.1f)", name,
			(r.EngineBytesPerDay+r.LogBytesPerDay)/1e9, r.EngineBytesPerDay/1e9, r.LogBytesPerDay/1e9, r.ProcessBytesPerDay/1e9)
	}
	return rate("idle", w.Idle) + ", " + rate("loaded", w.Loaded)
}

func finalityText(q api.Quantiles) string {
	if q == (api.Quantiles{}) {
		return "no transactions lately"
	}
	return fmt.Sprintf("%.0f ms median, %.0f ms p90, %.0f ms p99, %.0f ms at most", q.P50, q.P90, q.P99, q.Max)
}
