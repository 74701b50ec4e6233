package tx

import "strings"

// The text form of an account id is 14 characters: 10 base32 digits, most significant first (the top two of their 50
// bits are zero), then 4 check characters. Ids are dense, so without the checks a slip of the finger would name a
// stranger. The checks are those of a Reed-Solomon code over GF(32), x^5+x^2+1, with roots 2, 4, 8 and 16, offset by
// textOffset so that a run of zeros is no id. Its distance is 5: up to four wrong characters, among them every swap of
// two, are always noticed, and a single wrong one is always found.
const (
	TextBytes  = idDigits + idChecks
	idDigits   = 10
	idChecks   = 4
	textDigits = "0123456789abcdefghjkmnpqrstvwxyz" // no i, l, o, u
)

var (
	textGenerator = [idChecks]byte{30, 6, 9, 17}   // (x-2)(x-4)(x-8)(x-16) below x^4, highest power first
	textOffset    = [idChecks]byte{26, 25, 26, 25} // arbitrary
)

type textWord [TextBytes]byte // symbols 0..31

// gfMul multiplies in GF(32).
func gfMul(a, b byte) (p byte) {
	for ; b != 0; b >>= 1 {
		if b&1 != 0 {
			p ^= a
		}
		if a <<= 1; a&32 != 0 {
			a ^= 0b100101
		}
	}
	return p
}

// remainder divides the polynomial with w's digits, times x^4, by the generator and adds w's check characters to the
// rest: zero for a word of the code.
func (w *textWord) remainder() (r [idChecks]byte) {
	for _, d := range w[:idDigits] {
		f := d ^ r[0]
		copy(r[:], r[1:])
		r[idChecks-1] = 0
		for i, g := range textGenerator {
			r[i] ^= gfMul(f, g)
		}
	}
	for i := range r {
		r[i] ^= w[idDigits+i]
	}
	return r
}

// valid reports whether w is the text of an id.
func (w *textWord) valid() bool { return w.remainder() == textOffset && w[0] < 8 }

func (w *textWord) String() string {
	b := make([]byte, TextBytes)
	for i, d := range w {
		b[i] = textDigits[d]
	}
	return string(b)
}

// correction is the id that differs from w in one character. The code's distance leaves at most one; foreign says that
// the character to change is the one at that place, or -1.
func (w *textWord) correction(foreign int) (string, bool) {
	for at := range w {
		if foreign >= 0 && at != foreign {
			continue
		}
		for d := range byte(len(textDigits)) {
			c := *w
			if c[at] = d; c.valid() {
				return c.String(), true
			}
		}
	}
	return "", false
}

// String is the text form. A value over 48 bits is no id and has none.
func (id ID) String() string {
	if id >= 1<<48 {
		return "no-account-id"
	}
	var w textWord
	for i := range idDigits {
		w[i] = byte(id>>(5*(idDigits-1-i))) & 31
	}
	r := w.remainder()
	for i := range r {
		w[idDigits+i] = r[i] ^ textOffset[i]
	}
	return w.String()
}

// ParseID reads the text form, in either case. A mistyped id is never taken for another one; the error says what to do
// and, if a single character is wrong, what the id must have been.
func ParseID(s string) (ID, error) {
	const what = "account id"
	if len(s) != TextBytes {
		return 0, malformed(what, "%d characters, an id has %d: copy the whole id and nothing else", len(s), TextBytes)
	}
	var w textWord
	foreign := -1
	for i := range w {
		d := strings.IndexByte(textDigits, lower(s[i]))
		if d < 0 && foreign >= 0 {
			return 0, malformed(what, "characters %d and %d are not used in ids: copy the id again from where it came from", foreign+1, i+1)
		}
		if d < 0 {
			foreign, d = i, 0
		}
		w[i] = byte(d)
	}
	if foreign < 0 && w.valid() {
		var id ID
		for _, d := range w[:idDigits] {
			id = id<<5 | ID(d)
		}
		return id, nil
	}
	meant, ok := w.correction(foreign)
	switch {
	case ok:
		return 0, malformed(what, "mistyped: did you mean %s? compare it with where it came from before you use it", meant)
	case foreign >= 0:
		return 0, malformed(what, "character %d is not used in ids, nor is that the only mistake: copy the id again from where it came from", foreign+1)
	}
	return 0, malformed(what, "more than one character is wrong: copy the id again from where it came from")
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// MarshalText gives the text form, also in JSON.
func (id ID) MarshalText() ([]byte, error) {
	if id >= 1<<48 {
		return nil, malformed("account id", "%d is over 48 bits", uint64(id))
	}
	return []byte(id.String()), nil
}

// UnmarshalText is ParseID.
func (id *ID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseID(string(b))
	return err
}
