package ledger

// storedPages are pages of which is known that the store has them as they are at the base: not written again until they
// change, they make an idle shard's page cycle cost nothing. Nothing is known at first, so that the first cycle after a
// start rewrites all of them. A bit for each page: by slot, by page.
type storedPages [][]uint64

func (s storedPages) has(slot int, page uint32) bool {
	return slot < len(s) && int(page/64) < len(s[slot]) && s[slot][page/64]>>(page%64)&1 == 1
}

// add says that a page is being stored as of the base.
func (s *storedPages) add(slot int, page uint32) {
	for len(*s) <= slot {
		*s = append(*s, nil)
	}
	bits := &(*s)[slot]
	for len(*bits) <= int(page/64) {
		*bits = append(*bits, 0)
	}
	(*bits)[page/64] |= 1 << (page % 64)
}

// outdate takes out the pages that a block changes which becomes the base.
func (s storedPages) outdate(sections []section) {
	for i := range sections {
		k := &sections[i]
		if k.slot >= len(s) {
			continue
		}
		bits := s[k.slot]
		drop := func(index uint32) {
			if page := index >> pageLog; int(page/64) < len(bits) {
				bits[page/64] &^= 1 << (page % 64)
			}
		}
		for t := range k.touches() {
			drop(k.index(t))
		}
		for n := k.first(); n < k.next(); n++ {
			drop(n)
		}
	}
}
