// Package lanes verifies Ed25519 signatures by the ZIP-215 rule, eight at a time in the eight 64-bit lanes of AVX-512
// registers, with the 52-bit multiply-add of the IFMA extension.
//
// In: keys, messages and signatures, each at most once decoded, hashed and judged here; keys of repeat senders expanded,
// if the caller keeps them. Out: a verdict each. A lane knows nothing of the others: what is bad in one, whether or not
// it decodes, changes no other verdict. Nothing is constant-time and nothing is fatal.
//
// The stages, in the order of Verifier.Verify:
//
//   - SHA-512(R || key || message), messages sorted by length so that lanes end together (sha512_amd64.go), and the
//     reduction modulo L, one by one in Go (scalar.go);
//   - decoding of keys and R, two batches of lanes side by side;
//   - u and v of half the size with u = v k modulo L (halve_amd64.go): 8(vS B - u A - v R) needs 128 doublings where
//     8(S B - k A - R) needs 256;
//   - tables of 0 to 8 times -A and -R, and the sum by Straus' method with signed digits, four bits for these and eight
//     for B and 2^128 B, whose multiples are constants. A known key has the tables of -A, -2^64 A, -2^128 A and
//     -2^192 A, and needs 64 doublings and neither its decoding nor u and v;
//   - is eight times the sum neutral? No inversion is needed for that.
//
// The assembly is written by the program in gen, which proves the bounds of all limbs as it writes (gen/field.go); the
// build with tag "checked" looks at them between any two functions.
//
// How fast it can be: a signature takes about 12,100 VPMADD52 of 512 bits (doublings 4,800, additions of multiples of A
// and R 3,000, of B 1,400, decoding 2,200, tables 700) and 27,000 vector instructions in all. So the multipliers allow
// 12,100 cycles where they take one a cycle (Zen 4, 3.3 microseconds at 3.7 GHz), and issue allows 6,700 where there are
// four 512-bit pipes with two multipliers (Zen 5, 2.1 microseconds at 3.2 GHz); 3.1 were measured on the latter, hashing
// included. Weighed and left out: 256 doublings with whole k (3.6 measured before the halving landed); larger tables of B (they leave the
// first-level cache and save under 3 %); one random combination for the whole batch, which would save about a third of
// a good batch and cost twice as much in a bad one.
package lanes
