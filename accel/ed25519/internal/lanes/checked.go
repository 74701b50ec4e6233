//go:build checked && amd64 && !purego

package lanes

import "fmt"

// carried panics if a limb exceeds what the generator assumes of elements in memory (carriedMax in gen/field.go).
func carried(elements ...*element) {
	for _, e := range elements {
		for i, limb := range e {
			for lane, word := range limb {
				if word > limbMost(i) {
					panic(fmt.Sprintf("lanes: limb %d of lane %d is %#x", i, lane, word))
				}
			}
		}
	}
}
