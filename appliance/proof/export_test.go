package proof

// SetLimit makes t keep the records of so many epochs of a shard instead of MaxEpochs.
func (t *Trust) SetLimit(epochs int) { t.limit = epochs }

// Held is how many committees t keeps beside those of the genesis.
func (t *Trust) Held() int {
	n := len(t.recalled)
	for _, c := range t.chains {
		n += len(c.latest)
	}
	return n
}

// MostHeld is how many committees a Trust of one shard keeps at most.
const MostHeld = maxLatest + maxRecalled
