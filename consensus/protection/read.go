package protection

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

func malformed(format string, args ...any) error {
	return fmt.Errorf("protection: %w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// Read is what a file, at most MaxFileBytes, says about this validator. Entries that held, the state of the log that the
// file is to be merged with, accounts for say nothing new.
func (v *Validator) Read(b []byte, held State) (State, error) {
	f, err := decode(b)
	if err != nil {
		return State{}, err
	}
	if f.Metadata.Version != InterchangeVersion {
		return State{}, malformed("interchange_format_version is %.40q, this build knows %q", f.Metadata.Version, InterchangeVersion)
	}
	root, err := unhex(f.Metadata.Root, len(v.Chain))
	if err != nil {
		return State{}, malformed("genesis_validators_root: %v", err)
	}
	if consensus.Hash(root) != v.Chain {
		return State{}, fmt.Errorf("protection: genesis %.8x, this chain's is %s: %w", root, v.Chain.Short(), ErrOtherChain)
	}
	if len(f.Data) > maxKeys {
		return State{}, malformed("%d keys, limit %d", len(f.Data), maxKeys)
	}
	var s State
	found := false
	for i := range f.Data {
		k := &f.Data[i]
		key, err := unhex(k.Key, len(consensus.PublicKey{}))
		if err != nil {
			return State{}, malformed("pubkey of data[%d]: %v", i, err)
		}
		if consensus.PublicKey(key) != v.key() {
			continue
		}
		found = true
		one, err := v.read(k, held)
		if err != nil {
			return State{}, fmt.Errorf("%w (data[%d])", err, i)
		}
		s = s.Merge(one)
	}
	if !found {
		return State{}, fmt.Errorf("protection: %w", ErrOtherKey)
	}
	return s, nil
}

// read is what the entries of the own key say.
func (v *Validator) read(k *keyed, held State) (State, error) {
	if k.Blocks == nil || k.Attestations == nil {
		return State{}, malformed("signed_blocks and signed_attestations are needed, if empty")
	}
	if len(k.Blocks) > maxEntries || len(k.Attestations) > maxEntries {
		return State{}, malformed("%d blocks and %d attestations, limit %d", len(k.Blocks), len(k.Attestations), maxEntries)
	}
	s, err := v.readExact(k.Exact)
	if err != nil {
		return State{}, err
	}
	known := map[entry]bool{} // accounted for by an exact vote
	for _, vote := range append(append([]consensus.Vote(nil), s.Votes...), held.Votes...) {
		known[entry{vote.Kind == consensus.Notarize, vote.View, v.root(vote.Statement)}] = true
	}
	said := State{}
	roots := map[entry]string{} // by kind and view
	take := func(notarize bool, number, root string) error {
		view, err := v.view(number)
		if err != nil {
			return err
		}
		if root != "" {
			r, err := unhex(root, 32)
			if err != nil {
				return malformed("signing_root: %v", err)
			}
			root = "0x" + hex.EncodeToString(r)
			at := entry{notarize, view, ""}
			if old, ok := roots[at]; ok && old != root {
				said.conflict("two %s with signing roots %.10s and %.10s in view %d", at.what(), old, root, view)
			}
			roots[at] = root
		}
		if !known[entry{notarize, view, root}] && view > max(s.Bar, held.Bar) {
			said.Bar = max(said.Bar, view+simplex.FloorMargin)
		}
		return nil
	}
	for _, b := range k.Blocks {
		if err := take(true, b.Slot, b.Root); err != nil {
			return State{}, err
		}
	}
	for _, a := range k.Attestations {
		source, err := unnumber(a.Source)
		if err != nil {
			return State{}, err
		}
		if target, err := unnumber(a.Target); err == nil && source > target {
			return State{}, malformed("an attestation from %d to %d", source, target)
		}
		if err := take(false, a.Target, a.Root); err != nil {
			return State{}, err
		}
	}
	if len(said.Conflicts) > 0 {
		for at := range roots {
			said.Bar = max(said.Bar, at.view+simplex.FloorMargin)
		}
	}
	return s.Merge(said), nil
}

// entry is one of the standard part.
type entry struct {
	notarize bool
	view     consensus.View
	root     string
}

func (e entry) what() string {
	if e.notarize {
		return "signed_blocks"
	}
	return "signed_attestations"
}

// readExact is what the part of our own says, checked.
func (v *Validator) readExact(x *exact) (State, error) {
	if x == nil {
		return State{}, nil
	}
	shard, err := unnumber(x.Shard)
	if err != nil {
		return State{}, err
	}
	if shard != uint64(v.Committee.Shard) {
		return State{}, fmt.Errorf("protection: shard %d, this validator's is %d: %w", shard, v.Committee.Shard, ErrOtherShard)
	}
	if len(x.Votes) > maxEntries {
		return State{}, malformed("%d votes, limit %d", len(x.Votes), maxEntries)
	}
	var s State
	if s.Bar, err = v.view(x.Bar); err != nil {
		return State{}, err
	}
	for i, text := range x.Votes {
		b, err := unhex(text, consensus.VoteBytes)
		if err != nil {
			return State{}, malformed("votes[%d]: %v", i, err)
		}
		vote, err := consensus.DecodeVote(b)
		if err != nil {
			return State{}, malformed("votes[%d]: %v", i, err)
		}
		switch {
		case vote.Shard != v.Committee.Shard:
			return State{}, fmt.Errorf("protection: votes[%d]: shard %d: %w", i, vote.Shard, ErrOtherShard)
		case vote.Epoch != v.Committee.Epoch:
			return State{}, fmt.Errorf("protection: votes[%d]: epoch %d: %w", i, vote.Epoch, ErrEpoch)
		case vote.View >= 1<<viewBits:
			return State{}, malformed("votes[%d]: view %d", i, vote.View)
		case int(vote.Validator) != v.Index || !v.Keys.Verify(v.Index, consensus.VoteMessage(v.Chain, vote.Statement), vote.Signature):
			return State{}, malformed("votes[%d]: not signed by this validator", i)
		}
		s.Votes = append(s.Votes, *vote)
	}
	return s.settle(), nil
}

// view is the view that a number means, which must be of the committee's epoch.
func (v *Validator) view(number string) (consensus.View, error) {
	n, err := unnumber(number)
	if err != nil {
		return 0, err
	}
	if n>>viewBits != uint64(v.Committee.Epoch) {
		return 0, fmt.Errorf("protection: number %d: epoch %d: %w", n, n>>viewBits, ErrEpoch)
	}
	return consensus.View(n & (1<<viewBits - 1)), nil
}

// unnumber reads a number as the format has it: decimal text without leading zeros.
func unnumber(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != text {
		return 0, malformed("%.40q is not a number in text", text)
	}
	return n, nil
}

// unhex reads exactly n bytes after 0x.
func unhex(text string, n int) ([]byte, error) {
	digits, ok := strings.CutPrefix(text, "0x")
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != n {
		return nil, fmt.Errorf("%.20q is not 0x and %d bytes in hex", text, n)
	}
	return b, nil
}

// decode reads the form and nothing else.
func decode(b []byte) (*file, error) {
	if len(b) > MaxFileBytes {
		return nil, malformed("%d bytes, limit %d", len(b), MaxFileBytes)
	}
	if err := unambiguous(b); err != nil {
		return nil, err
	}
	var f struct {
		Metadata *metadata `json:"metadata"`
		Data     []keyed   `json:"data"`
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, malformed("%v", err)
	}
	if f.Metadata == nil || f.Data == nil {
		return nil, malformed("metadata and data are needed")
	}
	return &file{*f.Metadata, f.Data}, nil
}

// maxDepth bounds the nesting of a file; the format needs 5.
const maxDepth = 16

// unambiguous refuses JSON in which a field is there twice, which a decoder would take the last of, and a field that is one
// of ours but for its case, which a decoder would take as well. In tutti it refuses fields that are not ours.
func unambiguous(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if err := walk(d, "", 0); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return malformed("more follows the JSON value")
	}
	return nil
}

// ours are the fields of the format.
var ours = []string{
	"metadata", "interchange_format_version", "genesis_validators_root", "data", "pubkey", "signed_blocks", "slot", "signing_root",
	"signed_attestations", "source_epoch", "target_epoch", "tutti", "shard", "barred_to", "votes",
}

// walk checks the value that comes next, which is that of a field.
func walk(d *json.Decoder, field string, depth int) error {
	t, err := d.Token()
	if err != nil {
		return malformed("%v", err)
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	if depth++; depth > maxDepth {
		return malformed("nested deeper than %d", maxDepth)
	}
	seen := map[string]bool{}
	for d.More() {
		if open == '[' {
			if err := walk(d, field, depth); err != nil {
				return err
			}
			continue
		}
		t, err := d.Token()
		if err != nil {
			return malformed("%v", err)
		}
		name := t.(string)
		switch {
		case seen[name]:
			return malformed("field %.40q is there twice", name)
		case !slices.Contains(ours, name) && slices.ContainsFunc(ours, func(n string) bool { return strings.EqualFold(n, name) }):
			return malformed("field %.40q is not in lower case", name)
		case field == "tutti" && name != "shard" && name != "barred_to" && name != "votes":
			return malformed("field %.40q of tutti is not known: update tutti", name)
		}
		seen[name] = true
		if err := walk(d, name, depth); err != nil {
			return err
		}
	}
	if _, err = d.Token(); err != nil { // the closing one
		return malformed("%v", err)
	}
	return nil
}
