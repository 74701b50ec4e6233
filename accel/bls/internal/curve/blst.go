//go:build cgo

package curve

import (
	"sync"
	"unsafe"

	blst "github.com/supranational/blst/bindings/go"
)

// Blst is the engine of supranational/blst, C and assembly through cgo. Key generation, Public and Sign are
// constant-time. Its default build uses the ADX instructions without asking the CPU.
type Blst struct{}

// Engines are those of this build, the preferred one first: only blst's signs in constant time.
func Engines() []Engine {
	single()
	return []Engine{Blst{}, Portable{}}
}

// single keeps the binding from spreading sums and products over goroutines: whoever calls owns the cores, and more
// threads take more CPU time. The setting belongs to the binding and has no other user in this process.
var single = sync.OnceFunc(func() { blst.SetMaxProcs(1) })

// The two libraries' points have one layout; these don't compile if a size differs.
var (
	_ [unsafe.Sizeof(G1{})]byte    = [unsafe.Sizeof(blst.P1Affine{})]byte{}
	_ [unsafe.Sizeof(G1Jac{})]byte = [unsafe.Sizeof(blst.P1{})]byte{}
	_ [unsafe.Sizeof(G2{})]byte    = [unsafe.Sizeof(blst.P2Affine{})]byte{}
	_ [unsafe.Sizeof(G2Jac{})]byte = [unsafe.Sizeof(blst.P2{})]byte{}
	_ [unsafe.Sizeof(GT{})]byte    = [unsafe.Sizeof(blst.Fp12{})]byte{}
)

func asP1(p *G1) *blst.P1Affine { return (*blst.P1Affine)(unsafe.Pointer(p)) }
func asP2(p *G2) *blst.P2Affine { return (*blst.P2Affine)(unsafe.Pointer(p)) }

func asP1s(ps []G1) blst.P1Affines { return unsafe.Slice(asP1(unsafe.SliceData(ps)), len(ps)) }
func asP2s(ps []G2) blst.P2Affines { return unsafe.Slice(asP2(unsafe.SliceData(ps)), len(ps)) }

func fromP1(p *blst.P1) G1Jac          { return *(*G1Jac)(unsafe.Pointer(p)) }
func fromP2(p *blst.P2) G2Jac          { return *(*G2Jac)(unsafe.Pointer(p)) }
func fromP1Affine(p *blst.P1Affine) G1 { return *(*G1)(unsafe.Pointer(p)) }
func fromP2Affine(p *blst.P2Affine) G2 { return *(*G2)(unsafe.Pointer(p)) }

// Name implements Engine.
func (Blst) Name() string { return "blst" }

// NewSecret implements Engine.
func (Blst) NewSecret(ikm []byte) [32]byte {
	secret := blst.KeyGen(ikm)
	defer secret.Zeroize()
	return [32]byte(secret.Serialize())
}

// scalar is the secret in blst's form; the caller wipes it.
func scalar(secret *[32]byte) *blst.SecretKey {
	return new(blst.SecretKey).FromBEndian(secret[:])
}

// Public implements Engine.
func (Blst) Public(secret *[32]byte) G1 {
	s := scalar(secret)
	defer s.Zeroize()
	return fromP1Affine(new(blst.P1Affine).From(s))
}

// Sign implements Engine.
func (Blst) Sign(secret *[32]byte, msg, dst []byte) G2 {
	s := scalar(secret)
	defer s.Zeroize()
	return fromP2Affine(new(blst.P2Affine).Sign(s, msg, dst))
}

// DecodeG1 implements Engine.
func (Blst) DecodeG1(b *[48]byte) (G1, bool) {
	p := new(blst.P1Affine).Uncompress(b[:])
	if p == nil || !p.KeyValidate() {
		return G1{}, false
	}
	return fromP1Affine(p), true
}

// DecodeG2 implements Engine.
func (Blst) DecodeG2(b []byte) (G2, bool) {
	var p *blst.P2Affine
	switch {
	case len(b) == 96:
		p = new(blst.P2Affine).Uncompress(b)
	case len(b) == 192 && b[0]&flagCompressed == 0: // the binding takes a compressed point in longer input
		p = new(blst.P2Affine).Deserialize(b)
	}
	if p == nil {
		return G2{}, false
	}
	q := fromP2Affine(p)
	return q, !q.IsInfinity()
}

// InG2 implements Engine.
func (Blst) InG2(p *G2) bool { return asP2(p).InG2() }

// HashToG2 implements Engine.
func (Blst) HashToG2(msg, dst []byte) G2 {
	return fromP2Affine(blst.HashToG2(msg, dst).ToAffine())
}

// SumG1 implements Engine.
func (Blst) SumG1(ps []G1) G1Jac {
	if len(ps) == 0 {
		return G1Jac{}
	}
	return fromP1(asP1s(ps).Add())
}

// SumG2 implements Engine.
func (Blst) SumG2(ps []G2) G2Jac {
	if len(ps) == 0 {
		return G2Jac{}
	}
	return fromP2(asP2s(ps).Add())
}

// Pairing implements Engine.
func (Blst) Pairing(ps []G1, qs []G2) GT {
	if len(ps) == 0 || len(ps) != len(qs) {
		return GT{}
	}
	ctx, pairs := blst.PairingCtx(true, nil), 0
	for i := range ps {
		if !ps[i].IsInfinity() && !qs[i].IsInfinity() {
			blst.PairingRawAggregate(ctx, asP2(&qs[i]), asP1(&ps[i]))
			pairs++
		}
	}
	if pairs == 0 {
		return One()
	}
	blst.PairingCommit(ctx)
	f := blst.PairingAsFp12(ctx)
	f.FinalExp()
	return *(*GT)(unsafe.Pointer(f))
}
