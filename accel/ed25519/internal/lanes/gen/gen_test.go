package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestCommitted wants the files in the package's folder to be what the generator makes.
func TestCommitted(t *testing.T) {
	for name, want := range files() {
		got, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is stale: run go generate in the folder above", name)
		}
	}
}

// TestBounds is the canary of the generator's proof: it refuses steps that could lose bits.
func TestBounds(t *testing.T) {
	for name, step := range map[string]func(f *field){
		"a factor of 53 bits": func(f *field) {
			a := f.load(mem{base: "DI"})
			f.addTo(&a, a)
			f.mul(a, a, 0)
		},
		"a negative difference": func(f *field) {
			a, b := f.load(mem{base: "DI"}), f.load(mem{base: "SI"})
			f.subFrom(&a, b)
		},
		"a bias too small": func(f *field) {
			a, b := f.load(mem{base: "DI"}), f.load(mem{base: "SI"})
			f.plusBias(&a, 1)
			f.subFrom(&a, b)
		},
		"a sum of 65 bits": func(f *field) {
			a := f.load(mem{base: "DI"})
			for range 13 {
				f.addTo(&a, a)
			}
		},
		"a raw element stored": func(f *field) {
			a := f.load(mem{base: "DI"})
			f.store(f.sqr(a, 0), mem{base: "DI"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("emitted")
				}
			}()
			e := newEmitter()
			e.begin("test", "()", 0, 0)
			step(e.field())
		})
	}
}
