// Package prefetch hides the time that memory takes to answer: a loop over things that lie far apart says a few turns ahead
// which one comes, and finds it at hand then.
//
// In: an address. Out: nothing; whether and when the line arrives is the CPU's affair. It can't fail, whatever the address.
package prefetch

import "unsafe"

// Ahead is a good number of turns for a loop that spends some ten nanoseconds on each: long enough for memory to answer,
// short enough for the line to be still there.
const Ahead = 12

// Line asks the CPU to have the cache line that p points into at hand soon. It changes nothing.
func Line[T any](p *T) { line(unsafe.Pointer(p)) }
