package keys

import (
	"encoding/hex"
	"testing"
)

// TestBatches: the BLS key of a wallet is the same for ever; other keys have none.
func TestBatches(t *testing.T) {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(i)
	}
	s, err := FromBytes(Wallet, seed)
	if err != nil {
		t.Fatal(err)
	}
	k, err := s.Batches()
	if err != nil {
		t.Fatal(err)
	}
	const want = "98f961767d7bc691b7b2e0354df6aaaa05ffc3c59ece04aff7fa52a7c32ca4b12bcec9fcb45b5345b40498fd0a3e9023"
	if public := k.Public(); hex.EncodeToString(public[:]) != want {
		t.Errorf("the key is %x", public)
	}
	node, err := FromBytes(Node, seed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := node.Batches(); err == nil {
		t.Error("a node's key has a part in batches")
	}
}
