package bls

import (
	"slices"
	"sync"

	"tutti/accel/bls/internal/curve"
	"tutti/accel/bls/internal/keysum"
	"tutti/accel/internal/selftest"
)

// SelfTest tells which engines, and which ways to add keys up, gave the known answers in this process and which are in
// use. The first call, or the first use of the package, does the work (about 30 ms).
func SelfTest() []selftest.Verdict { return slices.Concat(engines().Verdicts(), adders().Verdicts()) }

// engine is the one in use.
func engine() curve.Engine { return engines().For(1) }

// engines holds the one in use.
var engines = sync.OnceValue(func() *selftest.Table[curve.Engine] { return pick(curve.Engines()) })

// pick takes the first engine that passes, not the fastest: they verify about equally fast, and blst's, which comes
// first, signs in constant time.
func pick(candidates []curve.Engine) *selftest.Table[curve.Engine] {
	var set *KeySet // that of the first key, made by the engine that passed last
	sig := array96(published.signatures[0])
	op := selftest.Operation[curve.Engine]{
		Name: "bls vote", Item: "verification", Sizes: []int{1}, First: true,
		Check: func(e curve.Engine) (err error) {
			if err := check(e, published); err != nil {
				return err
			}
			set, err = newKeySet(e, [][48]byte{array48(published.keys[0])})
			return err
		},
		Work: func(curve.Engine, int) { set.Verify(0, published.message, sig) },
		None: refuse{},
	}
	return selftest.Choose(op, candidates...)
}

// adders says which way to add many keys up is the fastest, of those that pass with the engine in use. It is measured at
// one size, because a directory keeps its keys in one adder's form.
var adders = sync.OnceValue(func() *selftest.Table[keysum.Adder] {
	keys, rows := sumKeys(), map[string][]keysum.Row{} // by adder, when its check has passed
	op := selftest.Operation[keysum.Adder]{
		Name: "bls key sum", Item: "key", Sizes: []int{len(keys)},
		Check: func(a keysum.Adder) error {
			if err := checkAdder(a, keys, sumAnswers); err != nil {
				return err
			}
			rows[a.Name()] = pack(a, keys)
			return nil
		},
		Work: func(a keysum.Adder, n int) {
			load := rows[a.Name()]
			a.Sum(n, func(i int) *keysum.Row { return &load[i] })
		},
		None: keysum.Plain{Engine: refuse{}},
	}
	return selftest.Choose(op, keysum.Candidates(engine())...)
})

// refuse stands in when no engine passes on this machine: it decodes nothing, so that nothing verifies, and signs with
// infinity, which nobody accepts. SelfTest tells why and the node does not start.
type refuse struct{}

func (refuse) Name() string                                       { return "none" }
func (refuse) NewSecret([]byte) [32]byte                          { return [32]byte{} }
func (refuse) Public(*[32]byte) curve.G1                          { return curve.G1{} }
func (refuse) Sign(*[32]byte, []byte, []byte) curve.G2            { return curve.G2{} }
func (refuse) DecodeG1(*[48]byte) (curve.G1, bool)                { return curve.G1{}, false }
func (refuse) DecodeG2([]byte) (curve.G2, bool)                   { return curve.G2{}, false }
func (refuse) InG2(*curve.G2) bool                                { return false }
func (refuse) HashToG2([]byte, []byte) curve.G2                   { return curve.G2{} }
func (refuse) SumG1([]curve.G1) curve.G1Jac                       { return curve.G1Jac{} }
func (refuse) SumG2([]curve.G2) curve.G2Jac                       { return curve.G2Jac{} }
func (refuse) Pairing(_ []curve.G1, _ []curve.G2) (none curve.GT) { return none }
