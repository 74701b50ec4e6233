package config

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"

	"github.com/BurntSushi/toml"

	"tutti/appliance/host"
)

// Write makes a new file at path with every option of c under its comment. Options at their default are commented
// out, so that a later version's better default takes effect. It never overwrites (fs.ErrExist).
func (c *Config) Write(path string) error {
	if err := c.Validate(); err != nil {
		return err
	}
	b, err := c.encode()
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	return host.CreateFile(path, b, 0o644)
}

func (c *Config) encode() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("# Options of a Tutti node. Lines that start with '#' and an option show its default: remove the '#' to change it.\n")
	d := Default()
	if err := writeSection(&b, "", reflect.ValueOf(*c), reflect.ValueOf(d)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// writeSection writes the plain options of a section, then its sub-sections and lists of tables.
func writeSection(b *bytes.Buffer, name string, v, defaults reflect.Value) error {
	var later []int
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Tag.Get("toml") == "-" {
			continue
		}
		if f.Type.Kind() == reflect.Struct || f.Type == reflect.TypeFor[[]Peer]() {
			later = append(later, i)
			continue
		}
		line, err := toml.Marshal(map[string]any{f.Tag.Get("toml"): v.Field(i).Interface()})
		if err != nil {
			return fmt.Errorf("%s%s: %w", name, f.Tag.Get("toml"), err)
		}
		b.WriteByte('\n')
		writeComment(b, f.Tag.Get("doc"))
		if reflect.DeepEqual(v.Field(i).Interface(), defaults.Field(i).Interface()) {
			b.WriteByte('#')
		}
		b.Write(line)
	}
	for _, i := range later {
		f := v.Type().Field(i)
		key := f.Tag.Get("toml")
		b.WriteByte('\n')
		writeComment(b, f.Tag.Get("doc"))
		if f.Type.Kind() == reflect.Struct {
			fmt.Fprintf(b, "[%s]\n", key)
			if err := writeSection(b, key+".", v.Field(i), defaults.Field(i)); err != nil {
				return err
			}
			continue
		}
		if v.Field(i).Len() == 0 {
			fmt.Fprintf(b, "#[[%s]]\n#node = \"%s\"\n#addrs = [\"%s\"]\n", key, strings.Repeat("0", 64), ListenAddrs("192.0.2.1", DefaultPort)[0])
			continue
		}
		tables, err := toml.Marshal(map[string]any{key: v.Field(i).Interface()})
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		b.Write(tables)
	}
	return nil
}

// writeComment writes text as comment lines of at most 100 columns.
func writeComment(b *bytes.Buffer, text string) {
	line := "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > 100 {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}
