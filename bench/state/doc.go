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
//
// # On a virtual machine
//
// A hypervisor that takes free memory back (free page reporting, a balloon) makes the first touch of a page cost 5 to 10 us
// of this machine's CPU time instead of about 0.3, and blocks, which pass through fresh memory in the page cache and the
// heap, seem 20 % slower and their worst twice as slow. The first row of the table shows it. What the engine itself costs
// is measured with the reporting off (/sys/module/page_reporting/parameters/page_reporting_order at 11) after all memory
// has been touched once.
package state
