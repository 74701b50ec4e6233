// Package distilltest makes distilled batches that are wrong, for tests. Right ones are package summed's.
package distilltest

import (
	"encoding/binary"

	"tutti/accel/distill"
)

// Unsigned makes a well-formed batch that nobody signed, of transfers by ascending sender. Its root begins with salt.
func Unsigned(salt byte, bodies ...[distill.BodyBytes]byte) (*distill.Batch, error) {
	b := binary.BigEndian.AppendUint32([]byte{1}, uint32(len(bodies)))
	b = append(b, make([]byte, 32+96)...)
	b[5] = salt
	for i := range bodies {
		b = append(b, bodies[i][:]...)
	}
	return distill.Decode(append(b, make([]byte, (len(bodies)+7)/8)...))
}
