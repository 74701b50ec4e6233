package node

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"tutti/appliance/config"
	"tutti/appliance/epochs"
	"tutti/appliance/genesis"
	"tutti/appliance/keys"
	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/consensus/protection"
)

// protected is the vote log of a home whose node is stopped, with what is known about its validator.
type protected struct {
	validator protection.Validator
	log       *blocklog.Log
	held      protection.State
	release   func()
}

// openProtection locks a home and opens its vote log. The caller closes it.
func openProtection(home config.Home, v *genesis.Verified) (_ *protected, err error) {
	release, err := home.Lock()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			release()
		}
	}()
	node, err := keys.LoadType(home.NodeKey(), keys.Node)
	if err != nil {
		return nil, err
	}
	voting, err := keys.LoadType(home.VotingKey(), keys.Voting)
	if err != nil {
		return nil, err
	}
	shard, index, ok := Seat(v, [32]byte(node.Public()))
	if !ok {
		return nil, fmt.Errorf("the node key in %s is no validator's of network %s: put the genesis file there that has this node", home.Keys(), v.Name)
	}
	p := &protected{validator: protection.Validator{Chain: v.Hash()}, release: release}
	if consensus.PublicKey(voting.Public()) != v.Shards[shard].Validators[index].Key {
		return nil, fmt.Errorf("the voting key in %s is not the one that genesis has for this node: put the right key there", home.VotingKey())
	}
	if marked(home) {
		return nil, fmt.Errorf("the data in %s is still to be copied: 'tutti run' goes on with it, and asks the other validators itself from which view on it is safe to vote", home.Data())
	}
	if err := config.CheckFormat(home.Data(), config.DataFormat); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no data in %s: 'tutti run --sync' makes it, and asks the other validators from which view on it is safe to vote; 'tutti state import' makes it of a file", home)
	} else if err != nil {
		return nil, err
	}
	if err := p.lastSeat(home, v, shard, consensus.PublicKey(voting.Public())); err != nil {
		return nil, err
	}
	if p.validator.Keys, err = consensus.NewKeys(p.validator.Committee); err != nil {
		return nil, err
	}
	if p.log, err = blocklog.Open(blocklog.Options{
		FS: disk(), Dir: home.Blocks(), Chain: v.Hash(), Shard: shard, Retention: blocklog.Forever,
	}); err != nil {
		return nil, err
	}
	final, err := finalView(p.log, p.validator.Committee.Epoch)
	if err != nil {
		return nil, errors.Join(err, p.log.Close())
	}
	p.held = p.validator.Records(p.log.Records(), final)
	return p, nil
}

// lastSeat finds the newest epoch in which the validator has a seat.
func (p *protected) lastSeat(home config.Home, v *genesis.Verified, shard consensus.ShardID, key consensus.PublicKey) error {
	first, err := v.Committee(shard)
	if err != nil {
		return err
	}
	store, err := epochs.Open(disk(), home.Epochs(), v.Hash(), first)
	if err != nil {
		return err
	}
	defer store.Close() // nothing was written
	for epoch := store.Newest().Committee.Epoch; ; epoch-- {
		t, err := store.Term(epoch)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(t.Committee.Validators, func(x consensus.Validator) bool { return x.Key == key }); i >= 0 {
			p.validator.Committee, p.validator.Index = t.Committee, i
			return nil
		}
		if epoch == first.Epoch {
			return fmt.Errorf("this validator has had no seat in epochs %d to %d, so that it has signed nothing", epoch, store.Newest().Committee.Epoch)
		}
	}
}

// finalView is the view of the last final block of a log, 0 if that is of an earlier epoch.
func finalView(log *blocklog.Log, epoch consensus.Epoch) (consensus.View, error) {
	height, hash := log.Final()
	if height == 0 {
		return 0, nil
	}
	h, err := log.Header(hash)
	if err != nil || h.Epoch != epoch {
		return 0, err
	}
	return h.View, nil
}

func (p *protected) close() error {
	defer p.release()
	return p.log.Close()
}

// ProtectionInfo is what a vote log holds, and what an import did to it.
type ProtectionInfo struct {
	Network   string            `json:"network"`
	Shard     consensus.ShardID `json:"shard"`
	Epoch     consensus.Epoch   `json:"epoch"`
	BarredTo  consensus.View    `json:"barred_to"` // nothing is signed any more in views up to it
	Votes     int               `json:"votes"`     // known one by one, above it
	Before    consensus.View    `json:"barred_to_before"`
	Added     int               `json:"votes_added"`
	Conflicts []string          `json:"conflicts"` // contradictions, the first few: the key was used twice
}

func (p *protected) info(v *genesis.Verified, s protection.State) *ProtectionInfo {
	c := p.validator.Committee
	return &ProtectionInfo{
		Network: v.Name, Shard: c.Shard, Epoch: c.Epoch, BarredTo: s.Bar, Votes: len(s.Votes), Before: p.held.Bar,
		Conflicts: append([]string{}, s.Conflicts...),
	}
}

// ExportProtection is the slashing protection file of a home whose node is stopped.
func ExportProtection(home config.Home, v *genesis.Verified, form protection.Form) (b []byte, info *ProtectionInfo, err error) {
	p, err := openProtection(home, v)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	b, err = p.validator.Export(p.held, form)
	return b, p.info(v, p.held), err
}

// ImportProtection makes durable in the vote log of a home whose node is stopped what a slashing protection file says. It only
// ever adds.
func ImportProtection(home config.Home, v *genesis.Verified, b []byte) (info *ProtectionInfo, err error) {
	p, err := openProtection(home, v)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	s, err := p.validator.Read(b, p.held)
	if err != nil {
		return nil, err
	}
	change, merged := p.validator.Change(p.held, s)
	info = p.info(v, merged)
	info.Added = len(change.Votes)
	if change.Empty() {
		return info, nil
	}
	return info, p.log.Protect(change.Floor, change.Votes)
}
