package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"tutti/appliance/host"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/consensus/evidence"
)

func evidenceCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "evidence",
		Short: "List, export and check proofs that validators signed contradictions",
		Long: `List, export and check proofs that validators signed contradictions.

In one view a correct validator signs at most one notarize and one finalize, and never finalize together with nullify.
Nodes keep a proof of each such contradiction that they see. A proof holds the two signed statements: anybody can check it
with the network's genesis file alone, and nobody has to be trusted for it.`,
	}
	c.AddCommand(evidenceListCommand(a), evidenceExportCommand(a), evidenceVerifyCommand(a))
	return c
}

func evidenceListCommand(a *app) *cobra.Command {
	n := new(networkFlags)
	c := &cobra.Command{
		Use:   "list",
		Short: "Print the proofs that nodes keep, each checked against the genesis file",
		Example: `  tutti evidence list
  tutti evidence list --api http://127.0.0.1:9700 --json`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			net, proofs, err := a.gatherEvidence(c, n)
			if err != nil {
				return err
			}
			judged := net.judge(proofs)
			if a.json {
				return a.printJSON(judged)
			}
			if len(judged) == 0 {
				a.say("no validator is known to have signed a contradiction")
			}
			for i := range judged {
				a.say("%s", judged[i].text())
			}
			return nil
		},
	}
	n.add(c)
	return a.jsonFlag(c)
}

func evidenceExportCommand(a *app) *cobra.Command {
	n := new(networkFlags)
	c := &cobra.Command{
		Use:   "export FILE",
		Short: "Write the proofs that nodes keep, and that hold, to FILE",
		Example: `  tutti evidence export proofs.json
  tutti evidence export proofs.json --api http://127.0.0.1:9700`,
		Args: arguments("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := absentFile(args[0]); err != nil {
				return err
			}
			net, proofs, err := a.gatherEvidence(c, n)
			if err != nil {
				return err
			}
			judged := net.judge(proofs)
			var hold []*evidence.Proof
			for i := range judged {
				if judged[i].Holds {
					hold = append(hold, proofs[i])
				} else {
					fmt.Fprintf(a.stderr, "left out: %s\n", judged[i].text())
				}
			}
			if len(hold) == 0 {
				return errors.New("there is nothing to export: the nodes that were asked keep no proof that holds")
			}
			b, err := evidence.EncodeFile(hold)
			if err != nil {
				return err
			}
			if err := host.CreateFile(args[0], b, 0o644); err != nil {
				return err
			}
			if a.json {
				return a.printJSON(judged)
			}
			a.say("Wrote %s: proofs: %s", args[0], number(len(hold)))
			return nil
		},
	}
	n.add(c)
	return a.jsonFlag(c)
}

func evidenceVerifyCommand(a *app) *cobra.Command {
	n := new(networkFlags)
	c := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check all proofs in FILE against the genesis file; no node is asked",
		Long: `Check all proofs in FILE against the genesis file; no node is asked.

For a proof of a later epoch than the genesis' the state of 'tutti light sync' is needed as well: light.json in the home
folder, or what --light names. It keeps the committees of the newest epochs; 'tutti light verify FILE' asks nodes for others.

The exit status is 0 if every proof holds, and 1 if one does not or there is none.`,
		Example: `  tutti evidence verify proofs.json
  tutti evidence verify proofs.json --genesis genesis.json --json
  tutti evidence verify proofs.json --genesis genesis.json --light light.json`,
		Args: arguments("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			h, err := a.home()
			if err != nil {
				return err
			}
			net, err := n.load(h)
			if err != nil {
				return err
			}
			b, err := readBounded(args[0], evidence.MaxFileBytes)
			if err != nil {
				return err
			}
			proofs, err := evidence.DecodeFile(b)
			if err != nil {
				return fmt.Errorf("%w (%s)", err, args[0])
			}
			return a.sayJudged(net, proofs, args[0])
		},
	}
	c.Flags().StringVar(&n.genesis, "genesis", "", "genesis file to check against (default: genesis.json in the home folder)")
	n.addLight(c)
	return a.jsonFlag(c)
}

// sayJudged prints what the proofs in a file are worth. The error says how many prove nothing, or can not be judged.
func (a *app) sayJudged(net *network, proofs []*evidence.Proof, path string) error {
	if len(proofs) == 0 {
		return fmt.Errorf("%s holds no proof", path)
	}
	judged, bad, unknown := net.judge(proofs), 0, 0
	for i := range judged {
		switch {
		case judged[i].Unknown:
			unknown++
		case !judged[i].Holds:
			bad++
		}
		if !a.json {
			a.say("%s", judged[i].text())
		}
	}
	if a.json {
		if err := a.printJSON(judged); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fmt.Errorf("%s of %s proofs in %s prove nothing", number(bad), number(len(judged)), path)
	}
	if unknown > 0 {
		return fmt.Errorf("%s of %s proofs in %s can not be judged", number(unknown), number(len(judged)), path)
	}
	return nil
}

// absentFile refuses a name that something has.
func absentFile(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s exists and is never overwritten: choose another name", path)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// gatherEvidence asks the nodes for their proofs. Nodes that do not answer are named on standard error, as long as one does.
func (a *app) gatherEvidence(c *cobra.Command, n *networkFlags) (*network, []*evidence.Proof, error) {
	s, err := n.open(a)
	if err != nil {
		return nil, nil, err
	}
	defer s.client.Close()
	proofs, answered, err := s.client.Evidence(c.Context())
	if err != nil && (answered == 0 || c.Context().Err() != nil) {
		return nil, nil, err
	}
	if err != nil {
		fmt.Fprintf(a.stderr, "not all nodes answered: %s\n", oneLine(err))
	}
	return s.network, proofs, nil
}

// judgement is what a proof is worth, as --json prints it.
type judgement struct {
	ID         proof.Digest      `json:"id"`
	Holds      bool              `json:"holds"`
	Unknown    bool              `json:"unknown,omitempty"` // the committee of its epoch is not known: it can not be judged
	Error      string            `json:"error,omitempty"`   // why it proves nothing, or can not be judged
	Shard      consensus.ShardID `json:"shard"`
	Epoch      consensus.Epoch   `json:"epoch"`
	View       consensus.View    `json:"view"`
	First      signedStatement   `json:"first"`
	Second     signedStatement   `json:"second"`
	Validators []guilty          `json:"validators"` // who signed both; empty if it does not hold
	Power      consensus.Power   `json:"power"`      // of them together
	Total      consensus.Power   `json:"total_power"`
	By         string            `json:"by"` // votes or certificates
}

type signedStatement struct {
	Kind  string        `json:"kind"`
	Block *proof.Digest `json:"block,omitempty"`
}

type guilty struct {
	Index int             `json:"index"`
	Name  string          `json:"name"`
	Power consensus.Power `json:"power"`
	Key   proof.Hex       `json:"key"`
}

// judge checks proofs against the committees that are known.
func (n *network) judge(proofs []*evidence.Proof) []judgement {
	out := make([]judgement, len(proofs))
	for i, p := range proofs {
		st := p.Statements()
		out[i] = judgement{
			ID: proof.Digest(p.ID()), Shard: st[0].Shard, Epoch: st[0].Epoch, View: st[0].View,
			First: statementOf(st[0]), Second: statementOf(st[1]), Validators: []guilty{}, By: "votes",
		}
		if p.Certificates != nil {
			out[i].By = "certificates"
		}
		if err := n.judgeOne(p, &out[i]); err != nil {
			out[i].Error, out[i].Unknown = withRemedy(err).Error(), errors.Is(err, proof.ErrEpoch)
		}
	}
	return out
}

func statementOf(st consensus.Statement) signedStatement {
	s := signedStatement{Kind: st.Kind.String()}
	if st.Kind != consensus.Nullify {
		block := proof.Digest(st.Block)
		s.Block = &block
	}
	return s
}

func (n *network) judgeOne(p *evidence.Proof, j *judgement) error {
	if p.Chain != consensus.Hash(n.hash) {
		return fmt.Errorf("%w (the proof's is %s, the genesis file's %s)", evidence.ErrOtherChain, p.Chain.Short(), consensus.Hash(n.hash).Short())
	}
	if int(j.Shard) >= len(n.genesis.Shards) {
		return fmt.Errorf("the network has no shard %d", j.Shard)
	}
	c, keys, err := n.trust.Committee(j.Shard, j.Epoch)
	if err != nil {
		return err
	}
	f, err := evidence.Verify(p, consensus.Hash(n.hash), c, keys)
	if err != nil {
		return err
	}
	j.Holds, j.Power, j.Total = true, f.Power, f.Total
	for _, i := range f.Guilty {
		v := c.Validators[i]
		j.Validators = append(j.Validators, guilty{Index: i, Name: n.nameOf(j.Shard, v.Key), Power: v.Power, Key: v.Key[:]})
	}
	return nil
}

// nameOf is a validator's name in the genesis file, or for one that came later the beginning of its voting key.
func (n *network) nameOf(shard consensus.ShardID, key consensus.PublicKey) string {
	for _, v := range n.genesis.Shards[shard].Validators {
		if v.Key == key {
			return v.Name
		}
	}
	return fmt.Sprintf("%x", key[:8])
}

// text is a judgement in one line.
func (j *judgement) text() string {
	what := fmt.Sprintf("shard %d, epoch %d, view %d: %s and %s", j.Shard, j.Epoch, j.View, j.First.text(), j.Second.text())
	if j.Unknown {
		return what + ": can not be judged: " + j.Error
	}
	if !j.Holds {
		return what + ": PROVES NOTHING: " + j.Error
	}
	if len(j.Validators) == 1 {
		return fmt.Sprintf("%s: proves that validator %s (power %s) signed both", what, j.Validators[0].Name, number(uint64(j.Power)))
	}
	names := make([]string, len(j.Validators))
	for i, v := range j.Validators {
		names[i] = fmt.Sprintf("%s (power %s)", v.Name, number(uint64(v.Power)))
	}
	return fmt.Sprintf("%s: proves that validators %s signed both, together power %s of %s", what, strings.Join(names, ", "),
		number(uint64(j.Power)), number(uint64(j.Total)))
}

func (s signedStatement) text() string {
	if s.Block == nil {
		return s.Kind
	}
	return s.Kind + " of block " + s.Block.String()
}
