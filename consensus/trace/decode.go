package trace

import (
	"golang.org/x/crypto/cryptobyte"

	"tutti/consensus"
	"tutti/consensus/shred"
	"tutti/consensus/simplex"
)

func readHeader(s *cryptobyte.String) (*consensus.Header, error) {
	var n uint32
	var b []byte
	if !s.ReadUint32(&n) || n > uint32(consensus.MaxHeaderBytes) || !s.ReadBytes(&b, int(n)) {
		return nil, malformed("a header too short or too long")
	}
	h, err := consensus.DecodeHeader(b)
	if err != nil {
		return nil, malformed("a header: %v", err)
	}
	return h, nil
}

// readCert reads a certificate, the zero one for none.
func readCert(s *cryptobyte.String) (consensus.Certificate, error) {
	var n uint16
	var b []byte
	if !s.ReadUint16(&n) || !s.ReadBytes(&b, int(n)) {
		return consensus.Certificate{}, malformed("a certificate too short")
	}
	if n == 0 {
		return consensus.Certificate{}, nil
	}
	c, err := consensus.DecodeCertificate(b)
	if err != nil {
		return consensus.Certificate{}, malformed("a certificate: %v", err)
	}
	return *c, nil
}

func readVote(s *cryptobyte.String) (consensus.Vote, error) {
	var b []byte
	if !s.ReadBytes(&b, consensus.VoteBytes) {
		return consensus.Vote{}, malformed("a vote too short")
	}
	v, err := consensus.DecodeVote(b)
	if err != nil {
		return consensus.Vote{}, malformed("a vote: %v", err)
	}
	return *v, nil
}

// readBlock reads a block. Its body need not be the one that the header commits to: a machine may be told such a thing.
func readBlock(s *cryptobyte.String) (consensus.Block, error) {
	h, err := readHeader(s)
	if err != nil {
		return consensus.Block{}, err
	}
	var n uint32
	var body []byte
	if !s.ReadUint32(&n) || n > consensus.MaxBodyBytes || !s.ReadBytes(&body, int(n)) {
		return consensus.Block{}, malformed("a body too short or too long")
	}
	return consensus.Block{Header: h, Body: body}, nil
}

func readRecord(s *cryptobyte.String) (simplex.Record, error) {
	var kind uint8
	if !s.ReadUint8(&kind) {
		return simplex.Record{}, malformed("an empty record")
	}
	switch kind {
	case recordVote:
		v, err := readVote(s)
		return simplex.Record{Vote: &v}, err
	case recordCert:
		c, err := readCert(s)
		if err == nil && c.Kind == 0 {
			err = malformed("a record of no certificate")
		}
		return simplex.Record{Cert: &c}, err
	case recordFloor:
		var f simplex.Floor
		if s.ReadUint16((*uint16)(&f.Shard)) && s.ReadUint64((*uint64)(&f.Epoch)) && s.ReadUint64((*uint64)(&f.View)) {
			return simplex.Record{Floor: &f}, nil
		}
	}
	return simplex.Record{}, malformed("a record of kind %d", kind)
}

// readEvent reads an event, nil for the making of the machine. What was made from a body is made from it again, for
// the committee.
func readEvent(s *cryptobyte.String, c *consensus.Committee) (simplex.Event, error) {
	var kind, is uint8
	var from uint32
	var view uint64
	if !s.ReadUint8(&kind) || (kind >= eventProposal && kind <= eventFetched && !s.ReadUint32(&from)) ||
		((kind == eventBuilt || kind == eventTimer) && !s.ReadUint64(&view)) {
		return nil, malformed("an event too short")
	}
	sender := int(int32(from))
	switch kind {
	case eventNone:
		return nil, nil
	case eventProposal:
		v, err := readVote(s)
		if err != nil {
			return nil, err
		}
		bl, err := readBlock(s)
		return simplex.ProposalReceived{From: sender, Proposal: &consensus.Proposal{Block: bl, Vote: v}}, err
	case eventVote:
		v, err := readVote(s)
		return simplex.VoteReceived{From: sender, Vote: v}, err
	case eventCertificate:
		cert, err := readCert(s)
		if err == nil && cert.Kind == 0 {
			err = malformed("an event of no certificate")
		}
		return simplex.CertificateReceived{From: sender, Cert: cert}, err
	case eventFetched:
		cert, err := readCert(s)
		if err != nil {
			return nil, err
		}
		bl, err := readBlock(s)
		return simplex.BlockFetched{From: sender, Block: bl, Notarization: cert}, err
	case eventBuilt:
		built := simplex.Built{View: consensus.View(view)}
		if !s.ReadUint8(&is) || is > 1 {
			return nil, malformed("a built block or none")
		}
		if is == 0 {
			return built, nil
		}
		bl, err := readBlock(s)
		built.Block = &bl
		return built, err
	case eventJudged:
		var j simplex.Judged
		if !s.CopyBytes(j.Block[:]) || !s.ReadUint8(&is) || is > 1 {
			return nil, malformed("a verdict")
		}
		j.Valid = is == 1
		return j, nil
	case eventTimer:
		return simplex.TimerFired{View: consensus.View(view)}, nil
	case eventTick:
		return simplex.Tick{}, nil
	case eventSynced:
		h, err := readHeader(s)
		if err != nil {
			return nil, err
		}
		cert, err := readCert(s)
		return simplex.Synced{Header: h, Cert: cert}, err
	case eventPart:
		var n uint32
		var b []byte
		if !s.ReadUint32(&from) || !s.ReadUint32(&n) || n > shred.MaxPartBytes || !s.ReadBytes(&b, int(n)) {
			return nil, malformed("a part too short or too long")
		}
		p, err := shred.DecodePart(b)
		if err != nil {
			return nil, malformed("a part: %v", err)
		}
		return simplex.PartReceived{From: int(int32(from)), Part: p}, nil
	case eventRebuilt:
		var r simplex.Rebuilt
		var n uint32
		var body []byte
		if !s.CopyBytes(r.Block[:]) || !s.ReadUint8(&is) || is > 1 {
			return nil, malformed("a rebuilt body or none")
		}
		if is == 0 {
			return r, nil
		}
		if !s.ReadUint32(&n) || n > consensus.MaxBodyBytes || !s.ReadBytes(&body, int(n)) {
			return nil, malformed("a rebuilt body too short or too long")
		}
		set, err := shred.Cut(c, body)
		if err != nil {
			return nil, malformed("a rebuilt body: %v", err)
		}
		r.Shreds = set
		return r, nil
	}
	return nil, malformed("an event of kind %d", kind)
}
