package api

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"time"

	"tutti/accel/distill"
	"tutti/appliance/proof"
	"tutti/state/pool"
)

// batchBytesInWork bounds the bytes of batches that are being read and judged.
const batchBytesInWork = 16 << 20

// BatchAnswer is the answer of POST /v1/batches.
type BatchAnswer struct {
	Batch      proof.Digest `json:"batch"`      // its name: of root, signature, count and who the stragglers are
	Transfers  int          `json:"transfers"`  // in it; each has an id, and is asked for by that
	Stragglers int          `json:"stragglers"` // of them
}

// submitBatch takes one distilled batch.
func (s *Server) submitBatch(w http.ResponseWriter, r *http.Request) error {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/octet-stream" {
		return Refuse(UnsupportedType, "a batch goes as application/octet-stream, it is %.60q", r.Header.Get("Content-Type"))
	}
	limit := int64(s.opt.Params.MaxBatchBytes)
	size := limit
	if r.ContentLength >= 0 {
		size = min(size, r.ContentLength)
	}
	if !s.batchBytes.TryAcquire(size) {
		return &Error{Code: Busy, Detail: "batches of other clients are being judged", RetryAfter: time.Second}
	}
	defer s.batchBytes.Release(size)
	raw, err := s.read(w, r, limit)
	if err != nil {
		return err
	}
	b, err := distill.Decode(raw)
	if err != nil {
		return Refuse(Malformed, "%v", err)
	}
	if err := s.limits.batched(r, b); err != nil {
		return err
	}
	result := "accepted"
	err = s.backend.SubmitBatch(r.Context(), s.limits.source(r), b)
	if pool.Pooled(err) {
		err = nil
	}
	if err != nil {
		_, entry := describe(err)
		result = string(entry.Code)
	}
	s.opt.Counters.Transactions.WithLabelValues(result).Add(float64(b.Count()))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusAccepted, BatchAnswer{Batch: proof.Digest(pool.BatchName(b)), Transfers: b.Count(), Stragglers: b.Stragglers()})
}

// read reads a request's body.
func (s *Server) read(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, Refuse(TooLarge, "over %d bytes", tooLarge.Limit)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) { // on a busy machine no fault of the request's
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.opt.Timeout)) // the answer's is over, too
		return nil, &Error{Code: Busy, Detail: "the request did not arrive in time", RetryAfter: time.Second}
	}
	if err != nil {
		return nil, Refuse(Malformed, "the request ended early: %v", err)
	}
	return raw, nil
}
