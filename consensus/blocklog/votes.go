package blocklog

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// votes is the vote log. Only the writer touches it.
type votes struct {
	fs        vfs.FS
	dir       string
	limit     int64
	w         *file
	compacted int64 // size after the last rewrite
}

// openVotes reads the vote log, drops what no restart needs and writes the rest to a new file, so that what was read is
// durable whatever state a crash or a failed sync left the old file in.
func openVotes(o Options) (*votes, []simplex.Record, error) {
	w, err := openFile(o.FS, o.FS.PathJoin(o.Dir, votesName), kindVotes, 0)
	if err != nil {
		return nil, nil, err
	}
	v := &votes{fs: o.FS, dir: o.Dir, limit: o.VoteLogBytes, w: w}
	records, err := v.compact()
	if err != nil {
		return nil, nil, errors.Join(err, v.w.close())
	}
	return v, records, nil
}

// encodeRecord gives a record's type and meta.
func encodeRecord(r simplex.Record) (typ byte, meta []byte, err error) {
	switch {
	case r.Vote != nil && r.Cert == nil && r.Floor == nil:
		return recordVote, r.Vote.Append(nil), nil
	case r.Cert != nil && r.Vote == nil && r.Floor == nil:
		return recordCert, r.Cert.Append(nil), nil
	case r.Floor != nil && r.Vote == nil && r.Cert == nil:
		return recordFloor, appendFloor(nil, *r.Floor), nil
	}
	return 0, nil, errors.New("blocklog: a record holds one vote, one certificate or one floor")
}

func appendFloor(b []byte, f simplex.Floor) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(f.Shard))
	b = binary.BigEndian.AppendUint64(b, uint64(f.Epoch))
	return binary.BigEndian.AppendUint64(b, uint64(f.View))
}

func decodeFloor(b []byte) (*simplex.Floor, error) {
	if len(b) != 2+8+8 {
		return nil, fmt.Errorf("a vote floor of %d bytes", len(b))
	}
	be := binary.BigEndian
	return &simplex.Floor{
		Shard: consensus.ShardID(be.Uint16(b)), Epoch: consensus.Epoch(be.Uint64(b[2:])), View: consensus.View(be.Uint64(b[10:])),
	}, nil
}

func decodeRecord(typ byte, meta []byte) (r simplex.Record, err error) {
	switch typ {
	case recordVote:
		r.Vote, err = consensus.DecodeVote(meta)
	case recordCert:
		r.Cert, err = consensus.DecodeCertificate(meta)
	case recordFloor:
		r.Floor, err = decodeFloor(meta)
	default:
		err = fmt.Errorf("record type %d in a vote log", typ)
	}
	return r, err
}

func (v *votes) append(r simplex.Record) error {
	typ, meta, err := encodeRecord(r)
	if err != nil {
		return err
	}
	if typ == recordFloor {
		return errors.New("blocklog: a floor is not appended but set: SetFloor")
	}
	_, err = v.w.append(typ, meta, nil)
	return err
}

// sync makes the log durable, by a rewrite when it has grown too long.
func (v *votes) sync() error {
	if v.w.size > v.limit && v.w.size > 2*v.compacted {
		_, err := v.compact()
		return err
	}
	return v.w.sync()
}

// read decodes the whole log.
func (v *votes) read() (all []simplex.Record, err error) {
	_, err = v.w.scan(true, func(rec record) error {
		r, err := decodeRecord(rec.typ, rec.meta)
		all = append(all, r)
		return err
	})
	return all, err
}

// compact replaces the file by one with only what a restart needs, and returns that.
func (v *votes) compact() ([]simplex.Record, error) {
	all, err := v.read()
	if err != nil {
		return nil, err
	}
	kept := needed(all)
	return kept, v.replace(kept)
}

// setFloor replaces the file by one that begins with the floor, and returns what is in it.
func (v *votes) setFloor(f simplex.Floor, leading *consensus.Certificate) ([]simplex.Record, error) {
	all, err := v.read()
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(all, func(r simplex.Record) bool { return r.Vote != nil }) {
		return nil, ErrVoted
	}
	if leading != nil {
		all = append(all, simplex.Record{Cert: leading})
	}
	kept := needed(append(all, simplex.Record{Floor: &f}))
	return kept, v.replace(kept)
}

// protect replaces the file by one with the floor and the votes, and returns what is in it.
func (v *votes) protect(floor *simplex.Floor, cast []consensus.Vote) ([]simplex.Record, error) {
	all, err := v.read()
	if err != nil {
		return nil, err
	}
	if floor != nil {
		all = slices.DeleteFunc(all, func(r simplex.Record) bool {
			return r.Vote != nil && r.Vote.Epoch == floor.Epoch && r.Vote.View <= floor.View
		})
		all = append(all, simplex.Record{Floor: floor})
	}
	for i := range cast {
		all = append(all, simplex.Record{Vote: &cast[i]})
	}
	kept := needed(all)
	return kept, v.replace(kept)
}

// replace makes a file of these records the vote log. It is durable before it takes the old one's name, and its name
// before replace returns.
func (v *votes) replace(records []simplex.Record) error {
	path, number, version := v.w.path, v.w.id.number+1, byte(FormatVersion)
	if slices.ContainsFunc(records, func(r simplex.Record) bool { return r.Floor != nil }) {
		version = floorVersion
	}
	if err := createFile(v.fs, path+tempSuffix, kindVotes, version, number); err != nil {
		return err
	}
	w, err := openFile(v.fs, path+tempSuffix, kindVotes, number)
	if err != nil {
		return err
	}
	if err := v.fill(w, records); err != nil {
		return errors.Join(err, w.close())
	}
	w.path = path
	old := v.w
	v.w, v.compacted = w, w.size
	return old.close()
}

// fill writes records to w and gives it the vote log's name.
func (v *votes) fill(w *file, records []simplex.Record) error {
	for _, r := range records {
		typ, meta, err := encodeRecord(r)
		if err != nil {
			return err
		}
		if _, err := w.append(typ, meta, nil); err != nil {
			return err
		}
	}
	if err := w.sync(); err != nil {
		return err
	}
	if err := v.fs.Rename(w.path, v.w.path); err != nil {
		return &WriteError{"rename", w.path, err}
	}
	return syncDir(v.fs, v.dir)
}

func (v *votes) close() error { return v.w.close() }

// byView orders statements by epoch, then view.
func byView(a, b consensus.Statement) int {
	return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.View, b.View))
}

// needed picks what a restart needs, in log order and without repetitions: own votes and certificates of views above the
// last finalization; that finalization; of each kind the own vote of the highest view, so that a validator restored
// from an old copy of its state still knows how far it had voted; and the highest floor of each epoch while it is above the last
// finalization, from which on that bars the same votes (simplex, R8).
func needed(all []simplex.Record) []simplex.Record {
	var final consensus.Statement
	floors := map[consensus.Epoch]consensus.Statement{}
	var highest [consensus.Finalize + 1]consensus.Statement
	for _, r := range all {
		switch {
		case r.Cert != nil && r.Cert.Kind == consensus.Finalize && byView(r.Cert.Statement, final) > 0:
			final = r.Cert.Statement
		case r.Vote != nil && byView(r.Vote.Statement, highest[r.Vote.Kind]) > 0:
			highest[r.Vote.Kind] = r.Vote.Statement
		case r.Floor != nil && byView(floorAt(r.Floor), floors[r.Floor.Epoch]) > 0:
			floors[r.Floor.Epoch] = floorAt(r.Floor)
		}
	}
	type key struct {
		typ byte
		st  consensus.Statement
	}
	seen := map[key]bool{}
	var kept []simplex.Record
	for _, r := range all {
		var k key
		var need bool
		switch {
		case r.Vote != nil:
			k = key{recordVote, r.Vote.Statement}
			need = byView(k.st, final) > 0 || k.st == highest[k.st.Kind]
		case r.Cert != nil:
			k = key{recordCert, r.Cert.Statement}
			need = byView(k.st, final) > 0 || k.st == final
		case r.Floor != nil:
			k = key{recordFloor, floorAt(r.Floor)}
			need = byView(k.st, final) > 0 && k.st == floors[r.Floor.Epoch]
		}
		if need && !seen[k] {
			seen[k] = true
			kept = append(kept, r)
		}
	}
	return kept
}

// floorAt is a floor as a statement of no kind, to be ordered by view.
func floorAt(f *simplex.Floor) consensus.Statement {
	return consensus.Statement{Shard: f.Shard, Epoch: f.Epoch, View: f.View}
}
