package proof

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"

	"tutti/consensus"
	"tutti/state/tx"
)

// Names of the file formats.
const (
	FinalityFormat   = "tutti-finality/1"
	AccountFormat    = "tutti-account/1"
	AccountsFormat   = "tutti-accounts/1"
	CreditFormat     = "tutti-credit/1"
	CheckpointFormat = "tutti-checkpoint/1"
	StateFormat      = "tutti-light/1"
)

// The JSON forms. Hex throughout; the statement repeats the evidence for people and must agree with it.
type (
	finalityFile struct {
		Format    string        `json:"format"`
		Statement Statement     `json:"statement"`
		Tx        Hex           `json:"transaction"` // signed envelope, wire form
		Success   bool          `json:"success"`
		Final     finalFile     `json:"final"`
		Inclusion inclusionFile `json:"inclusion"`
		Credit    *creditFile   `json:"credit,omitempty"`
	}
	creditFile struct {
		Format    string            `json:"format"`
		Receipt   Hex               `json:"receipt"`
		Source    consensus.ShardID `json:"source"`
		Sequence  uint64            `json:"sequence"`
		Outcome   string            `json:"outcome"`
		Final     finalFile         `json:"final"`
		Inclusion inclusionFile     `json:"inclusion"`
	}
	finalFile struct {
		Headers     []Hex `json:"headers"` // the block's own, then its descendants up to the one voted final
		Certificate Hex   `json:"certificate"`
	}
	inclusionFile struct {
		Index uint64   `json:"index"`
		Count uint64   `json:"count"`
		Path  []Digest `json:"path"`
	}
)

// MarshalJSON writes the file form.
func (f *Finality) MarshalJSON() ([]byte, error) {
	out := finalityFile{
		Format: FinalityFormat, Statement: f.Statement(), Tx: f.Tx.Append(nil), Success: f.Success,
		Final: f.Final.file(), Inclusion: f.Inclusion.file(),
	}
	if f.Credit != nil {
		c := f.Credit.file()
		out.Credit = &c
	}
	return json.Marshal(out)
}

// DecodeFinality decodes exactly one finality proof in its file form, at most MaxFileBytes. Nothing is verified
// beyond the form, and that the statement is the one the evidence makes.
func DecodeFinality(b []byte) (*Finality, error) {
	var in finalityFile
	if err := strict(b, MaxFileBytes, FinalityFormat, &in); err != nil {
		return nil, err
	}
	signed, err := tx.Decode(in.Tx)
	if err != nil {
		return nil, fmt.Errorf("proof: %w: %w", ErrMalformed, err)
	}
	f := &Finality{Tx: *signed, Success: in.Success}
	if f.Final, err = in.Final.decode(); err != nil {
		return nil, err
	}
	if f.Inclusion, err = in.Inclusion.decode(); err != nil {
		return nil, err
	}
	if in.Credit != nil {
		if f.Credit, err = in.Credit.decode(); err != nil {
			return nil, err
		}
	}
	if !reflect.DeepEqual(f.Statement(), in.Statement) {
		return nil, fail(ErrMalformed, "the statement is not the one that the evidence makes")
	}
	return f, nil
}

// MarshalJSON writes the file form.
func (c *Credit) MarshalJSON() ([]byte, error) { return json.Marshal(c.file()) }

// DecodeCredit decodes exactly one credit in its file form, at most MaxFileBytes. Nothing is verified.
func DecodeCredit(b []byte) (*Credit, error) {
	var in creditFile
	if err := strict(b, MaxFileBytes, CreditFormat, &in); err != nil {
		return nil, err
	}
	return in.decode()
}

func (c *Credit) file() creditFile {
	return creditFile{
		Format: CreditFormat, Receipt: c.Receipt.Append(nil), Source: c.Source, Sequence: c.Sequence,
		Outcome: c.Outcome.String(), Final: c.Final.file(), Inclusion: c.Inclusion.file(),
	}
}

func (in *creditFile) decode() (*Credit, error) {
	if in.Format != CreditFormat {
		return nil, fail(ErrMalformed, "the credit has format %q, this build knows %q", in.Format, CreditFormat)
	}
	r, err := tx.DecodeReceipt(in.Receipt)
	if err != nil {
		return nil, fmt.Errorf("proof: %w: %w", ErrMalformed, err)
	}
	c := &Credit{Consumed: Consumed{Source: in.Source, Sequence: in.Sequence, Receipt: *r}}
	for o := tx.Credited; o <= tx.Treasury; o++ {
		if o.String() == in.Outcome {
			c.Outcome = o
		}
	}
	if c.Outcome == 0 {
		return nil, fail(ErrMalformed, "unknown credit outcome %.20q", in.Outcome)
	}
	if c.Final, err = in.Final.decode(); err != nil {
		return nil, err
	}
	c.Inclusion, err = in.Inclusion.decode()
	return c, err
}

func (f *Final) file() finalFile {
	out := finalFile{Certificate: f.Cert.Append(nil)}
	for _, h := range f.Headers {
		out.Headers = append(out.Headers, h.Append(nil))
	}
	return out
}

func (in *finalFile) decode() (f Final, err error) {
	if len(in.Headers) == 0 || len(in.Headers) > 1+MaxDescendants {
		return f, fail(ErrMalformed, "need 1 to %d headers", 1+MaxDescendants)
	}
	for i, enc := range in.Headers {
		h, err := consensus.DecodeHeader(enc)
		if err != nil {
			return f, fmt.Errorf("proof: %w: header %d: %w", ErrMalformed, i, err)
		}
		f.Headers = append(f.Headers, h)
	}
	c, err := consensus.DecodeCertificate(in.Certificate)
	if err != nil {
		return f, fmt.Errorf("proof: %w: %w", ErrMalformed, err)
	}
	f.Cert = *c
	return f, nil
}

func (n *Inclusion) file() inclusionFile {
	out := inclusionFile{Index: n.Index, Count: n.Count, Path: make([]Digest, len(n.Path))}
	for i, h := range n.Path {
		out.Path[i] = h
	}
	return out
}

func (in *inclusionFile) decode() (Inclusion, error) {
	if len(in.Path) > MaxPath {
		return Inclusion{}, fail(ErrMalformed, "an inclusion path of %d hashes, limit %d", len(in.Path), MaxPath)
	}
	out := Inclusion{Index: in.Index, Count: in.Count, Path: make([][32]byte, len(in.Path))}
	for i, h := range in.Path {
		out.Path[i] = h
	}
	return out, nil
}

// strict decodes one JSON value of a known format into v. The format is looked at first, so that a file of a newer
// build is called that and not a file with unknown fields.
func strict(b []byte, limit int, want string, v any) error {
	if len(b) > limit {
		return fail(ErrMalformed, "%d bytes, limit %d", len(b), limit)
	}
	format, err := FormatOf(b)
	if err != nil {
		return err
	}
	if format != want {
		return fail(ErrMalformed, "format %.40q, need %q: another kind of file, or one of a newer tutti", format, want)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("proof: %w: %w", ErrMalformed, err)
	}
	return nil
}

// FormatOf is the name of the format of a JSON file, to choose its decoder by.
func FormatOf(b []byte) (string, error) {
	var head struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return "", fmt.Errorf("proof: %w: %w", ErrMalformed, err)
	}
	return head.Format, nil
}
