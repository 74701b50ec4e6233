package api_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"tutti/appliance/api"
	"tutti/appliance/proof"
)

// document is the part of openapi.yaml that the tests hold to the code.
type document struct {
	Paths      map[string]map[string]operation `yaml:"paths"`
	Components struct {
		Schemas    map[string]schema    `yaml:"schemas"`
		Parameters map[string]parameter `yaml:"parameters"`
	} `yaml:"components"`
}

type operation struct {
	Parameters []parameter `yaml:"parameters"`
	Responses  map[string]struct {
		Ref     string `yaml:"$ref"`
		Content map[string]struct {
			Schema schema `yaml:"schema"`
		} `yaml:"content"`
	} `yaml:"responses"`
}

type parameter struct {
	Ref  string `yaml:"$ref"`
	Name string `yaml:"name"`
	In   string `yaml:"in"`
}

type schema struct {
	Ref        string            `yaml:"$ref"`
	Type       string            `yaml:"type"`
	Pattern    string            `yaml:"pattern"`
	Const      string            `yaml:"const"`
	Enum       []string          `yaml:"enum"`
	Required   []string          `yaml:"required"`
	Properties map[string]schema `yaml:"properties"`
	Items      *schema           `yaml:"items"`
}

func load(t *testing.T) *document {
	t.Helper()
	var d document
	if err := yaml.Unmarshal(api.OpenAPI(), &d); err != nil {
		t.Fatal(err)
	}
	return &d
}

func (d *document) resolve(s schema) schema {
	for s.Ref != "" {
		s = d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
	}
	return s
}

// check says how a decoded JSON value differs from a schema.
func (d *document) check(s schema, v any, at string) error {
	s = d.resolve(s)
	is := func(ok bool) error {
		if !ok {
			return fmt.Errorf("%s: %v is no %s", at, v, s.Type)
		}
		return nil
	}
	switch s.Type {
	case "object":
		m, ok := v.(map[string]any)
		if !ok {
			return is(false)
		}
		for _, name := range s.Required {
			if _, ok := m[name]; !ok {
				return fmt.Errorf("%s: %s is missing", at, name)
			}
		}
		for name, inner := range m {
			p, ok := s.Properties[name]
			if !ok {
				return fmt.Errorf("%s: %s is not described", at, name)
			}
			if err := d.check(p, inner, at+"."+name); err != nil {
				return err
			}
		}
		return nil
	case "array":
		list, ok := v.([]any)
		if !ok {
			return is(false)
		}
		for i, inner := range list {
			if err := d.check(*s.Items, inner, fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
		return nil
	case "string":
		text, ok := v.(string)
		ok = ok && (s.Pattern == "" || regexp.MustCompile(s.Pattern).MatchString(text)) && (s.Const == "" || s.Const == text)
		return is(ok && (s.Enum == nil || slices.Contains(s.Enum, text)))
	case "integer", "number":
		_, ok := v.(float64)
		return is(ok)
	case "boolean":
		_, ok := v.(bool)
		return is(ok)
	}
	return fmt.Errorf("%s: the schema has no type that is known: %+v", at, s)
}

// checkAnswer holds an answer of a route to its description.
func (d *document) checkAnswer(t *testing.T, method, pattern, status string, body []byte) {
	t.Helper()
	op, ok := d.Paths[pattern][strings.ToLower(method)]
	if !ok {
		t.Errorf("%s %s is not described", method, pattern)
		return
	}
	s := schema{Ref: "#/components/schemas/Answer"}
	if r, ok := op.Responses[status]; ok {
		if s = r.Content["application/json"].Schema; reflect.DeepEqual(s, schema{}) {
			return // not JSON
		}
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Errorf("%s %s: %v", method, pattern, err)
	} else if err := d.check(s, v, method+" "+pattern); err != nil {
		t.Error(err)
	}
}

func TestOpenAPIRoutes(t *testing.T) {
	d := load(t)
	s, _ := start(t, nil)
	var described []string
	queries := api.Queries(s)
	for path, ops := range d.Paths {
		for method, op := range ops {
			route := strings.ToUpper(method) + " " + path
			described = append(described, route)
			var inQuery, inPath []string
			for _, p := range op.Parameters {
				if p.Ref != "" {
					p = d.Components.Parameters[strings.TrimPrefix(p.Ref, "#/components/parameters/")]
				}
				if p.In == "query" {
					inQuery = append(inQuery, p.Name)
				} else {
					inPath = append(inPath, "{"+p.Name+"}")
				}
			}
			if !slices.Equal(inQuery, queries[route]) {
				t.Errorf("%s describes the parameters %q, the server knows %q", route, inQuery, queries[route])
			}
			if want := regexp.MustCompile(`{\w+}`).FindAllString(path, -1); !slices.Equal(inPath, want) {
				t.Errorf("%s describes %q in its path", route, inPath)
			}
			for status, r := range op.Responses {
				for _, c := range r.Content {
					if c.Schema.Ref != "" && d.resolve(c.Schema).Type == "" {
						t.Errorf("%s, %s: %s does not exist", route, status, c.Schema.Ref)
					}
				}
			}
		}
	}
	var registered []string
	for _, r := range api.Routes(s) {
		if r != "GET /v1/" { // the answer to addresses that do not exist
			registered = append(registered, r)
		}
	}
	slices.Sort(described)
	slices.Sort(registered)
	if !slices.Equal(described, registered) {
		t.Errorf("described:  %q\nregistered: %q", described, registered)
	}
}

// TestOpenAPIStructs compares every struct that travels as JSON with its schema, both ways.
func TestOpenAPIStructs(t *testing.T) {
	d := load(t)
	structs := map[string]any{
		"Answer": api.Answer{}, "ErrorBody": api.ErrorBody{}, "Refusal": api.Refusal{}, "SubmitTransaction": api.SubmitTransaction{},
		"SubmitAnswer": api.SubmitAnswer{}, "BatchAnswer": api.BatchAnswer{}, "Result": api.Result{}, "Transaction": api.Transaction{}, "CreditPlace": api.CreditPlace{},
		"Account": api.Account{}, "Block": api.Block{}, "HelloEvent": api.HelloEvent{}, "FinalEvent": api.FinalEvent{},
		"Status": api.Status{}, "EpochStatus": api.EpochStatus{}, "SyncStatus": api.SyncStatus{}, "SyncPeer": api.SyncPeer{}, "Quantiles": api.Quantiles{}, "Bucket": api.Bucket{}, "PoolStatus": api.PoolStatus{},
		"Supply": api.Supply{}, "Memory": api.Memory{}, "MemoryKind": api.MemoryKind{}, "Writes": api.Writes{}, "WriteRate": api.WriteRate{}, "ValidatorStatus": api.ValidatorStatus{}, "LinkStatus": api.LinkStatus{},
		"Network": api.Network{}, "ShardStatus": api.ShardStatus{}, "NodeAPI": api.NodeAPI{}, "Params": api.Params{},
		"Evidence": api.Evidence{}, "EvidenceProof": api.EvidenceProof{}, "AccusedValidator": api.AccusedValidator{},
		"Handovers": api.Handovers{}, "Handover": api.Handover{},
		"Statement": proof.Statement{}, "CreditStatement": proof.CreditStatement{}, "Where": proof.Where{},
	}
	// made by MarshalJSON of package proof; TestRoutes holds their answers to the schemas
	files := []string{"FinalityProof", "CreditProof", "AccountProof", "AccountsProof", "Final", "Inclusion"}
	for name, s := range d.Components.Schemas {
		v, ok := structs[name]
		if !ok {
			if s.Type == "object" && !slices.Contains(files, name) {
				t.Errorf("schema %s is of no struct", name)
			}
			continue
		}
		compare(t, d, name, s, reflect.TypeOf(v))
	}
	for name := range structs {
		if _, ok := d.Components.Schemas[name]; !ok {
			t.Errorf("%s is not described", name)
		}
	}
}

func compare(t *testing.T, d *document, name string, s schema, of reflect.Type) {
	t.Helper()
	seen := map[string]bool{}
	for i := range of.NumField() {
		f := of.Field(i)
		field, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		seen[field] = true
		p, ok := s.Properties[field]
		if !ok {
			t.Errorf("%s.%s is not described", name, field)
			continue
		}
		if got, want := d.resolve(p).Type, kindOf(f.Type, options); got != want {
			t.Errorf("%s.%s is described as %s and is %s", name, field, got, want)
		}
		if optional := strings.Contains(options, "omit"); optional == slices.Contains(s.Required, field) {
			t.Errorf("%s.%s: required and omitempty do not fit", name, field)
		}
	}
	for field := range s.Properties {
		if !seen[field] {
			t.Errorf("%s.%s is described and does not exist", name, field)
		}
	}
}

// kindOf is the JSON type of a Go type.
func kindOf(t reflect.Type, options string) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	text := reflect.TypeFor[interface{ MarshalText() ([]byte, error) }]()
	switch {
	case strings.Contains(options, "string"), t.Implements(text), t == reflect.TypeFor[api.Units](), t == reflect.TypeFor[[]byte]():
		return "string"
	case t.Kind() == reflect.Struct:
		return "object"
	case t.Kind() == reflect.Slice:
		return "array"
	case t.Kind() == reflect.String:
		return "string"
	case t.Kind() == reflect.Bool:
		return "boolean"
	case t.Kind() == reflect.Float64:
		return "number"
	}
	return "integer"
}

func TestOpenAPICodes(t *testing.T) {
	var codes []string
	for _, r := range api.Refusals() {
		codes = append(codes, string(r.Code))
	}
	if got := load(t).Components.Schemas["Code"].Enum; !slices.Equal(got, codes) {
		t.Errorf("described: %q\nin the table: %q", got, codes)
	}
}
