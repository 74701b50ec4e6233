package load

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestScheduleForOthers: what is due before a time is what Run emits until then, the last of it before that time.
func TestScheduleForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const length = 1500 * time.Millisecond
		s := Schedule{333}
		var emitted uint64
		if err := s.Run(t.Context(), time.Now(), length, 10*time.Millisecond, func(_, next uint64) { emitted = next }); err != nil {
			t.Fatal(err)
		}
		if n := s.DueBefore(length); emitted != n || s.Due(n-1) >= length || s.Due(n) < length {
			t.Errorf("%d emitted, %d due, the last at %s and the next at %s", emitted, n, s.Due(n-1), s.Due(n))
		}
	})
}
