package ledger

import "time"

// How fast pages are stored if Options do not say: all of them in ten minutes, but no more than 64 a second, 1 MiB.
//
// A busy shard rewrites every page in each cycle. The storage engine then writes 4.2 bytes for a byte of pages (measured:
// its log 1, new tables 1, compactions 2.2), so a page a second costs 6 GB a day, and ten million accounts in ten minutes
// 390 GB. More accounts take longer cycles and not more bytes. An idle shard writes no pages after its first cycle.
//
// What longer cycles cost is a longer start: differences of up to two cycles are read. At 8,000 transfers a second, 32
// bytes each, ten minutes' cycles leave 300 MB of them to read and make again, beside 640 MB of pages at ten million
// accounts; both grow alike where there are more.
const (
	defaultPageCycle      = 10 * time.Minute
	defaultPagesPerSecond = 64
)

// pageCycle is how long a cycle over so many pages takes at least.
func (l *Ledger) pageCycle(total uint32) time.Duration {
	if l.o.PageCycle > 0 {
		return l.o.PageCycle
	}
	return max(defaultPageCycle, time.Duration(total)*time.Second/defaultPagesPerSecond)
}

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
