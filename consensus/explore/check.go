package explore

import (
	"fmt"

	"tutti/consensus"
)

// check looks at a whole world: at what honest validators said, with everything added that the faulty ones can say, and
// at what is final where.
func (x *explorer) check(world []uint32) error {
	var said set
	for j, at := range world {
		l := x.kins[x.of[j]].places[at]
		said.join(&l.sent)
		for k, other := range world[:j] {
			if a, b := l.root, x.kins[x.of[k]].places[other].root; !x.descends(a, b) && !x.descends(b, a) {
				return fmt.Errorf("agreement: %s final at validator %d, %s at %d", x.blockName(a), x.who[j], x.blockName(b), x.who[k])
			}
		}
	}
	var held []int
	for m, text := range x.messages {
		if text.kind == proposed || !said.has(m) || !x.quorum(world, m) {
			continue
		}
		for _, other := range held {
			if why := x.excludes(x.messages[other], text); why != "" {
				return fmt.Errorf("%s: %s and %s", why, x.messageName(x.messages[other]), x.messageName(text))
			}
		}
		if text.kind == consensus.Finalize && !x.blocks[text.block].valid {
			return fmt.Errorf("%s is final and invalid", x.blockName(text.block))
		}
		held = append(held, m)
	}
	return nil
}

// excludes says why there must not be certificates of both messages in one world, or "".
func (x *explorer) excludes(a, b message) string {
	if a.kind > b.kind {
		a, b = b, a
	}
	switch {
	case a.kind == consensus.Nullify && b.kind == consensus.Finalize && a.view == b.view:
		return "a view both nullified and final"
	case a.kind == consensus.Nullify || b.kind == consensus.Nullify:
		return ""
	case a.kind == consensus.Finalize && !x.descends(a.block, b.block) && !x.descends(b.block, a.block):
		return "agreement: two final blocks"
	case b.kind == consensus.Finalize && a.view > b.view && !x.descends(a.block, b.block):
		return "a notarized block above a final one that it does not descend from"
	}
	for p := a.block; p != 0; p = x.blocks[p].parent { // what is below a notarized block is notarized
		if q := x.ancestor(b.block, x.blocks[p].view); q != p && x.blocks[q].view == x.blocks[p].view {
			return "two blocks notarized in a view"
		}
	}
	return ""
}
