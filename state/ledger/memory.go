package ledger

import "unsafe"

// Memory says in bytes what a ledger's memory is for.
type Memory struct {
	Records uint64 // of accounts
	Hashes  uint64 // the accounts tree within chunks, for accounts to come as well
	Room    uint64 // for records of accounts to come, in chunks that are begun
	Upper   uint64 // the accounts tree above chunks, as of the tip and as of the base
	Chunks  uint64 // which accounts and nodes changed
	Blocks  uint64 // differences of the last final block, those above it and one below, and what they replaced
}

// memory adds up what there is. mu is held.
func (l *Ledger) memory() Memory {
	var m Memory
	accounts, chunks := uint64(0), uint64(0)
	for i := range l.table.parts {
		p := &l.table.parts[i]
		accounts += uint64(p.next)
		chunks += uint64(len(p.chunks))
		m.Chunks += uint64(cap(p.chunks))*uint64(unsafe.Sizeof((*chunk)(nil))) + uint64(cap(p.log))*uint64(unsafe.Sizeof(before{}))
	}
	m.Records = accounts * RecordBytes
	m.Room = chunks*chunkAccounts*RecordBytes - m.Records
	m.Hashes = chunks * 2 * chunkGroups * 32
	m.Chunks += chunks * uint64(unsafe.Sizeof(chunk{}))
	m.Upper = 2 * l.view.bytes() // the tip's has the same nodes but for the last blocks' openings
	for _, b := range l.blocks {
		m.Blocks += b.bytes()
	}
	return m
}

// bytes is the memory of the nodes.
func (u *upper) bytes() uint64 {
	n := 0
	for i := range u.parts {
		for k := range u.parts[i] {
			n += cap(u.parts[i][k])
		}
	}
	for k := range u.top {
		n += cap(u.top[k])
	}
	return uint64(n) * uint64(unsafe.Sizeof(node{}))
}

// bytes is about the memory of a block, but for Executed.
func (b *block) bytes() uint64 {
	n := uint64(unsafe.Sizeof(*b)) + uint64(cap(b.head))
	for i := range b.sections {
		s := &b.sections[i]
		n += uint64(unsafe.Sizeof(*s)) + uint64(cap(s.bytes)) + uint64(cap(s.before))*uint64(unsafe.Sizeof(before{}))
	}
	for i := range b.nodes {
		n += uint64(cap(b.nodes[i])) * uint64(unsafe.Sizeof(chunkNode{}))
	}
	return n
}
