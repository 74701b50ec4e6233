package ed25519

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
)

// answer is a known answer: what ZIP-215 says about an item.
type answer struct {
	name string
	item Item
	want bool
}

// smallOrder are the 14 encodings of points whose order divides 8, the six non-canonical ones last. As key and as R
// with S = 0 each pair is accepted by ZIP-215, whatever the message (the 196 vectors of the ZIP).
var smallOrder = [...]string{
	"0100000000000000000000000000000000000000000000000000000000000000",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0000000000000000000000000000000000000000000000000000000000000080",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	"0100000000000000000000000000000000000000000000000000000000000080",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
}

// wellFormed are signatures that ZIP-215 accepts. The "mixed" ones were made with a point of small order added to
// the key or to R, so that the equation without the cofactor (crypto/ed25519) refuses them.
var wellFormed = [...]struct{ name, key, message, signature string }{
	{
		"RFC 8032 test 1",
		"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
		"e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
	},
	{
		"RFC 8032 test 2",
		"3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
		"92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
	},
	{
		"RFC 8032 test 3",
		"fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
		"6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
	},
	{
		"mixed key",
		"f51eeaeeb98c1d8aaa6ddc5dc9f7df631fc4ce520bb1ce03e550726a19dc10ed", "6d69786564206b6579",
		"2f55773e2245e7f20f1c1571d0d0100b47566ba98af30f2bac108fde293141c283b156aab299a43ec774f64db467c467f0987bdf96b510da5b57ae8fcae88606",
	},
	{
		"mixed R",
		"5c25b0e4af371df38527f96b70e3def78266547d631ffbd2d33fbda9f809f0c6", "6d697865642052",
		"3acf476f8c86e48acacb4803ecddd18b3623f3f89da5d2319d2dd3677f0c45483ae8619b83634b683c7f36b0dcb159301835d57c4bebc294aa5db409c7e0a60b",
	},
	{
		"mixed key and R of order two",
		"35edaa455a7ce6eff3a28d9071ebd5c0b7b2787afcccdd92189493933a9ef928", "6f726465722074776f",
		"b3a2f89638eabd27b8cba29851568de4c4d52d3999f9140a213035fd3d6d75585b923f18fbc2a0f1141232dec49cdc793c30893abf30ef10ca35c71de07e5009",
	},
}

// fixed decodes a constant of this file, right-padding with zeros.
func fixed(s string) (b [64]byte) {
	if n, err := hex.Decode(b[:], []byte(s)); err != nil || n < 32 {
		panic("ed25519: bad constant " + s)
	}
	return b
}

// answers are the known answers, accepted ones first.
func answers() (all []answer) {
	for _, w := range wellFormed {
		message, _ := hex.DecodeString(w.message)
		key := fixed(w.key)
		all = append(all, answer{w.name, Item{[32]byte(key[:]), message, fixed(w.signature)}, true})
	}
	for _, a := range smallOrder {
		for _, r := range smallOrder {
			key := fixed(a)
			name := fmt.Sprintf("key %s... R %s... of small order", a[:8], r[:8])
			all = append(all, answer{name, Item{[32]byte(key[:]), []byte("Zcash"), fixed(r)}, true})
		}
	}
	for i, w := range wellFormed {
		good := all[i].item
		bad := func(name string, change func(*Item)) {
			it := good
			it.Message = append([]byte{}, good.Message...)
			change(&it)
			all = append(all, answer{w.name + ", " + name, it, false})
		}
		bad("another message", func(it *Item) { it.Message = append(it.Message, 0) })
		bad("S + 1", func(it *Item) { addToS(&it.Signature, big.NewInt(1)) })
		bad("S + L", func(it *Item) { addToS(&it.Signature, groupOrder) })
		bad("another R", func(it *Item) { copy(it.Signature[:32], all[(i+1)%len(wellFormed)].item.Signature[:32]) })
		bad("another key", func(it *Item) { it.Key = all[(i+1)%len(wellFormed)].item.Key })
		bad("y = 2 as key, off the curve", func(it *Item) { it.Key = [32]byte{2} })
		bad("y = 2 as R, off the curve", func(it *Item) { clear(it.Signature[:32]); it.Signature[0] = 2 })
	}
	zero := all[len(wellFormed)].item // key and R are the neutral element, S = 0
	addToS(&zero.Signature, groupOrder)
	return append(all, answer{"S = L", zero, false})
}

// groupOrder is L = 2^252 + 27742317777372353535851937790883648493.
var groupOrder, _ = new(big.Int).SetString("1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed", 16)

// addToS adds to the second half of a signature as a 256-bit little-endian number.
func addToS(sig *[64]byte, x *big.Int) {
	var s [32]byte
	for i := range s {
		s[i] = sig[63-i]
	}
	new(big.Int).Add(new(big.Int).SetBytes(s[:]), x).FillBytes(s[:])
	for i := range s {
		sig[63-i] = s[i]
	}
}

// check gives a backend every known answer: alone, all accepted ones in one batch, and each refused one hidden in a
// batch of accepted ones, whose verdicts it must not change.
func check(b Backend) error {
	all := answers()
	var accepted []Item
	for _, a := range all {
		if a.want {
			accepted = append(accepted, a.item)
		}
		ok := [1]bool{!a.want}
		if b.VerifyMany([]Item{a.item}, ok[:]); ok[0] != a.want {
			return fmt.Errorf("known answer %q: got %v, want %v", a.name, ok[0], a.want)
		}
	}
	ok := make([]bool, len(accepted))
	b.VerifyMany(accepted, ok)
	for i := range ok {
		if !ok[i] {
			return fmt.Errorf("known answer %q: refused in a batch of %d", all[i].name, len(accepted))
		}
	}
	const around = 9
	batch, ok := make([]Item, around), make([]bool, around)
	for k, a := range all[len(accepted):] {
		copy(batch, accepted)
		at := k % around
		batch[at] = a.item
		b.VerifyMany(batch, ok)
		for i := range ok {
			if ok[i] != (i != at) {
				return fmt.Errorf("known answer %q at %d of a batch: verdict %d is %v", a.name, at, i, ok[i])
			}
		}
	}
	return nil
}

// sampleItems are n valid items under n keys, of the size of a transfer, for measurements.
func sampleItems(n int) []Item {
	items := make([]Item, n)
	for i := range items {
		var seed [32]byte
		binary.LittleEndian.PutUint64(seed[:], uint64(i))
		key := NewPrivateKey(seed)
		message := make([]byte, 80)
		copy(message, seed[:])
		items[i] = Item{key.Public(), message, key.Sign(message)}
	}
	return items
}
