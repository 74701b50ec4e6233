package bls

import (
	"tutti/accel/bls"
	"tutti/accel/internal/rows"
)

const (
	shareCount = 2048
	manyCount  = 64
)

func clientRows() []rows.Row {
	e := engine()
	return []rows.Row{
		row("bls-many/distinct-messages", manyCount, e, many),
		row("bls-shares/uncompressed", shareCount, e, shares(false, 0)),
		row("bls-shares/uncompressed-1-bad", shareCount, e, shares(false, shareCount)),
		row("bls-shares/compressed", shareCount, e, shares(true, 0)),
		{Name: "bls-possession/add/1/" + e, Items: 1, Setup: possession},
		{Name: "bls-sign/share/1/" + e, Items: 1, Setup: sign},
	}
}

func many() (func(), error) {
	var keys []bls.PublicKey
	var msgs [][]byte
	var sigs []bls.Signature
	for i := range manyCount {
		k, err := signer(secret(i))
		if err != nil {
			return nil, err
		}
		p, err := bls.ParsePublicKey(k.Public())
		if err != nil {
			return nil, err
		}
		s, err := bls.ParseSignature(k.Sign(message(i)))
		if err != nil {
			return nil, err
		}
		keys, msgs, sigs = append(keys, p), append(msgs, message(i)), append(sigs, s)
	}
	ok := make([]bool, manyCount)
	return func() {
		bls.VerifyMany(keys, msgs, sigs, ok)
		must(ok[0] && ok[manyCount-1])
	}, nil
}

// shares are what a broker gets, of which every bad-th is wrong.
func shares(compressed bool, bad int) func() (func(), error) {
	return func() (func(), error) {
		keys := make([]bls.PublicKey, shareCount)
		plain, packed := make([][192]byte, shareCount), make([][96]byte, shareCount)
		for i := range keys {
			k, err := signer(secret(i))
			if err != nil {
				return nil, err
			}
			if keys[i], err = bls.ParsePublicKey(k.Public()); err != nil {
				return nil, err
			}
			msg := message(0)
			if bad != 0 && i%bad == bad/2 {
				msg = message(1)
			}
			plain[i] = k.SignShare(msg)
			if compressed {
				packed[i] = k.Sign(msg)
			}
		}
		parsed := make([]bls.Share, shareCount)
		return func() {
			for i := range parsed {
				var err error
				if compressed {
					parsed[i], err = bls.ParseShare(packed[i])
				} else {
					parsed[i], err = bls.ParseShareUncompressed(plain[i])
				}
				must(err == nil)
			}
			_, found, err := bls.CheckShares(keys, message(0), parsed)
			must(err == nil && (len(found) == 0) == (bad == 0))
		}, nil
	}
}

func possession() (func(), error) {
	k, err := signer(secret(0))
	if err != nil {
		return nil, err
	}
	key := k.Public()
	msg := append(message(0), key[:]...)
	proof := k.ProvePossession(msg)
	return func() {
		d := bls.NewDirectory(1)
		must(d.Add(0, key, msg, proof) == nil)
	}, nil
}

func sign() (func(), error) {
	k, err := signer(secret(0))
	if err != nil {
		return nil, err
	}
	return turns(manyMessages, func(i int) { k.SignShare(message(i)) }), nil
}
