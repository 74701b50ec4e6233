package simplex

import (
	"reflect"
	"slices"
	"testing"
)

// TestSnapshotFields fails when a type that Clone and AppendState walk through gets a field that they were not told of.
// Add it to both, or to what AppendState says it leaves out, and then here.
func TestSnapshotFields(t *testing.T) {
	for _, tc := range []struct {
		of    any
		knows []string
	}{
		{Machine{}, []string{
			"c", "n", "view", "timed", "age", "expired", "halted", "syncing", "over", "root", "agreed", "silent", "final", "high",
			"rounds", "blocks", "wants", "distrusted", "unheard", "helped", "rotor", "unlogged", "out",
		}},
		{round{}, []string{"view", "certs", "sent", "ballots", "accused", "own", "proposal", "block", "building", "settled"}},
		{ballot{}, []string{"votes", "state", "power"}},
		{block{}, []string{
			"Block", "hash", "view", "notarized", "here", "checked", "logged", "final", "verdict", "vote", "parts", "rebuilding", "own", "cut",
		}},
		{want{}, []string{"hash", "view", "ticks"}},
		{Config{}, []string{
			"Chain", "Root", "RootCert", "Committee", "Keys", "Signer", "Index", "Timing", "Limits", "Blocks", "Log",
		}},
	} {
		var has []string
		for i, typ := 0, reflect.TypeOf(tc.of); i < typ.NumField(); i++ {
			has = append(has, typ.Field(i).Name)
		}
		if !slices.Equal(has, tc.knows) {
			t.Errorf("%T has fields\n%v, Clone and AppendState know\n%v", tc.of, has, tc.knows)
		}
	}
}
