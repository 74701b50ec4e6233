// Package tree holds tests about the repository itself, and nothing else: which folder may import which
// (imports_test.go), that every package says what it is and the source is tidy (tidy_test.go), and that every module
// in the build may be used commercially and is named in NOTICE (licence_test.go).
//
// The tests read the working tree and ask `go list` once. After a change of dependencies, rewrite NOTICE with
//
//	go test ./internal/tree -run TestNotice -update
package tree
