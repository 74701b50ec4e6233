package main

import (
	"bytes"
	"os"
	"testing"
)

// TestCommitted: the committed kernels are what this generator writes.
func TestCommitted(t *testing.T) {
	want, err := os.ReadFile("../../sha_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(generate(), want) {
		t.Error("sha_amd64.s is out of date: run go generate ./accel/merkle")
	}
}
