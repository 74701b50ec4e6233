// Package state measures the state engine at full size: CPU time of a block from body to durable state, memory of an
// account, and start from disk, beside a serial and a naive way to do the same work, in one process and one run.
//
// All of it is in tests, because signatures are taken as checked there, which no product code may do: `make bench-state`
// runs them at 10 million accounts and blocks of 100,000 transfers, `go test` at toy size, so that they do not rot.
//
// # What is in the figure
//
// A block's CPU time is that of the whole process while the block is decoded, its transactions named, executed and
// hashed, its lists and its body hashed, the body appended to the block log and synced, and the block finalised: one
// durable batch with the slice of pages that is due after one second. Garbage collection and the storage engine's
// background work are in it. Drawing the transfers and making the body are not; their goroutine's CPU time is taken off.
package state
