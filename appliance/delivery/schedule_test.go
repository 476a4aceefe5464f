package delivery

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestTimeOnHoldCountsOnce(t *testing.T) {
	begin := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	at := func(minutes int) time.Time { return begin.Add(time.Duration(minutes) * time.Minute) }
	rapid.Check(t, func(t *rapid.T) {
		var lists []pauses
		var minute [200]bool // on hold
		for range 2 {
			var p pauses
			now := 0
			for range rapid.IntRange(0, 6).Draw(t, "pauses") {
				from := now + rapid.IntRange(0, 20).Draw(t, "gap")
				now = from + rapid.IntRange(1, 20).Draw(t, "length")
				p.begin(at(from))
				p.end(at(now))
				for i := from; i < min(now, len(minute)); i++ {
					minute[i] = true
				}
			}
			if rapid.Bool().Draw(t, "open") {
				p.begin(at(now))
				for i := now; i < len(minute); i++ {
					minute[i] = true
				}
			}
			lists = append(lists, p)
		}
		from := rapid.IntRange(0, 150).Draw(t, "from")
		to := from + rapid.IntRange(0, 40).Draw(t, "to")
		want := time.Duration(0)
		for i := from; i < to; i++ {
			if minute[i] {
				want += time.Minute
			}
		}
		if got := during(at(from), at(to), lists...); got != want {
			t.Fatalf("from %d to %d: %v on hold, want %v (%v)", from, to, got, want, lists)
		}
	})
}

func TestPausesAreBoundedAndJoiningThemMakesMailWaitLongerNotShorter(t *testing.T) {
	begin := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	var p pauses
	for i := range 1000 {
		p.begin(begin.Add(time.Duration(i) * time.Hour))
		p.end(begin.Add(time.Duration(i)*time.Hour + time.Minute))
	}
	if len(p) > maxPauses {
		t.Errorf("%d pauses are remembered", len(p))
	}
	if got := during(begin, begin.Add(1000*time.Hour), p); got < 1000*time.Minute {
		t.Errorf("%v on hold, at least %v were", got, 1000*time.Minute)
	}
}
