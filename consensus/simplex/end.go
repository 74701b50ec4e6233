package simplex

// ends reports whether a block ends this machine's epoch, or is an echo of one that does. The last block of the epoch before,
// as the first root, does not.
func (m *Machine) ends(b *block) bool {
	return b.Header.Ends() && b.Header.Epoch == m.c.Committee.Epoch
}

// end drops all that was above the epoch's last block, which is the root now, and tells the others once, if they were not
// told yet (R22).
func (m *Machine) end(told bool) {
	m.over, m.syncing = true, false
	m.drop(len(m.rounds))
	m.high, m.agreed = m.root, max(m.agreed, m.final.View)
	m.logCerts()
	if m.c.Index >= 0 && m.final.Kind != 0 && !told {
		final := m.final
		m.send(Outbound{To: ToAll, Cert: &final})
	}
}

// afterwards is a step of a machine whose epoch is over: it tells who is still in it, once between two Ticks, and nothing
// else (R22).
func (m *Machine) afterwards(e Event) {
	switch e := e.(type) {
	case VoteReceived:
		if i := int(e.Vote.Validator); i < m.n && i == e.From && i != m.c.Index && m.ours(e.Vote.Statement) {
			m.help(i, 0)
		}
	case Judged:
		m.onJudged(e)
	case Tick:
		for i := range m.helped {
			m.helped[i] = false
		}
	}
}

// ownFinal reports whether the root's finalization is of this epoch, and not what ended the one before.
func (m *Machine) ownFinal() bool {
	return m.final.Kind != 0 && m.final.Epoch == m.c.Committee.Epoch
}

// mayBeOver reports whether, for all that this machine knows, the last block of its epoch may be final (R17).
func (m *Machine) mayBeOver() bool {
	if m.over || !m.nullifiedBetween(m.high.view, m.view) {
		return true
	}
	for _, r := range m.rounds {
		if b := m.blocks[r.block]; !r.block.IsZero() && (b == nil || m.ends(b)) {
			return true
		}
	}
	return false
}
