package evidence

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"tutti/consensus"
)

// FileFormat names the format of a file of proofs.
const FileFormat = "tutti-evidence/1"

// Limits of a file of proofs.
const (
	MaxFileProofs = MaxProofs
	MaxFileBytes  = 1024 + MaxFileProofs*(2*MaxBytes+512)
)

// file is the JSON form of proofs. What stands beside a proof's bytes repeats them for people and must agree with them.
type file struct {
	Format string      `json:"format"`
	Proofs []fileProof `json:"proofs"`
}

type fileProof struct {
	Shard  consensus.ShardID `json:"shard"`
	Epoch  consensus.Epoch   `json:"epoch"`
	View   consensus.View    `json:"view"`
	First  string            `json:"first"`
	Second string            `json:"second"`
	Proof  string            `json:"proof"` // hex of the encoding
}

func (p *Proof) inFile() fileProof {
	st := p.Statements()
	return fileProof{
		Shard: st[0].Shard, Epoch: st[0].Epoch, View: st[0].View, First: Describe(st[0]), Second: Describe(st[1]),
		Proof: hex.EncodeToString(p.Append(nil)),
	}
}

// EncodeFile makes a file of proofs, at most MaxFileProofs.
func EncodeFile(proofs []*Proof) ([]byte, error) {
	if len(proofs) > MaxFileProofs {
		return nil, fmt.Errorf("evidence: %d proofs, limit of a file %d", len(proofs), MaxFileProofs)
	}
	f := file{Format: FileFormat, Proofs: make([]fileProof, len(proofs))}
	for i, p := range proofs {
		f.Proofs[i] = p.inFile()
	}
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	return append(b, '\n'), nil
}

// DecodeFile reads a file of proofs, at most MaxFileBytes, or one proof as it is encoded. Nothing is verified. The error of
// a proof says which one it is, from 1.
func DecodeFile(b []byte) ([]*Proof, error) {
	if bytes.HasPrefix(b, []byte(magic)) {
		p, err := Decode(b)
		if err != nil {
			return nil, err
		}
		return []*Proof{p}, nil
	}
	if len(b) > MaxFileBytes {
		return nil, malformed("%d bytes, limit %d", len(b), MaxFileBytes)
	}
	var f file
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, malformed("%v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, malformed("more follows the JSON value")
	}
	if f.Format != FileFormat {
		return nil, malformed("format %.40q, this build knows %q", f.Format, FileFormat)
	}
	if len(f.Proofs) > MaxFileProofs {
		return nil, malformed("%d proofs, limit %d", len(f.Proofs), MaxFileProofs)
	}
	out := make([]*Proof, len(f.Proofs))
	for i, fp := range f.Proofs {
		raw, err := hex.DecodeString(fp.Proof)
		if err != nil {
			return nil, malformed("proof %d is not hex", i+1)
		}
		if out[i], err = Decode(raw); err != nil {
			return nil, fmt.Errorf("proof %d: %w", i+1, err)
		}
		if fp != out[i].inFile() {
			return nil, malformed("proof %d: what stands beside it is not what it says", i+1)
		}
	}
	return out, nil
}
