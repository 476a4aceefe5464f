package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"mailchute/appliance/trace"
)

// plenty is a disk that is never full.
type plenty struct{}

func (plenty) Space() (free, total int64, err error) { return 1 << 40, 1 << 41, nil }

// clock is a time that stands until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func testOptions() Options {
	return Options{Disk: plenty{}, Now: (&clock{now: noon}).Now, Log: slog.New(slog.DiscardHandler)}
}

// open opens the queue file in a folder; it is closed at the end of the test.
func open(t testing.TB, folder string, options Options) *Spool {
	t.Helper()
	s, salvage, err := Open(filepath.Join(folder, "queue.db"), options)
	if err != nil {
		t.Fatal(err)
	}
	if salvage != nil {
		t.Fatalf("the file was salvaged: %+v", salvage)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// letter is an envelope from a device to recipients by one connector.
func letter(device string, recipients ...string) *Envelope {
	e := &Envelope{Record: trace.Record{Accepted: noon, Device: device, Sender: device + "@contoso.com"}}
	for _, r := range recipients {
		e.Recipients = append(e.Recipients, trace.Recipient{Address: r, State: trace.Waiting, Connector: "m365"})
	}
	e.Legs = []Leg{{Connector: "m365", Next: noon}}
	return e
}

// hand hands in a message and gives its id.
func hand(t testing.TB, s *Spool, e *Envelope, body []byte) trace.ID {
	t.Helper()
	w := s.Create()
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := w.Accept(e); err != nil {
		t.Fatal(err)
	}
	return w.ID()
}

// checkBody fails the test when a stored body is not the one handed in.
func checkBody(t testing.TB, s *Spool, id trace.ID, want []byte) {
	t.Helper()
	got, err := io.ReadAll(s.Body(id, int64(len(want))))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("body of %s: %d bytes came back of %d, or others; error %v", id, len(got), len(want), err)
	}
}

func scan(size int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(size)))
	body := make([]byte, size)
	for i := range body {
		body[i] = byte(r.Uint32())
	}
	return body
}

func settle(e *Envelope) error {
	for i := range e.Recipients {
		e.Recipients[i].State = trace.Sent
	}
	return nil
}

func TestBodiesOfEverySizeComeBackAfterAReopen(t *testing.T) {
	folder := t.TempDir()
	s := open(t, folder, testOptions())
	bodies := make(map[trace.ID][]byte)
	for _, size := range []int{0, 1, 4096, chunkSize - 1, chunkSize, chunkSize + 1, 3 * chunkSize, 9 << 20} {
		body := scan(size)
		bodies[hand(t, s, letter("copier", "anna@contoso.com"), body)] = body
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, folder, testOptions())
	for id, want := range bodies {
		e, err := s.Get(id)
		if err != nil {
			t.Fatal(err)
		}
		if e.Size != int64(len(want)) {
			t.Errorf("size of %s is %d, want %d", id, e.Size, len(want))
		}
		got, err := io.ReadAll(s.Body(id, e.Size))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("body of %d bytes: %d came back, error %v", len(want), len(got), err)
		}
		if err := iotest.TestReader(s.Body(id, e.Size), want); len(want) < 200_000 && err != nil {
			t.Errorf("body of %d bytes: %v", len(want), err)
		}
	}
	if got := s.Counts(); got.Messages != len(bodies) || got.Waiting != len(bodies) {
		t.Errorf("counts after the reopen: %+v", got)
	}
}

func TestIdsAscendWhateverTheClockDoes(t *testing.T) {
	folder, now := t.TempDir(), &clock{now: noon}
	options := testOptions()
	options.Now = now.Now
	s := open(t, folder, options)
	last := hand(t, s, letter("copier", "a@contoso.com"), nil)
	for _, step := range []time.Duration{0, time.Hour, -48 * time.Hour, time.Microsecond} {
		now.move(step)
		id := hand(t, s, letter("copier", "a@contoso.com"), nil)
		if id <= last {
			t.Errorf("after the clock moved by %v: id %d follows %d", step, id, last)
		}
		last = id
	}
	if err := s.Change(last, settle); err != nil {
		t.Fatal(err)
	}
	s.Close()
	now.move(-24 * 365 * time.Hour)
	s = open(t, folder, options)
	if id := hand(t, s, letter("copier", "a@contoso.com"), nil); id <= last {
		t.Errorf("after a start with a clock that went back: id %d follows %d", id, last)
	}
}

// crash copies the queue file as it is, as a power cut would leave it, into a new folder.
func crash(t testing.TB, s *Spool) string {
	t.Helper()
	data, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "queue.db"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return folder
}

// storedChunks counts the chunks in the file.
func storedChunks(t testing.TB, s *Spool) (n int) {
	t.Helper()
	if err := s.view(func(tx *bolt.Tx) error { n = tx.Bucket(chunkBucket).Stats().KeyN; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWhatWasNotAcceptedIsSweptAtTheNextStart(t *testing.T) {
	s := open(t, t.TempDir(), testOptions())
	w := s.Create()
	if _, err := w.Write(scan(6 << 20)); err != nil {
		t.Fatal(err)
	}
	kept := hand(t, s, letter("copier", "a@contoso.com"), scan(100)) // its commit takes the chunks along
	if storedChunks(t, s) < 64 {
		t.Fatal("the chunks of the open message are not in the file yet")
	}
	again := open(t, crash(t, s), testOptions())
	if n := storedChunks(t, again); n != 1 {
		t.Errorf("%d chunks after the start, want the 1 of the accepted message", n)
	}
	if _, err := again.Get(kept); err != nil {
		t.Error(err)
	}
}

func TestAnAbortedMessageLeavesNothing(t *testing.T) {
	s := open(t, t.TempDir(), testOptions())
	w := s.Create()
	w.Write(scan(6 << 20))
	hand(t, s, letter("copier", "a@contoso.com"), scan(100))
	w.Abort()
	hand(t, s, letter("copier", "a@contoso.com"), scan(100))
	if n := storedChunks(t, s); n != 2 {
		t.Errorf("%d chunks, want 2", n)
	}
	if err := w.Accept(letter("copier", "a@contoso.com")); err == nil {
		t.Error("an aborted message was accepted")
	}
}

func TestAMessageThatIsDoneBecomesAnOutcome(t *testing.T) {
	folder := t.TempDir()
	s := open(t, folder, testOptions())
	id := hand(t, s, letter("copier", "a@contoso.com", "b@contoso.com"), scan(200_000))
	err := s.Change(id, func(e *Envelope) error {
		e.Recipients[0].State = trace.Sent
		e.Recipients[1].State, e.Recipients[1].Reply = trace.Failed, "550 5.1.1 unknown"
		e.Legs = nil
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.Counts(), (Counts{Messages: 1, Bytes: 200_000, Failed: 1}); got != want {
		t.Errorf("with one recipient failed: %+v, want %+v", got, want)
	}
	if err := s.Change(id, settle); err != nil {
		t.Fatal(err)
	}
	if got := s.Counts(); got != (Counts{}) {
		t.Errorf("counts of an empty queue: %+v", got)
	}
	if _, err := s.Get(id); !errors.Is(err, ErrNotFound) {
		t.Errorf("the message is still in the queue: %v", err)
	}
	if n := storedChunks(t, s); n != 0 {
		t.Errorf("%d chunks are left", n)
	}
	s.Close()
	s = open(t, folder, testOptions())
	records, err := s.Outcomes(10)
	if err != nil || len(records) != 1 || records[0].ID != id || records[0].Recipients[1].State != trace.Sent || !records[0].Done.Equal(noon) {
		t.Fatalf("outcomes after a reopen: %+v, error %v", records, err)
	}
	s.Forget([]trace.ID{id})
	if records, _ := s.Outcomes(10); len(records) != 0 {
		t.Errorf("a forgotten outcome came back: %+v", records)
	}
	s.Close()
	s = open(t, folder, testOptions())
	if records, _ := s.Outcomes(10); len(records) != 0 {
		t.Errorf("a forgotten outcome came back after a reopen: %+v", records)
	}
}

func TestAChangeThatIsRefusedChangesNothing(t *testing.T) {
	s := open(t, t.TempDir(), testOptions())
	id := hand(t, s, letter("copier", "a@contoso.com"), nil)
	sorry := errors.New("sorry")
	err := s.Change(id, func(e *Envelope) error { e.Recipients[0].State = trace.Sent; return sorry })
	if !errors.Is(err, sorry) {
		t.Errorf("error %v, want that of the change", err)
	}
	if e, _ := s.Get(id); e.Recipients[0].State != trace.Waiting {
		t.Error("the change was kept")
	}
	if err := s.Change(id+1, settle); !errors.Is(err, ErrNotFound) {
		t.Errorf("change of an unknown message: %v", err)
	}
}

func TestManySessionsShareTheCommitterAndNothingIsMixedUp(t *testing.T) {
	s := open(t, t.TempDir(), testOptions())
	var wg sync.WaitGroup
	for session := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(2, uint64(session)))
			for range 20 {
				body := scan(r.IntN(300_000))
				w := s.Create()
				for rest := body; len(rest) > 0; {
					n := min(len(rest), 1+r.IntN(50_000))
					if _, err := w.Write(rest[:n]); err != nil {
						t.Error(err)
						return
					}
					rest = rest[n:]
				}
				if r.IntN(4) == 0 {
					w.Abort()
					continue
				}
				if err := w.Accept(letter(fmt.Sprint("copier ", session), "a@contoso.com")); err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(s.Body(w.ID(), int64(len(body))))
				if err != nil || !bytes.Equal(got, body) {
					t.Errorf("session %d: the body came back different (error %v)", session, err)
				}
				if r.IntN(2) == 0 {
					if err := s.Change(w.ID(), settle); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	list, err := s.List(0, 1000, func(*Envelope) bool { return true })
	if err != nil || len(list) != s.Counts().Messages {
		t.Errorf("%d messages listed, %d counted, error %v", len(list), s.Counts().Messages, err)
	}
	n := 0
	for _, e := range list {
		n += int(chunkCount(e.Size))
	}
	if got := storedChunks(t, s); got != n {
		t.Errorf("%d chunks stored, %d belong to messages", got, n)
	}
}

func TestDevicesAndTheirSendersTakeTurns(t *testing.T) {
	s := open(t, t.TempDir(), testOptions())
	for range 20 {
		hand(t, s, letter("invoices", "a@contoso.com"), nil)
	}
	second := letter("invoices", "a@contoso.com")
	second.Sender = "zoe@contoso.com"
	hand(t, s, second, nil)
	later := letter("fax", "a@contoso.com")
	later.Legs[0].Next = noon.Add(time.Minute)
	hand(t, s, later, nil)
	held := letter("fax", "a@contoso.com")
	held.Hold = &Hold{By: "admin"}
	hand(t, s, held, nil)
	hand(t, s, letter("scan", "a@contoso.com"), nil)

	var turns Turns
	var got []string
	none := Pass{Sender: func(string) bool { return false }, Message: func(trace.ID) bool { return false }}
	for range 3 {
		found, _, err := s.Due("m365", &turns, noon, 3, 2, none)
		if err != nil {
			t.Fatal(err)
		}
		line := ""
		for _, due := range found {
			line += due.Device + ":" + due.Sender + " "
			s.Change(due.ID, settle)
		}
		got = append(got, line)
	}
	want := []string{
		"invoices:invoices@contoso.com invoices:zoe@contoso.com scan:scan@contoso.com ",
		"invoices:invoices@contoso.com invoices:invoices@contoso.com ",
		"invoices:invoices@contoso.com invoices:invoices@contoso.com ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("turns (-want +got):\n%s", diff)
	}
	_, soonest, _ := s.Due("m365", &turns, noon, 100, 100, Pass{
		Sender: func(sender string) bool { return sender == "invoices@contoso.com" }, Message: none.Message,
	})
	if want := noon.Add(time.Minute); !soonest.Equal(want) {
		t.Errorf("next mail is due at %v, want %v", soonest, want)
	}
	if lanes, _ := s.Lanes(); len(lanes) != 1 || lanes[0] != "m365" {
		t.Errorf("connectors with mail: %q", lanes)
	}
}

func TestStateIsKept(t *testing.T) {
	folder := t.TempDir()
	s := open(t, folder, testOptions())
	s.SetState("delivery", []byte("held"))
	s.Close()
	s = open(t, folder, testOptions())
	if value, err := s.State("delivery"); string(value) != "held" || err != nil {
		t.Errorf("state %q, error %v", value, err)
	}
}

func TestLongListsAreWalkedInStretchesBothWays(t *testing.T) {
	s := open(t, t.TempDir(), testOptions())
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range stretch / 4 {
				hand(t, s, letter("copier", "a@contoso.com"), nil)
			}
		})
	}
	wg.Wait()
	every := func(*Envelope) bool { return true }
	up, err := s.List(0, 1<<20, every)
	if err != nil || len(up) != 10*(stretch/4) {
		t.Fatalf("%d listed, error %v", len(up), err)
	}
	down, err := s.Newest(0, 1<<20, every)
	if err != nil || len(down) != len(up) {
		t.Fatalf("%d listed backwards, %d forwards, error %v", len(down), len(up), err)
	}
	for i := range up {
		if down[len(down)-1-i].ID != up[i].ID || (i > 0 && up[i].ID <= up[i-1].ID) {
			t.Fatalf("the order is wrong at %d", i)
		}
	}
	page, _ := s.Newest(up[10].ID, 3, every)
	if len(page) != 3 || page[0].ID != up[9].ID || page[2].ID != up[7].ID {
		t.Errorf("three before number 10: %v", page)
	}
	odd, _ := s.List(up[5].ID, 2, func(e *Envelope) bool { return e.ID != up[6].ID })
	if len(odd) != 2 || odd[0].ID != up[5].ID || odd[1].ID != up[7].ID {
		t.Errorf("two of those from number 5 on: %v", odd)
	}
	if got := s.Waiting("m365"); got != len(up) {
		t.Errorf("%d wait at the connector, want %d", got, len(up))
	}
	if got := s.Oldest(); got != up[0].ID {
		t.Errorf("the oldest is %v, want %v", got, up[0].ID)
	}
}
