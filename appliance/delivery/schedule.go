package delivery

import "time"

// Retry is the schedule of attempts.
type Retry struct {
	First   time.Duration // after the first failure; doubles with each further one
	Ceiling time.Duration // of the delay
	GiveUp  time.Duration // after so long, time on hold not counted, a recipient has failed
}

// delay is the time to wait after so many attempts, before jitter.
func (r Retry) delay(attempts int) time.Duration {
	delay := r.First
	for range attempts - 1 {
		if delay *= 2; delay >= r.Ceiling {
			return r.Ceiling
		}
	}
	return min(delay, r.Ceiling)
}

// waited is the time between the first attempt and the last, as scheduled, of so many.
func (r Retry) waited(attempts int) (total time.Duration) {
	for n := 1; n < attempts && total < r.GiveUp; n++ {
		total += r.delay(n)
	}
	return total
}

// soon is the delay of the first probe of a held connector: most faults of a way last seconds.
func (r Retry) soon() time.Duration { return min(r.First, max(r.First/12, time.Second)) }

// signInPause is the time between probes after a refused sign-in: endpoints lock accounts that fail often.
const signInPause = time.Hour

// pause is a time on hold; an open one has no Until.
type pause struct {
	From  time.Time `json:"from"`
	Until time.Time `json:"until,omitzero"`
}

// pauses are ascending and apart.
type pauses []pause

// maxPauses are remembered; beyond that the two closest to each other are joined, which only makes mail wait longer.
const maxPauses = 100

func (p *pauses) begin(now time.Time) {
	if n := len(*p); n > 0 && (*p)[n-1].Until.IsZero() {
		return
	}
	*p = append(*p, pause{From: now})
	if len(*p) > maxPauses {
		closest := 1
		for i := 2; i < len(*p); i++ {
			if (*p)[i].From.Sub((*p)[i-1].Until) < (*p)[closest].From.Sub((*p)[closest-1].Until) {
				closest = i
			}
		}
		(*p)[closest-1].Until = (*p)[closest].Until
		*p = append((*p)[:closest], (*p)[closest+1:]...)
	}
}

func (p pauses) end(now time.Time) {
	if n := len(p); n > 0 && p[n-1].Until.IsZero() {
		p[n-1].Until = now
	}
}

// during is the time on hold between two moments, by any of several lists; what overlaps counts once.
func during(from, to time.Time, lists ...pauses) (total time.Duration) {
	at := from // everything before is counted
	for at.Before(to) {
		var next pause // the earliest that ends after at
		for _, list := range lists {
			for _, p := range list {
				if p.Until.IsZero() || p.Until.After(to) {
					p.Until = to
				}
				if p.From.Before(at) {
					p.From = at
				}
				if p.From.Before(p.Until) && (next.Until.IsZero() || p.From.Before(next.From)) {
					next = p
				}
			}
		}
		if next.Until.IsZero() {
			return total
		}
		total += next.Until.Sub(next.From)
		at = next.Until
	}
	return total
}
