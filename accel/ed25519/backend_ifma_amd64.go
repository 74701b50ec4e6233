//go:build amd64 && !purego

package ed25519

import (
	"sync"

	"github.com/klauspost/cpuid/v2"

	"tutti/accel/ed25519/internal/keycache"
	"tutti/accel/ed25519/internal/lanes"
)

// ifma is package lanes: eight signatures at a time, a verdict each whatever the others are.
type ifma struct {
	verifiers *sync.Pool // of *lanes.Verifier; an entry is owned by one VerifyMany at a time
	memory    *keycache.Cache[*lanes.Key]
}

// laneBackends are the backends of this architecture.
func laneBackends() []Backend {
	return []Backend{ifma{verifiers: &sync.Pool{New: func() any { return lanes.New() }}}}
}

func (ifma) Name() string { return "ifma" }

// Needs implements selftest.Needs.
func (ifma) Needs() []cpuid.FeatureID { return lanes.Needs() }

// remembering shares nothing with b but scratch memory.
func (b ifma) remembering(n int) Backend {
	b.memory = keycache.New[*lanes.Key](n, 8)
	return b
}

// knows tells of a key whether it is in the memory.
func (b ifma) knows(key *[32]byte) bool {
	if b.memory == nil {
		return false
	}
	_, known := b.memory.Get(key)
	return known
}

func (b ifma) VerifyMany(items []Item, ok []bool) {
	v := b.verifiers.Get().(*lanes.Verifier)
	defer b.verifiers.Put(v)
	var refs [lanes.Chunk]*lanes.Item
	var keys [lanes.Chunk]*lanes.Key
	for len(items) > 0 {
		n := min(len(items), lanes.Chunk)
		for i := range n {
			refs[i] = (*lanes.Item)(&items[i])
			if b.memory != nil {
				keys[i], _ = b.memory.Get(&items[i].Key)
			}
		}
		v.Verify(refs[:n], keys[:n], ok)
		for i := range n {
			if b.memory != nil && ok[i] && keys[i] == nil {
				b.remember(v, &items[i].Key)
			}
		}
		items, ok = items[n:], ok[n:]
	}
}

// remember tells the memory of a key with a valid signature, and expands those that have come again.
func (b ifma) remember(v *lanes.Verifier, key *[32]byte) {
	due := b.memory.Seen(key)
	if len(due) == 0 {
		return
	}
	encoded := make([]*[32]byte, len(due))
	for i := range due {
		encoded[i] = &due[i]
	}
	for i, k := range v.Expand(encoded) {
		if k != nil {
			b.memory.Put(&due[i], k)
		}
	}
}

// ifmaKeys is package lanes: eight public keys or signatures at a time.
type ifmaKeys struct {
	memory *sync.Pool // of *lanes.Keys; an entry is owned by one call at a time
	signer *sync.Pool // of *signer; likewise
}

// laneKeyBackends are the backends of this architecture, where the machine can run them.
func laneKeyBackends() []KeyBackend {
	if !lanes.Supported() {
		return nil
	}
	return []KeyBackend{ifmaKeys{&sync.Pool{New: func() any { return lanes.NewKeys() }}, &sync.Pool{New: func() any { return new(signer) }}}}
}

func (ifmaKeys) Name() string { return "ifma" }

// Needs implements selftest.Needs.
func (ifmaKeys) Needs() []cpuid.FeatureID { return lanes.Needs() }

func (b ifmaKeys) PublicKeys(seeds, keys [][32]byte) {
	k := b.memory.Get().(*lanes.Keys)
	defer b.memory.Put(k)
	k.Public(seeds, keys)
}

func (b ifmaKeys) Sign(seeds, keys [][32]byte, messages [][]byte, signatures [][64]byte) {
	k, s := b.memory.Get().(*lanes.Keys), b.signer.Get().(*signer)
	defer b.memory.Put(k)
	defer b.signer.Put(s)
	s.sign(seeds, keys, messages, signatures, k.Multiples)
}
