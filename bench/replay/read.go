package replay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"tutti/bench/report"
)

// MaxReport bounds a report's file.
const MaxReport = 96 << 20

// maxDepth bounds how deep a report's values lie in one another.
const maxDepth = 16

// Read reads a report, and refuses a file that somebody else could read otherwise: one with a field twice, whatever its case,
// or with fields that this build does not know.
func Read(b []byte) (*report.Report, error) {
	if len(b) > MaxReport {
		return nil, fmt.Errorf("replay: a report of %d bytes, limit %d", len(b), MaxReport)
	}
	var head struct {
		Schema string `json:"schema"`
	}
	if err := json.Unmarshal(b, &head); err == nil && head.Schema != report.Schema {
		return nil, fmt.Errorf("replay: the file has schema %.40q, this build knows %q: another kind of file, or one of a newer tutti", head.Schema, report.Schema)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if err := once(d, 0); err != nil {
		return nil, fmt.Errorf("replay: the report can not be read: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("replay: there is something after the report")
	}
	d = json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	r := &report.Report{}
	if err := d.Decode(r); err != nil {
		return nil, fmt.Errorf("replay: the report can not be read: %w: was it made by a newer tutti?", err)
	}
	return r, nil
}

// once reads one value and refuses an object that has a field twice.
func once(d *json.Decoder, depth int) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	if depth == maxDepth {
		return errors.New("its values lie too deep in one another")
	}
	seen := map[string]bool{}
	for d.More() {
		if open == '{' {
			t, err := d.Token()
			if err != nil {
				return err
			}
			name, _ := t.(string)
			folded := strings.ToLower(strings.ToUpper(name)) // as encoding/json takes one for the other
			if seen[folded] {
				return fmt.Errorf("it has the field %.40q twice", name)
			}
			seen[folded] = true
		}
		if err := once(d, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}
