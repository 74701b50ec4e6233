package api

import (
	"encoding/binary"
	"fmt"
	"mime"
	"net/http"

	"golang.org/x/crypto/cryptobyte"

	"tutti/accel/bls"
	"tutti/consensus"
	"tutti/state/tx"
)

// MaxSigners is how many accounts one call of POST /v1/signers asks for at most.
const MaxSigners = 4096

// Signers is what a node says of accounts to a broker, who signs nothing for them: if it is wrong, so is the batch.
type Signers struct {
	Height   consensus.Height // the final tip that this is as of
	Accounts []Signer
}

// Signer is one account.
type Signer struct {
	Known   bool // it exists
	Nonce   uint32
	Balance uint64
	Key     [32]byte       // Ed25519
	BLS     *bls.PublicKey // nil: it can't sign batches
}

// Values of the kind byte.
const (
	signerUnknown = 0
	signerPlain   = 1
	signerBLS     = 2
)

const signerBytes = 1 + 4 + 8 + 32 + 48 + 48

// MaxSignersBytes is the length of the longest answer.
const MaxSignersBytes = 8 + MaxSigners*signerBytes

// AppendIDs appends account positions as POST /v1/signers takes them.
func AppendIDs(b []byte, ids []tx.ID) []byte {
	for _, id := range ids {
		b = binary.BigEndian.AppendUint16(b, id.Partition())
		b = binary.BigEndian.AppendUint32(b, id.Index())
	}
	return b
}

// decodeIDs reads 1 to MaxSigners account positions.
func decodeIDs(b []byte) ([]tx.ID, error) {
	if len(b) == 0 || len(b)%6 != 0 || len(b) > 6*MaxSigners {
		return nil, Refuse(Malformed, "%d bytes are not 1 to %d account positions of 6", len(b), MaxSigners)
	}
	ids := make([]tx.ID, 0, len(b)/6)
	for ; len(b) > 0; b = b[6:] {
		ids = append(ids, tx.MakeID(binary.BigEndian.Uint16(b), binary.BigEndian.Uint32(b[2:])))
	}
	return ids, nil
}

// Append appends the encoding: height 8, then for each account kind 1, and if it is not 0 nonce 4, balance 8, Ed25519 key 32,
// and if it is 2 BLS key 48, ordinate 48.
func (s *Signers) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(s.Height))
	for i := range s.Accounts {
		a := &s.Accounts[i]
		switch {
		case !a.Known:
			b = append(b, signerUnknown)
			continue
		case a.BLS == nil:
			b = append(b, signerPlain)
		default:
			b = append(b, signerBLS)
		}
		b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(b, a.Nonce), a.Balance)
		b = append(b, a.Key[:]...)
		if a.BLS != nil {
			key, ordinate := a.BLS.Bytes(), a.BLS.Ordinate()
			b = append(append(b, key[:]...), ordinate[:]...)
		}
	}
	return b
}

// DecodeSigners decodes exactly the answer of n accounts.
func DecodeSigners(b []byte, n int) (*Signers, error) {
	r := cryptobyte.String(b)
	var height uint64
	if n < 1 || n > MaxSigners || !r.ReadUint64(&height) {
		return nil, fmt.Errorf("api: %d bytes are no answer about %d accounts", len(b), n)
	}
	s := &Signers{Height: consensus.Height(height), Accounts: make([]Signer, n)}
	for i := range s.Accounts {
		a := &s.Accounts[i]
		var kind uint8
		if !r.ReadUint8(&kind) || kind > signerBLS {
			return nil, fmt.Errorf("api: account %d of %d is cut short or of kind %d", i, n, kind)
		}
		if kind == signerUnknown {
			continue
		}
		a.Known = true
		if !(r.ReadUint32(&a.Nonce) && r.ReadUint64(&a.Balance) && r.CopyBytes(a.Key[:])) {
			return nil, fmt.Errorf("api: account %d of %d is cut short", i, n)
		}
		if kind == signerPlain {
			continue
		}
		var key, ordinate [48]byte
		if !(r.CopyBytes(key[:]) && r.CopyBytes(ordinate[:])) {
			return nil, fmt.Errorf("api: account %d of %d is cut short", i, n)
		}
		k, err := bls.ParseChecked(key, ordinate)
		if err != nil {
			return nil, fmt.Errorf("api: account %d of %d: %w", i, n, err)
		}
		a.BLS = &k
	}
	if !r.Empty() {
		return nil, fmt.Errorf("api: %d bytes after %d accounts", len(r), n)
	}
	return s, nil
}

// signers tells a broker of its clients.
func (s *Server) signers(w http.ResponseWriter, r *http.Request) error {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/octet-stream" {
		return Refuse(UnsupportedType, "account positions go as application/octet-stream, it is %.60q", r.Header.Get("Content-Type"))
	}
	raw, err := s.read(w, r, 6*MaxSigners)
	if err != nil {
		return err
	}
	ids, err := decodeIDs(raw)
	if err != nil {
		return err
	}
	if err := s.limits.signers(r, len(ids)); err != nil {
		return err
	}
	found, err := s.backend.Signers(ids)
	if err != nil {
		return err
	}
	if len(found.Accounts) != len(ids) {
		return fmt.Errorf("backend told of %d accounts, asked for %d", len(found.Accounts), len(ids))
	}
	write(w, http.StatusOK, "application/octet-stream", found.Append(make([]byte, 0, 8+len(ids)*signerBytes)))
	return nil
}
