package keys

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/scrypt"
)

// Cost is scrypt's n: the work and memory (n KiB) that one guess at a password takes.
type Cost int

const (
	CostStandard Cost = 1 << 18 // the standard's: 256 MiB, about a second
	CostDemo     Cost = 1 << 12 // 4 MiB, milliseconds: only for the keys of a throw-away local network
)

// Limits on what a keystore file may ask of this machine before its password is even checked.
const (
	MaxFileBytes = 16 << 10
	maxN         = 1 << 20
	maxR         = 32
	maxP         = 16
	maxMemory    = 512 << 20 // 128·n·r bytes
	maxWork      = 1 << 23   // n·r·p; the standard's parameters are 2^21
	maxC         = 1 << 23   // PBKDF2 rounds; the standard's are 2^18
	maxText      = 1 << 10   // description, path, uuid
)

// Errors of this package that callers tell apart.
var (
	ErrMalformed = errors.New("not a keystore that tutti can read")
	ErrPassword  = errors.New("the password is wrong or the file is damaged")
)

func malformed(format string, args ...any) error {
	return fmt.Errorf("keys: %w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// Keystore is one encrypted key, as its file says. It came from Decode or Seal, so its content is within limits.
type Keystore struct {
	file   file
	public []byte
	salt   []byte
	iv     []byte
	sealed []byte
	check  []byte
}

// The file's JSON. Fields of other tools are ignored.
type file struct {
	Crypto struct {
		KDF      module[kdfParams]    `json:"kdf"`
		Checksum module[struct{}]     `json:"checksum"`
		Cipher   module[cipherParams] `json:"cipher"`
	} `json:"crypto"`
	Description string `json:"description"`
	Pubkey      string `json:"pubkey"`
	Path        string `json:"path"`
	UUID        string `json:"uuid"`
	Version     int    `json:"version"`
	Tutti       *own   `json:"tutti,omitempty"`
}

type module[P any] struct {
	Function string `json:"function"`
	Params   P      `json:"params"`
	Message  string `json:"message"`
}

type kdfParams struct {
	DKLen int    `json:"dklen"`
	N     int    `json:"n,omitempty"`
	P     int    `json:"p,omitempty"`
	R     int    `json:"r,omitempty"`
	C     int    `json:"c,omitempty"`
	PRF   string `json:"prf,omitempty"`
	Salt  string `json:"salt"`
}

type cipherParams struct {
	IV string `json:"iv"`
}

// own is Tutti's field in the file.
type own struct {
	Type Type `json:"type"`
}

// Decode reads one keystore. It checks form and limits, not the password.
func Decode(b []byte) (*Keystore, error) {
	if len(b) > MaxFileBytes {
		return nil, malformed("%d bytes, limit %d", len(b), MaxFileBytes)
	}
	k := new(Keystore)
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&k.file); err != nil {
		return nil, malformed("%v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, malformed("something follows the JSON object")
	}
	f := &k.file
	if f.Version != 4 {
		return nil, malformed("version %d, only version 4 (EIP-2335) is known", f.Version)
	}
	if len(f.Description) > maxText || len(f.Path) > maxText || len(f.UUID) > maxText {
		return nil, malformed("description, path or uuid over %d bytes", maxText)
	}
	if n := k.Type().publicBytes(); n == 0 {
		return nil, malformed("%s: update tutti", k.Type().Title())
	} else if err := field(&k.public, "pubkey", f.Pubkey, n, n); err != nil {
		return nil, err
	}
	return k, k.checkCrypto()
}

// checkCrypto checks the crypto object against the limits and decodes its byte strings.
func (k *Keystore) checkCrypto() error {
	c := &k.file.Crypto
	p := c.KDF.Params
	switch c.KDF.Function {
	case "scrypt":
		if p.N < 2 || p.N > maxN || p.N&(p.N-1) != 0 || p.R < 1 || p.R > maxR || p.P < 1 || p.P > maxP ||
			128*p.N*p.R > maxMemory || p.N*p.R*p.P > maxWork {
			return malformed("scrypt with n=%d r=%d p=%d: n must be a power of two, and the whole within %d MiB and 4 times the standard's work",
				p.N, p.R, p.P, maxMemory>>20)
		}
	case "pbkdf2":
		if p.PRF != "hmac-sha256" || p.C < 1 || p.C > maxC {
			return malformed("pbkdf2 with prf=%q c=%d: need hmac-sha256 and 1 to %d rounds", p.PRF, p.C, maxC)
		}
	default:
		return malformed("kdf %q: scrypt and pbkdf2 are known", c.KDF.Function)
	}
	if p.DKLen != 32 {
		return malformed("dklen %d, need 32", p.DKLen)
	}
	if c.Checksum.Function != "sha256" || c.Cipher.Function != "aes-128-ctr" {
		return malformed("checksum %q and cipher %q: sha256 and aes-128-ctr are known", c.Checksum.Function, c.Cipher.Function)
	}
	return errors.Join(
		field(&k.salt, "salt", p.Salt, 8, 64),
		field(&k.iv, "iv", c.Cipher.Params.IV, aes.BlockSize, aes.BlockSize),
		field(&k.sealed, "cipher message", c.Cipher.Message, 32, 32),
		field(&k.check, "checksum message", c.Checksum.Message, sha256.Size, sha256.Size),
	)
}

// field decodes a byte string of least to most bytes into dst.
func field(dst *[]byte, name, text string, least, most int) error {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) < least || len(b) > most {
		return malformed("%s: need %d to %d bytes in hex", name, least, most)
	}
	*dst = b
	return nil
}

// Seal encrypts a key. The description is for people and stands in the file in clear.
func Seal(s *Secret, password Password, cost Cost, description string) (*Keystore, error) {
	return seal(s, password, cost, description, rand.Reader)
}

func seal(s *Secret, password Password, cost Cost, description string, random io.Reader) (*Keystore, error) {
	if len(description) > maxText {
		return nil, fmt.Errorf("keys: description of %d bytes: limit %d", len(description), maxText)
	}
	var salt [32]byte
	var iv, id [16]byte
	for _, b := range [][]byte{salt[:], iv[:], id[:]} {
		if _, err := io.ReadFull(random, b); err != nil {
			return nil, fmt.Errorf("keys: %w", err)
		}
	}
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80 // RFC 4122, version 4
	k := &Keystore{public: s.public, salt: salt[:], iv: iv[:]}
	f := &k.file
	f.Description, f.Pubkey, f.Version = description, hex.EncodeToString(s.public), 4
	f.UUID = fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	f.Tutti = &own{Type: s.kind}
	c := &f.Crypto
	c.KDF.Function, c.KDF.Params = "scrypt", kdfParams{DKLen: 32, N: int(cost), P: 1, R: 8, Salt: hex.EncodeToString(salt[:])}
	c.Cipher.Function, c.Cipher.Params.IV = "aes-128-ctr", hex.EncodeToString(iv[:])
	c.Checksum.Function = "sha256"
	dk, err := k.derive(password)
	if err != nil {
		return nil, err
	}
	if k.sealed, err = crypt(dk, iv[:], s.bytes[:]); err != nil {
		return nil, err
	}
	k.check = checksum(dk, k.sealed)
	c.Cipher.Message, c.Checksum.Message = hex.EncodeToString(k.sealed), hex.EncodeToString(k.check)
	return k, k.checkCrypto()
}

// Open decrypts the key. It fails with ErrPassword when the checksum does not match, and when the secret inside is not
// the one that belongs to the public key in the file. One call takes the time and memory of the file's Cost.
func (k *Keystore) Open(password Password) (*Secret, error) {
	dk, err := k.derive(password)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(checksum(dk, k.sealed), k.check) != 1 {
		return nil, fmt.Errorf("keys: %w", ErrPassword)
	}
	plain, err := crypt(dk, k.iv, k.sealed)
	if err != nil {
		return nil, err
	}
	s, err := FromBytes(k.Type(), [32]byte(plain))
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(s.public, k.public) {
		return nil, malformed("the secret is not the one of the public key %s: the file was tampered with", k.file.Pubkey)
	}
	return s, nil
}

// derive turns the password into the 32-byte decryption key.
func (k *Keystore) derive(password Password) (dk []byte, err error) {
	p := k.file.Crypto.KDF.Params
	if k.file.Crypto.KDF.Function == "pbkdf2" {
		dk, err = pbkdf2.Key(sha256.New, string(password.normal()), k.salt, p.C, 32)
	} else {
		dk, err = scrypt.Key(password.normal(), k.salt, p.N, p.R, p.P, 32)
	}
	if err != nil {
		return nil, fmt.Errorf("keys: derive: %w", err)
	}
	return dk, nil
}

// checksum covers the second half of the decryption key and the ciphertext.
func checksum(dk, sealed []byte) []byte {
	h := sha256.Sum256(append(append([]byte{}, dk[16:32]...), sealed...))
	return h[:]
}

// crypt encrypts or decrypts; counter mode is its own inverse.
func crypt(dk, iv, in []byte) ([]byte, error) {
	block, err := aes.NewCipher(dk[:16])
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	out := make([]byte, len(in))
	cipher.NewCTR(block, iv).XORKeyStream(out, in)
	return out, nil
}

// Encode is the file's content, indented, with a final newline.
func (k *Keystore) Encode() ([]byte, error) {
	b, err := json.MarshalIndent(&k.file, "", "  ")
	return append(b, '\n'), err
}

// Type is what the key is for; Voting for files of other tools, which do not say.
func (k *Keystore) Type() Type {
	if k.file.Tutti == nil {
		return Voting
	}
	return k.file.Tutti.Type
}

// Public is the public key; no password is needed. The caller must not modify it.
func (k *Keystore) Public() []byte { return k.public }

// Description is the file's text for people.
func (k *Keystore) Description() string { return k.file.Description }

// Weak reports that guessing the password costs less than the standard's parameters make it cost.
func (k *Keystore) Weak() bool {
	p := k.file.Crypto.KDF.Params
	if k.file.Crypto.KDF.Function == "pbkdf2" {
		return p.C < 1<<18
	}
	return p.N*p.R*p.P < int(CostStandard)*8
}
