package trace

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// digest is a hash over everything in a Ready, in its order. Blocks count by hash of header and body.
func digest(r simplex.Ready) [32]byte {
	var b []byte
	num := func(n uint64) { b = binary.BigEndian.AppendUint64(b, n) }
	hash := func(h consensus.Hash) { b = append(b, h[:]...) }
	block := func(bl consensus.Block) {
		hash(bl.Header.Hash())
		body := sha256.Sum256(bl.Body)
		b = append(b, body[:]...)
	}
	num(uint64(len(r.Persist.Blocks)))
	for _, bl := range r.Persist.Blocks {
		block(bl)
	}
	num(uint64(len(r.Persist.Records)))
	for _, rec := range r.Persist.Records {
		b = appendRecord(b, rec)
	}
	num(uint64(len(r.Send)))
	for _, o := range r.Send {
		num(uint64(o.To))
		switch {
		case o.Proposal != nil:
			b = o.Proposal.Vote.Append(append(b, 'p'))
			block(o.Proposal.Block)
		case o.Part != nil:
			part := sha256.Sum256(o.Part.Append(nil))
			b = append(append(b, 's'), part[:]...)
		case o.Vote != nil:
			b = o.Vote.Append(append(b, 'v'))
		default:
			b = appendCert(append(b, 'c'), o.Cert)
		}
	}
	num(uint64(len(r.Apply)))
	for _, a := range r.Apply {
		b = append(b, fmt.Sprintf("%T", a)...)
		switch a := a.(type) {
		case simplex.SetTimer:
			num(uint64(a.View))
			num(uint64(a.After))
		case simplex.Build:
			num(uint64(a.Epoch))
			num(uint64(a.View))
			hash(a.Parent.Hash())
			num(uint64(a.MaxBody))
		case simplex.Certify:
			block(a.Block)
		case simplex.Rebuild:
			hash(a.Block)
		case simplex.Fetch:
			hash(a.Block)
			num(uint64(a.View))
		case simplex.CancelFetch:
			hash(a.Block)
		case simplex.SyncNeeded:
			b = appendCert(b, &a.Cert)
		case simplex.Finalised:
			num(uint64(len(a.Blocks)))
			for _, bl := range a.Blocks {
				block(bl)
			}
			for _, h := range a.Echoes {
				hash(h.Hash())
			}
			b = appendCert(b, &a.Cert)
		case simplex.Abandoned:
			hash(a.Block)
		case simplex.Evidence:
			b = a.Second.Append(a.First.Append(b))
		case simplex.Misbehaved:
			num(uint64(a.Validator))
			b = append(b, a.Reason...)
		case simplex.Halted:
			b = append(appendCert(b, &a.Cert), bit(a.Own))
			if a.Against != nil {
				b = appendCert(b, a.Against)
			}
			b = append(b, a.Reason...)
		case simplex.KeyElsewhere:
			b = append(b, fmt.Sprintf("%+v", a.Statement)...)
		}
	}
	return sha256.Sum256(b)
}
