package ed25519

import (
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	voi "github.com/oasisprotocol/curve25519-voi/primitives/ed25519"

	"tutti/accel/internal/selftest"
)

// KeyBackend derives many public keys. Implementations are safe for concurrent use and start no goroutines.
type KeyBackend interface {
	Name() string
	// PublicKeys sets keys[i] to the public key of seeds[i]. The slices are equally long and not kept.
	PublicKeys(seeds, keys [][32]byte)
}

// PublicKeysVartime sets keys[i] to NewPrivateKey(seeds[i]).Public(), on the calling goroutine; keys must be at least as
// long as seeds. It takes 0.7 microseconds a key where there is AVX-512 IFMA, from eight keys on, and about 12 elsewhere.
//
// It is NOT constant-time: it is for seeds that are no secrets, those of made-up crowds. For a person's key there is
// NewPrivateKey.
func PublicKeysVartime(seeds, keys [][32]byte) {
	chooseKeys().For(len(seeds)).PublicKeys(seeds, keys[:len(seeds)])
}

// KeyBackends are those of this build that this machine can run, the preferred one first: for measurements and tests.
func KeyBackends() []KeyBackend { return append(laneKeyBackends(), voiKeys{}) }

// chooseKeys runs the self-test once. It is not among those of SelfTest: no node derives keys in bulk.
var chooseKeys = sync.OnceValue(func() *selftest.Table[KeyBackend] {
	var seeds, keys [8][32]byte
	op := selftest.Operation[KeyBackend]{
		Name: "ed25519 keys", Item: "key", Sizes: []int{1, 8}, Budget: time.Millisecond, First: true,
		Check: checkKeys,
		Work:  func(b KeyBackend, n int) { b.PublicKeys(seeds[:n], keys[:n]) },
		None:  voiKeys{},
	}
	return selftest.Choose(op, KeyBackends()...)
})

// knownKeys are seeds and public keys of RFC 8032, section 7.1: tests 1, 2, 3 and 1024.
var knownKeys = [...][2]string{
	{"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"},
	{"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb", "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"},
	{"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7", "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"},
	{"f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5", "278117fc144c72340f67d0f2316e8386ceffbf2b2428c9c51fef7c597f1d426e"},
}

// checkKeys wants the known keys, in every lane and behind a whole batch of lanes.
func checkKeys(b KeyBackend) error {
	var seeds, want, keys [17][32]byte
	for i := range seeds {
		known := knownKeys[i%len(knownKeys)]
		for to, text := range map[*[32]byte]string{&seeds[i]: known[0], &want[i]: known[1]} {
			if _, err := hex.Decode(to[:], []byte(text)); err != nil {
				return err
			}
		}
	}
	if b.PublicKeys(seeds[:], keys[:]); keys != want {
		return fmt.Errorf("wrong public keys of RFC 8032's seeds")
	}
	return nil
}

// voiKeys is curve25519-voi, key by key.
type voiKeys struct{}

func (voiKeys) Name() string { return "voi" }

func (voiKeys) PublicKeys(seeds, keys [][32]byte) {
	for i := range seeds {
		keys[i] = [32]byte(voi.NewKeyFromSeed(seeds[i][:])[32:])
	}
}
