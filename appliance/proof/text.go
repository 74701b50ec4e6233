package proof

import (
	"encoding/hex"
	"fmt"
)

// Digest is a 32-byte hash or key in text: 64 lower-case hex digits.
type Digest [32]byte

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText makes JSON show d as its text.
func (d Digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText reads exactly what MarshalText writes.
func (d *Digest) UnmarshalText(b []byte) error {
	raw, err := unhex(b)
	if err != nil {
		return err
	}
	if len(raw) != len(d) {
		return fmt.Errorf("need %d hex digits, got %d", 2*len(d), len(b))
	}
	*d = Digest(raw)
	return nil
}

// Hex is binary in text: lower-case hex.
type Hex []byte

// MarshalText makes JSON show h as its text.
func (h Hex) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// UnmarshalText reads exactly what MarshalText writes.
func (h *Hex) UnmarshalText(b []byte) (err error) {
	*h, err = unhex(b)
	return err
}

func unhex(b []byte) ([]byte, error) {
	for _, c := range b {
		if 'A' <= c && c <= 'F' {
			return nil, fmt.Errorf("hex digits must be lower-case")
		}
	}
	return hex.AppendDecode(nil, b)
}
