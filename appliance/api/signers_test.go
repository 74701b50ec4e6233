package api_test

import (
	"bytes"
	"encoding/hex"
	"testing"

	"tutti/accel/bls"
	"tutti/appliance/api"
	"tutti/state/tx"
)

func signer(t testing.TB) *bls.PublicKey {
	t.Helper()
	secret, err := bls.NewSecretKey(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	k, err := bls.ParsePublicKey(secret.Public())
	if err != nil {
		t.Fatal(err)
	}
	return &k
}

// TestSigners: a broker's question and its answer have these bytes for ever, and are read as they were written.
func TestSigners(t *testing.T) {
	k := signer(t)
	s := api.Signers{Height: 300, Accounts: []api.Signer{{}, {Known: true, Nonce: 5, Balance: 1 << 40, Key: [32]byte{9}}, {Known: true, Nonce: 6, Balance: 7, Key: [32]byte{8}, BLS: k}}}
	key, ordinate := k.Bytes(), k.Ordinate()
	want := "000000000000012c" + "00" + "01" + "00000005" + "0000010000000000" + "09" + hex.EncodeToString(make([]byte, 31)) +
		"02" + "00000006" + "0000000000000007" + "08" + hex.EncodeToString(make([]byte, 31)) + hex.EncodeToString(key[:]) + hex.EncodeToString(ordinate[:])
	b := s.Append(nil)
	if hex.EncodeToString(b) != want {
		t.Errorf("encoded as %x", b)
	}
	got, err := api.DecodeSigners(b, 3)
	if err != nil || got.Height != 300 || got.Accounts[1] != s.Accounts[1] || got.Accounts[0].Known || got.Accounts[2].BLS.Bytes() != key {
		t.Errorf("%+v, %v", got, err)
	}
	for n := range b {
		if _, err := api.DecodeSigners(b[:n], 3); err == nil {
			t.Errorf("%d bytes of it are read", n)
		}
	}
	for name, wrong := range map[string][]byte{
		"more behind it": append(bytes.Clone(b), 0),
		"a kind":         append(bytes.Clone(b[:8]), 3, 0, 0),
		"no key":         append(bytes.Clone(b[:len(b)-1]), ordinate[47]^1),
	} {
		if _, err := api.DecodeSigners(wrong, 3); err == nil {
			t.Errorf("%s is read", name)
		}
	}
	for _, n := range []int{0, 2, 4, api.MaxSigners + 1} {
		if _, err := api.DecodeSigners(b, n); err == nil {
			t.Errorf("an answer about 3 accounts is read as one about %d", n)
		}
	}
	if ids := api.AppendIDs(nil, []tx.ID{tx.MakeID(0x0102, 0x03040506)}); hex.EncodeToString(ids) != "010203040506" {
		t.Errorf("an id is %x", ids)
	}
}

func FuzzSigners(f *testing.F) {
	s := api.Signers{Height: 300, Accounts: []api.Signer{{}, {Known: true, Nonce: 5}, {Known: true, BLS: signer(f)}}}
	f.Add(s.Append(nil), uint16(3))
	f.Fuzz(func(t *testing.T, b []byte, n uint16) {
		got, err := api.DecodeSigners(b, int(n))
		if err == nil && !bytes.Equal(got.Append(nil), b) {
			t.Errorf("%x is read as %+v", b, got)
		}
	})
}

// TestSignersCall: a node tells of the accounts of its shard, in the order asked, and refuses what it can't answer.
func TestSignersCall(t *testing.T) {
	_, w := start(t, func(o *api.Options) { o.Rates.ClientBatched = 1e-9 }) // a full batch's worth of tokens, and no more
	known, unknown := w.net.Account(w.backend.Shard, 3), w.net.Account(w.backend.Shard, 4)
	w.backend.SetSigner(known, api.Signer{Known: true, Nonce: 5, BLS: signer(t)})
	a := w.do(t, "POST", "/v1/signers", asBinary, api.AppendIDs(nil, []tx.ID{unknown, known}))
	got, err := api.DecodeSigners(a.body, 2)
	if err != nil || a.status != 200 || got.Accounts[0].Known || got.Accounts[1].Nonce != 5 || got.Accounts[1].BLS == nil {
		t.Errorf("%d, %+v, %v", a.status, got, err)
	}
	foreign := w.net.Account(w.backend.Shard+1, 3)
	for name, tc := range map[string]struct {
		contentType string
		body        []byte
		status      int
	}{
		"json":          {asJSON, api.AppendIDs(nil, []tx.ID{known}), 415},
		"nothing":       {asBinary, nil, 400},
		"half an id":    {asBinary, make([]byte, 7), 400},
		"too many":      {asBinary, make([]byte, 6*(api.MaxSigners+1)), 413},
		"another shard": {asBinary, api.AppendIDs(nil, []tx.ID{foreign}), 421},
	} {
		if a := w.do(t, "POST", "/v1/signers", tc.contentType, tc.body); a.status != tc.status {
			t.Errorf("%s: %d, %s", name, a.status, a.body)
		}
	}
	limited := false
	for range 20 {
		a := w.do(t, "POST", "/v1/signers", asBinary, bytes.Repeat(api.AppendIDs(nil, []tx.ID{known}), api.MaxSigners))
		limited = limited || a.status == 429
	}
	if !limited {
		t.Error("there is no limit")
	}
}
