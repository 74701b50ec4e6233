package ed25519

import (
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	voi "github.com/oasisprotocol/curve25519-voi/primitives/ed25519"

	"tutti/accel/internal/selftest"
)

// KeyBackend derives many public keys and makes many signatures, in variable time. Implementations are safe for concurrent use and start no goroutines.
type KeyBackend interface {
	Name() string
	// PublicKeys sets keys[i] to the public key of seeds[i]. The slices are equally long and not kept.
	PublicKeys(seeds, keys [][32]byte)
	// Sign sets signatures[i] to that of messages[i] under seeds[i], whose public key is keys[i]. The slices are equally long and
	// not kept.
	Sign(seeds, keys [][32]byte, messages [][]byte, signatures [][64]byte)
}

// SignManyVartime sets signatures[i] to NewPrivateKey(seeds[i]).Sign(messages[i]), on the calling goroutine; keys[i] must be the
// public key of seeds[i], and all slices equally long. It takes about 1.7 microseconds a signature of a short message where there
// is AVX-512 IFMA, from eight on, and about 9 elsewhere.
//
// It is NOT constant-time, like PublicKeysVartime.
func SignManyVartime(seeds, keys [][32]byte, messages [][]byte, signatures [][64]byte) {
	n := len(seeds)
	chooseKeys().For(n).Sign(seeds, keys[:n], messages[:n], signatures[:n])
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
		Work:  func(b KeyBackend, n int) { b.PublicKeys(seeds[:n], keys[:n]) }, // most of a signature, too
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

// knownSignatures are those of the same section by the first three keys.
var knownSignatures = [...]struct {
	key       int // in knownKeys
	message   []byte
	signature string
}{
	{0, nil, "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"},
	{1, []byte{0x72}, "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"},
	{2, []byte{0xaf, 0x82}, "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"},
}

// checkKeys wants the known keys and signatures, in every lane and behind a whole batch of lanes.
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
	var messages [len(seeds)][]byte
	var signed, good [len(seeds)][64]byte
	for i := range seeds {
		known := knownSignatures[i%len(knownSignatures)]
		messages[i] = known.message
		for to, text := range map[*[32]byte]string{&seeds[i]: knownKeys[known.key][0], &keys[i]: knownKeys[known.key][1]} {
			if _, err := hex.Decode(to[:], []byte(text)); err != nil {
				return err
			}
		}
		if _, err := hex.Decode(good[i][:], []byte(known.signature)); err != nil {
			return err
		}
	}
	if b.Sign(seeds[:], keys[:], messages[:], signed[:]); signed != good {
		return fmt.Errorf("wrong signatures of RFC 8032's messages")
	}
	return nil
}

// voiKeys is curve25519-voi, one by one.
type voiKeys struct{}

func (voiKeys) Name() string { return "voi" }

func (voiKeys) PublicKeys(seeds, keys [][32]byte) {
	for i := range seeds {
		keys[i] = [32]byte(voi.NewKeyFromSeed(seeds[i][:])[32:])
	}
}

func (voiKeys) Sign(seeds, keys [][32]byte, messages [][]byte, signatures [][64]byte) {
	var private [voi.PrivateKeySize]byte
	for i := range seeds {
		copy(private[copy(private[:], seeds[i][:]):], keys[i][:])
		copy(signatures[i][:], voi.Sign(private[:], messages[i]))
	}
}
