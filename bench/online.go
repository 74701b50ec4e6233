package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"

	"tutti/bench/load"
	"tutti/bench/workload"
)

// online opens a load of single transfers that a broker distils.
func (b *bench) online(ctx context.Context, t *target, crowd *workload.Crowd) (session, error) {
	s, err := load.OpenOnline(ctx, load.OnlineOptions{
		Target: load.Target{Trust: t.trust, APIs: t.apis(), Crowd: crowd, Fee: t.fee()}, Broker: t.own.BrokerAddr(),
		Workload: workload.Options{Kind: b.Workload, Seed: b.Seed, Shards: len(t.genesis.Shards), Accounts: int(t.accounts)},
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// clockTick is the unit of CPU time in /proc: USER_HZ, which is 100 on every Linux that Go runs on.
const clockTick = 100

// brokerCPU is the CPU time of the broker's process so far in seconds; 0 where there is none.
func (t *target) brokerCPU() float64 {
	if t.own == nil || t.own.BrokerPID() == 0 {
		return 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", t.own.BrokerPID()))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]) // from field 3, the state, on
	const utime, stime = 14 - 3, 15 - 3
	if len(fields) <= stime {
		return 0
	}
	user, _ := strconv.ParseFloat(string(fields[utime]), 64) // numbers, by proc(5)
	system, _ := strconv.ParseFloat(string(fields[stime]), 64)
	return (user + system) / clockTick
}
