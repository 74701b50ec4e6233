package explore

import "math/bits"

// states is the set of worlds seen, in the order they were found: the place of each honest machine, and the world that
// it was found from. It takes 4 bytes a machine and 10 more a world.
type states struct {
	width  int
	n      int
	chunks [][]uint32 // width places and a parent for each world
	index  []uint32   // open addressing; number of the world plus 1
}

const chunkStates = 1 << 16

func newStates(width int) *states {
	return &states{width: width, index: make([]uint32, 1<<12)}
}

func (s *states) at(i int) []uint32 {
	o := i % chunkStates * (s.width + 1)
	return s.chunks[i/chunkStates][o : o+s.width+1]
}

func (s *states) get(i int, world []uint32) { copy(world, s.at(i)) }

// parent is the world that one was found from, -1 for the first.
func (s *states) parent(i int) int { return int(s.at(i)[s.width]) - 1 }

func hash(world []uint32) (h uint64) {
	for _, p := range world {
		hi, lo := bits.Mul64(h^uint64(p)^0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93)
		h = hi ^ lo
	}
	return h
}

// add takes a world in. It reports whether it is new.
func (s *states) add(world []uint32, parent int) bool {
	mask := uint64(len(s.index) - 1)
	slot := hash(world) & mask
	for ; s.index[slot] != 0; slot = (slot + 1) & mask {
		if equal(s.at(int(s.index[slot]-1)), world) {
			return false
		}
	}
	if s.n%chunkStates == 0 {
		s.chunks = append(s.chunks, make([]uint32, chunkStates*(s.width+1)))
	}
	s.n++
	entry := s.at(s.n - 1)
	copy(entry, world)
	entry[s.width] = uint32(parent + 1)
	s.index[slot] = uint32(s.n)
	if 4*s.n > 3*len(s.index) {
		s.grow()
	}
	return true
}

func equal(entry, world []uint32) bool {
	for i, p := range world {
		if entry[i] != p {
			return false
		}
	}
	return true
}

func (s *states) grow() {
	s.index = make([]uint32, 2*len(s.index))
	mask := uint64(len(s.index) - 1)
	for i := range s.n {
		slot := hash(s.at(i)[:s.width]) & mask
		for s.index[slot] != 0 {
			slot = (slot + 1) & mask
		}
		s.index[slot] = uint32(i + 1)
	}
}
