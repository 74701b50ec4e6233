package blocklog

import (
	"cmp"
	"errors"
	"fmt"

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
	case r.Vote != nil && r.Cert == nil:
		return recordVote, r.Vote.Append(nil), nil
	case r.Cert != nil && r.Vote == nil:
		return recordCert, r.Cert.Append(nil), nil
	}
	return 0, nil, errors.New("blocklog: a record holds one vote or one certificate")
}

func decodeRecord(typ byte, meta []byte) (r simplex.Record, err error) {
	switch typ {
	case recordVote:
		r.Vote, err = consensus.DecodeVote(meta)
	case recordCert:
		r.Cert, err = consensus.DecodeCertificate(meta)
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

// compact replaces the file by one with only what a restart needs, and returns that. The new file is durable before it
// takes the old one's name, and its name before compact returns.
func (v *votes) compact() ([]simplex.Record, error) {
	var all []simplex.Record
	_, err := v.w.scan(true, func(rec record) error {
		r, err := decodeRecord(rec.typ, rec.meta)
		all = append(all, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	path := v.w.path
	number := v.w.id.number + 1
	if err := createFile(v.fs, path+tempSuffix, kindVotes, number); err != nil {
		return nil, err
	}
	w, err := openFile(v.fs, path+tempSuffix, kindVotes, number)
	if err != nil {
		return nil, err
	}
	kept := needed(all)
	if err := v.fill(w, kept); err != nil {
		return nil, errors.Join(err, w.close())
	}
	w.path = path
	old := v.w
	v.w, v.compacted = w, w.size
	return kept, old.close()
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
// last finalization; that finalization; and of each kind the own vote of the highest view, so that a validator restored
// from an old copy of its state still knows how far it had voted.
func needed(all []simplex.Record) []simplex.Record {
	var final consensus.Statement
	var highest [consensus.Finalize + 1]consensus.Statement
	for _, r := range all {
		if r.Cert != nil && r.Cert.Kind == consensus.Finalize && byView(r.Cert.Statement, final) > 0 {
			final = r.Cert.Statement
		}
		if r.Vote != nil && byView(r.Vote.Statement, highest[r.Vote.Kind]) > 0 {
			highest[r.Vote.Kind] = r.Vote.Statement
		}
	}
	type key struct {
		vote bool
		st   consensus.Statement
	}
	seen := map[key]bool{}
	var kept []simplex.Record
	for _, r := range all {
		k := key{vote: r.Vote != nil}
		if k.vote {
			k.st = r.Vote.Statement
		} else {
			k.st = r.Cert.Statement
		}
		need := byView(k.st, final) > 0 || !k.vote && k.st == final || k.vote && k.st == highest[k.st.Kind]
		if need && !seen[k] {
			seen[k] = true
			kept = append(kept, r)
		}
	}
	return kept
}
