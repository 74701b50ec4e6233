package keys

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"unicode/utf8"

	"golang.org/x/term"
	"golang.org/x/text/unicode/norm"
)

// Password opens keystores. It prints as a placeholder and never stands in an error. The zero Password opens nothing.
type Password struct {
	text *string // a pointer, so that printing a struct that holds a Password in a private field shows an address
}

// Limits of a password in bytes. The lower one is for passwords that a new key is sealed with.
const (
	MaxPassword    = 1024
	MinNewPassword = 8
)

// NewPassword takes a password as a user gave it.
func NewPassword(text string) (Password, error) {
	if text == "" || len(text) > MaxPassword || !utf8.ValidString(text) {
		return Password{}, fmt.Errorf("keys: a password is 1 to %d bytes of UTF-8 text", MaxPassword)
	}
	return Password{&text}, nil
}

// RandomPassword draws a password of 26 characters (128 bits or more), for machines that start unattended.
func RandomPassword() Password {
	text := rand.Text()
	return Password{&text}
}

// ForNew checks that the password is long enough to seal a new key with.
func (p Password) ForNew() error {
	if len(p.normal()) < MinNewPassword {
		return fmt.Errorf("keys: the password is shorter than %d characters: choose a longer one", MinNewPassword)
	}
	return nil
}

// normal is the password as EIP-2335 feeds it to the KDF: NFKD, then without C0, C1 and Delete, then UTF-8.
func (p Password) normal() []byte {
	if p.text == nil {
		return nil
	}
	out := make([]byte, 0, len(*p.text))
	for _, r := range norm.NFKD.String(*p.text) {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			continue
		}
		out = utf8.AppendRune(out, r)
	}
	return out
}

func (p Password) String() string { return "[password]" }

// GoString keeps the password out of %#v.
func (p Password) GoString() string { return p.String() }

// LogValue keeps the password out of logs.
func (p Password) LogValue() slog.Value { return slog.StringValue(p.String()) }

// ReadPasswordFile takes the first line of a file that only its owner may read.
func ReadPasswordFile(path string) (Password, error) {
	b, err := readPrivate(path, MaxPassword+2)
	if err != nil {
		return Password{}, err
	}
	line, rest, _ := bytes.Cut(b, []byte("\n"))
	if len(bytes.TrimSpace(rest)) > 0 {
		return Password{}, fmt.Errorf("keys: %s has more than one line: it must hold the password alone", path)
	}
	p, err := NewPassword(string(bytes.TrimSuffix(line, []byte("\r"))))
	if err != nil {
		return Password{}, fmt.Errorf("%w: look at %s", err, path)
	}
	return p, nil
}

// WritePasswordFile makes a new file, mode 0600, that ReadPasswordFile reads.
func WritePasswordFile(path string, p Password) error {
	if p.text == nil {
		return errors.New("keys: no password to write")
	}
	return createPrivate(path, append([]byte(*p.text), '\n'))
}

// ErrNoTerminal: a password was to be asked for, but nobody sits at a terminal.
var ErrNoTerminal = errors.New("keys: no terminal to ask for a password at")

// Prompt asks for a password at a terminal, without echo; the question goes to out. With twice it asks again and both
// must agree. It fails with ErrNoTerminal when in is not a terminal.
func Prompt(in *os.File, out io.Writer, question string, twice bool) (Password, error) {
	if !term.IsTerminal(int(in.Fd())) {
		return Password{}, ErrNoTerminal
	}
	ask := func(question string) (string, error) {
		fmt.Fprintf(out, "%s: ", question)
		b, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(out)
		if err != nil {
			return "", fmt.Errorf("keys: read password: %w", err)
		}
		return string(b), nil
	}
	text, err := ask(question)
	if err != nil {
		return Password{}, err
	}
	if twice {
		again, err := ask(question + " (again)")
		if err != nil {
			return Password{}, err
		}
		if again != text {
			return Password{}, errors.New("keys: the two passwords differ: try again")
		}
	}
	return NewPassword(text)
}
