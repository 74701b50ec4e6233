package shred

import (
	"bytes"
	"fmt"
	"slices"

	"tutti/consensus"
)

// Assembly collects parts of one body until there are enough. It holds on to the messages that they came in: at most k
// shards and one part, a body and a bit, since it takes no more when it is ready.
type Assembly struct {
	c     *consensus.Committee
	ref   consensus.BodyRef
	parts []*Part // by validator
	count int     // shards
}

// NewAssembly expects the parts of a body of this committee.
func NewAssembly(c *consensus.Committee, ref consensus.BodyRef) (*Assembly, error) {
	if wrong := c.CheckBodyRef(ref); wrong != "" || ref.Codec != consensus.CodecShards {
		return nil, fmt.Errorf("shred: no assembly of this body: %s", wrong)
	}
	return &Assembly{c: c, ref: ref, parts: make([]*Part, len(c.Validators))}, nil
}

// Wants reports whether validator i's part is of use: it is not here, and there are not enough yet.
func (a *Assembly) Wants(i int) bool {
	return !a.Ready() && i >= 0 && i < len(a.parts) && a.parts[i] == nil
}

// Add checks a part and keeps it if it is wanted. The error is that of Check, or says that the part is of another body.
func (a *Assembly) Add(p *Part) error {
	if p.Header.Body != a.ref {
		return fmt.Errorf("shred: %w: it is of another body", ErrPart)
	}
	if int(p.Validator) < len(a.parts) && !a.Wants(int(p.Validator)) {
		return nil
	}
	if err := Check(a.c, p); err != nil {
		return err
	}
	a.parts[p.Validator] = p
	a.count += len(p.Shards)
	return nil
}

// Clone is an assembly that goes on from here by itself. Parts are shared; nothing writes to them.
func (a *Assembly) Clone() *Assembly {
	c := *a
	c.parts = slices.Clone(a.parts)
	return &c
}

// Of reports whether validator i's part is here.
func (a *Assembly) Of(i int) bool { return i >= 0 && i < len(a.parts) && a.parts[i] != nil }

// Count is how many shards are here.
func (a *Assembly) Count() int { return a.count }

// Ready reports whether there are enough for Rebuild.
func (a *Assembly) Ready() bool { return a.count >= a.c.Code().K() }

// Rebuild decodes the body, encodes it again and compares the root. The error is ErrMalformed if the root is no body's,
// erasure.ErrTooFew if Ready is false. It changes nothing, and may run beside Wants, Ready and Count. Shards are checked by
// their paths once more, since that is how erasure.Assembly takes them: it costs a quarter of the whole.
func (a *Assembly) Rebuild() (*Set, error) {
	code := a.c.Code()
	in, err := code.NewAssembly(a.ref.Root, int(a.ref.Length))
	if err != nil {
		return nil, fmt.Errorf("shred: %w", err)
	}
	for i, p := range a.parts {
		if p == nil {
			continue
		}
		first, _ := span(a.c, i)
		for k, shard := range p.Shards {
			if err := in.Add(first+k, shard, p.Paths[k]); err != nil {
				return nil, fmt.Errorf("shred: %w", err)
			}
		}
	}
	set, err := in.Rebuild()
	if err != nil {
		return nil, fmt.Errorf("shred: %w", err)
	}
	return &Set{c: a.c, set: set, body: bytes.Clone(set.Body())}, nil
}
