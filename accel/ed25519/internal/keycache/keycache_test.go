package keycache

import (
	"encoding/binary"
	"sync"
	"testing"
)

func key(n int) *[32]byte {
	var k [32]byte
	binary.LittleEndian.PutUint64(k[:], uint64(n))
	return &k
}

// TestTwice: a key is due at its second sight, once, with enough others.
func TestTwice(t *testing.T) {
	c := New[int](64, 2)
	for _, n := range []int{1, 2, 1, 1} {
		if due := c.Seen(key(n)); due != nil {
			t.Fatalf("after key %d: %v due", n, due)
		}
	}
	due := c.Seen(key(2))
	if len(due) != 2 || due[0] != *key(1) || due[1] != *key(2) {
		t.Fatalf("due %v, want 1 and 2", due)
	}
	if _, known := c.Get(key(1)); known {
		t.Error("known before Put")
	}
	c.Put(key(1), 10)
	if v, known := c.Get(key(1)); !known || v != 10 {
		t.Errorf("got %v, %v", v, known)
	}
	c.Put(key(1), 11)
	if v, _ := c.Get(key(1)); v != 11 {
		t.Errorf("got %v after a second Put", v)
	}
}

// TestBounded: what is used stays, the rest goes, and there are never more than Entries.
func TestBounded(t *testing.T) {
	c := New[int](1, 1)
	if c.Entries() != ways {
		t.Fatalf("room for %d", c.Entries())
	}
	for n := range 100 {
		c.Put(key(n), n)
		if _, known := c.Get(key(0)); !known {
			t.Fatalf("key 0, used all the time, is gone after %d", n)
		}
	}
	var left int
	for n := range 100 {
		if v, known := c.Get(key(n)); known {
			left++
			if v != n {
				t.Errorf("key %d has value %d", n, v)
			}
		}
	}
	if left != ways {
		t.Errorf("%d keys left of room for %d", left, ways)
	}
}

// TestNewKeys: a stream of keys that come once leaves nothing due.
func TestNewKeys(t *testing.T) {
	c := New[int](64, 1)
	var due int
	for n := range 10_000 {
		due += len(c.Seen(key(n)))
	}
	if due > 1 { // two of a set may share a fingerprint of 31 bits
		t.Errorf("%d keys due", due)
	}
}

func TestConcurrent(t *testing.T) {
	c := New[int](32, 4)
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for n := range 2000 {
				k := key(n % 50)
				if v, known := c.Get(k); known {
					if v != n%50 {
						t.Errorf("key %d has value %d", n%50, v)
					}
					continue
				}
				for _, d := range c.Seen(k) {
					c.Put(&d, int(binary.LittleEndian.Uint64(d[:])))
				}
			}
		})
	}
	wait.Wait()
}
