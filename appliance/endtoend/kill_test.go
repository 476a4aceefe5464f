package endtoend

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"mailchute/appliance/trace"
)

// TestKilled kills the box at fifty random moments under load. Whatever the moment: what was acknowledged arrives whole
// and is shown as sent, and only what was in the air comes twice.
func TestKilled(t *testing.T) {
	t.Parallel()
	lives := 50
	switch {
	case testing.Short():
		lives = 5
	case withRaceDetector(): // it takes several times as long, and sees no more in fifty than in fifteen
		lives = 15
	}
	random := newRandom(t)
	cloud := newCloud(t, nil)
	box := newBox(t, office, cloud.connector())
	cloud.trust(box)
	fuse := &fuse{}
	cloud.arriving = func() { fuse.burn(arrived) }
	floor := newFloor(fuse, random)
	for life := range lives {
		cloud.nextEpoch()
		moment, count := moment(random.IntN(int(moments))), 1+random.IntN(50)
		burnt := fuse.light(moment, count)
		box.launch()
		if moment != launched {
			box.awaitReady()
			watched := floor.watch(box, life+1)
			floor.open(box.address("none"))
			select {
			case <-burnt:
			case <-time.After(patience):
				t.Fatalf("the box did not come to %v, %d times", moment, count)
			}
			<-time.After(time.Duration(random.IntN(5000)) * time.Microsecond)
			box.kill()
			floor.close()
			<-watched
		} else {
			<-time.After(time.Duration(random.IntN(60000)) * time.Microsecond)
			box.kill()
		}
		cloud.awaitSilence()
		cloud.down()
		cloud.up()
	}
	floor.leave()
	cloud.nextEpoch()
	box.start()
	box.awaitEmpty()
	floor.check(t, cloud, box)
	box.stop()
}

// newRandom is another one in each run.
func newRandom(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %x", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// The moments of a message at which the box is killed.
const (
	launched     moment = iota // the box is starting
	begun                      // the first half of a message is on the wire
	dotted                     // the final dot is
	acknowledged               // the scanner has its 250
	arrived                    // the cloud has the message, and has not answered
	moments
)

func (m moment) String() string {
	return [...]string{"launched", "begun", "dotted", "acknowledged", "arrived"}[m]
}

// fuse burns down with each passing of a moment.
type fuse struct {
	mu     sync.Mutex
	moment moment
	left   int
	burnt  chan struct{}
}

func (f *fuse) light(m moment, count int) (burnt <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.moment, f.left, f.burnt = m, count, make(chan struct{})
	return f.burnt
}

func (f *fuse) burn(m moment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m != f.moment || f.left == 0 {
		return
	}
	if f.left--; f.left == 0 {
		close(f.burnt)
	}
}

// floor is the devices, and what they remember.
type floor struct {
	fuse *fuse

	mu      sync.Mutex
	handed  map[string]*handed
	address string // empty: the box is down
	left    bool
	opened  *sync.Cond // address or left has changed

	scanners sync.WaitGroup
}

// newFloor has six scanners that wait for a box.
func newFloor(fuse *fuse, random *rand.Rand) *floor {
	f := &floor{handed: make(map[string]*handed), fuse: fuse}
	f.opened = sync.NewCond(&f.mu)
	for n := range 6 {
		own := rand.New(rand.NewPCG(random.Uint64(), 0))
		f.scanners.Go(func() { f.scan(n, own) })
	}
	return f
}

// handed is a letter that a scanner has begun to hand in.
type handed struct {
	id       trace.ID // of the acknowledgement; 0: there was none
	reported int      // life (an epoch of the cloud) in which the box first said that it is sent; 0: in none that was killed
}

func (f *floor) open(address string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.address = address
	f.opened.Broadcast()
}

func (f *floor) close() { f.open("") }

// leave ends the scanners.
func (f *floor) leave() {
	f.mu.Lock()
	f.left = true
	f.opened.Broadcast()
	f.mu.Unlock()
	f.scanners.Wait()
}

// box gives the box's address once it is up; empty when the working day is over.
func (f *floor) box() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.address == "" && !f.left {
		f.opened.Wait()
	}
	if f.left {
		return ""
	}
	return f.address
}

// scan hands in letters as long as there is a box. What is not acknowledged is not handed in again, so that whatever
// comes twice was sent twice by the box.
func (f *floor) scan(scanner int, random *rand.Rand) {
	for number := 0; ; {
		address := f.box()
		if address == "" {
			return
		}
		s, err := connect(address)
		if err != nil {
			continue
		}
		for range 1 + random.IntN(20) {
			number++
			if err = f.hand(s, fmt.Sprintf("%d-%d", scanner, number), size(random)); err != nil {
				break
			}
		}
		s.close()
	}
}

// size is that of a letter: most are small, a few are scans of many pages.
func size(random *rand.Rand) int {
	switch n := random.IntN(100); {
	case n < 80:
		return 1000 + random.IntN(30_000)
	case n < 97:
		return 50_000 + random.IntN(400_000)
	default:
		return 1_000_000 + random.IntN(3_000_000)
	}
}

func (f *floor) hand(s *scanner, number string, size int) error {
	name, content := letter(number, size)
	f.mu.Lock()
	f.handed[name] = &handed{}
	f.mu.Unlock()
	if err := s.envelope(from, to); err != nil {
		return err
	}
	body := s.text.DotWriter()
	half := len(content) / 2
	body.Write(content[:half])
	s.text.W.Flush()
	f.fuse.burn(begun)
	body.Write(content[half:])
	if err := body.Close(); err != nil {
		return err
	}
	f.fuse.burn(dotted)
	id, err := s.acknowledged()
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.handed[name].id = id
	f.mu.Unlock()
	f.fuse.burn(acknowledged)
	return nil
}

// watch asks the box again and again what it has sent, until it is dead; then the channel is closed.
func (f *floor) watch(b *box, life int) <-chan struct{} {
	over := make(chan struct{})
	since := time.Now().Add(-time.Second)
	go func() {
		defer close(over)
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			list, err := b.Client.Trace(b.t.Context(), trace.Query{State: trace.Sent, From: since, Limit: trace.MaxLimit})
			if err != nil {
				return
			}
			for _, record := range list.Records {
				f.report(record.MessageID, life)
			}
			select {
			case <-ticker.C:
			case <-b.ended:
				return
			}
		}
	}()
	return over
}

func (f *floor) report(name string, life int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if h := f.handed[name]; h != nil && h.reported == 0 {
		h.reported = life
	}
}

// check compares what the devices, the cloud and the box know, when all has been delivered. It gives what it counted.
func (f *floor) check(t *testing.T, c *cloud, b *box) (count map[string]int) {
	t.Helper()
	records := allRecords(t, b)
	count = make(map[string]int)
	for name, h := range f.handed {
		arrivals, record := c.came(name), records[name]
		count["handed in"]++
		if h.id != 0 {
			count["acknowledged"]++
			switch {
			case len(arrivals) == 0:
				t.Errorf("%s (%s) was acknowledged and has not arrived", h.id, name)
			case record.ID != h.id:
				t.Errorf("%s (%s) was acknowledged and the trace has %q", h.id, name, record.ID)
			}
		}
		if (len(arrivals) > 0) != (record.ID != 0) {
			t.Errorf("%s has arrived %d times, and the trace knows it as %q", name, len(arrivals), record.ID)
		}
		if record.ID != 0 && (record.Recipients[0].State != trace.Sent || record.Done.IsZero()) {
			t.Errorf("%s has arrived and is not shown as sent: %+v", name, record)
		}
		if n := countEvents(record, trace.Delivered); record.ID != 0 && n != 1 {
			t.Errorf("%s is shown as delivered %d times: %+v", name, n, record.Events)
		}
		for i, arrival := range arrivals {
			if i == 0 {
				continue
			}
			count["arrived again"]++
			if arrival.epoch == arrivals[i-1].epoch {
				t.Errorf("%s was sent twice by the same process", name)
			}
			if h.reported != 0 && arrival.epoch > h.reported {
				t.Errorf("%s was sent again by process %d, process %d had reported it as sent", name, arrival.epoch, h.reported)
			}
		}
		if h.reported != 0 {
			count["reported"]++
		}
	}
	if n := len(records); n < count["acknowledged"] {
		t.Errorf("the trace has %d records, %d messages were acknowledged", n, count["acknowledged"])
	}
	if count["acknowledged"] == 0 || count["reported"] == 0 {
		t.Errorf("nothing was proved: %v", count)
	}
	t.Log(count)
	return count
}

// allRecords is the whole trace, by Message-ID.
func allRecords(t *testing.T, b *box) map[string]trace.Record {
	t.Helper()
	records := make(map[string]trace.Record)
	for query := (trace.Query{Limit: trace.MaxLimit}); ; {
		page, err := b.Client.Trace(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		for _, record := range page.Records {
			if twin, found := records[record.MessageID]; found {
				t.Errorf("%s is in the trace twice: %s, %s", record.MessageID, record.ID, twin.ID)
			}
			records[record.MessageID] = record
		}
		if query.Before = page.Next; query.Before == 0 {
			return records
		}
	}
}

func countEvents(record trace.Record, kind trace.Kind) (n int) {
	for _, event := range record.Events {
		if event.Kind == kind {
			n++
		}
	}
	return n
}
