package spool

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"mailchute/appliance/trace"
)

// The buckets of queue.db.
var (
	chunkBucket    = []byte("chunk")    // id ‖ sequence (4 bytes) → a chunk, see writer.go
	envelopeBucket = []byte("envelope") // id → an envelope, see record.go; being there is what accepted means
	dueBucket      = []byte("due")      // connector, device, sender, next attempt, id → nothing, see due.go
	openBucket     = []byte("open")     // ids whose chunks came in over several commits and that are not accepted yet
	outcomeBucket  = []byte("outcome")  // id → what became of it, until the trace has it on disk
	stateBucket    = []byte("state")    // name → what others keep in the queue file, see State
)

// Options of a spool.
type Options struct {
	MaxSize int64 // ceiling of what the queue may hold, bytes; 0: half the disk
	Log     *slog.Logger
	Now     func() time.Time
	Disk    Disk
}

// Spool is an open queue file.
type Spool struct {
	path    string
	log     *slog.Logger
	now     func() time.Time
	disk    Disk
	reserve reserve

	swap sync.RWMutex // held for writing while the file is compacted into another
	db   *bolt.DB

	mu        sync.Mutex
	took      *sync.Cond // the committer took the pending operations, or finished
	wake      chan struct{}
	pending   []operation
	loading   int64       // bytes of chunks in pending
	lag       *time.Timer // starts a commit of results
	lagging   bool        // lag runs, for what is in pending
	storing   int64       // bytes of chunks in the running commit
	lastID    trace.ID
	closing   bool
	failure   error // the file can no longer be written: a panic out of bbolt
	maxSize   int64
	counts    Counts
	live      int64                  // bytes in use in the queue file, after the last commit
	unused    int64                  // bytes in free pages of it
	ceiling   int64                  // what live may grow to
	compacted time.Time              // last try; the committer's
	recent    map[trace.ID]*Envelope // accepted and not changed since, as long as there are few; the committer's
	outcomes  outcomes

	settled chan struct{} // see Settled
	failed  chan struct{} // closed when failure is set
	stopped chan struct{} // closed when the committer has ended
}

// Counts are messages in the queue, by what can become of them. One message may be counted in several.
type Counts struct {
	Messages int   `json:"messages"`
	Bytes    int64 `json:"bytes"`   // of bodies
	Waiting  int   `json:"waiting"` // have a recipient waiting, on hold or not
	Failed   int   `json:"failed"`  // have a recipient refused for good
	Held     int   `json:"held"`    // put on hold by an administrator
}

// Open opens or makes the queue file. A file that cannot be read whole is set aside and what is readable
// in it is salvaged into a new one: then the report is not nil.
func Open(path string, options Options) (*Spool, *Salvage, error) {
	if options.Disk == nil {
		options.Disk = RealDisk(filepath.Dir(path))
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.Log == nil {
		options.Log = slog.Default()
	}
	s := &Spool{
		path: path, log: options.Log, now: options.Now, disk: options.Disk, maxSize: options.MaxSize,
		reserve: reserve{path: filepath.Join(filepath.Dir(path), "queue.reserve")},
		wake:    make(chan struct{}, 1), settled: make(chan struct{}, 1), failed: make(chan struct{}), stopped: make(chan struct{}),
		recent: make(map[trace.ID]*Envelope), outcomes: outcomes{hidden: make(map[trace.ID]bool)},
	}
	s.took = sync.NewCond(&s.mu)
	s.lag = time.AfterFunc(time.Hour, s.start)
	s.lag.Stop()
	db, salvage, err := openOrSalvage(path, options)
	if err != nil {
		return nil, nil, err
	}
	s.db = db
	if err := errors.Join(s.begin(), removeIfThere(compactPath(path))); err != nil {
		db.Close()
		if errors.Is(err, ErrDamaged) && salvage == nil {
			if err := markSuspect(path); err == nil {
				return Open(path, options)
			}
		}
		return nil, nil, err
	}
	go s.commitLoop()
	return s, salvage, nil
}

func boltOptions() *bolt.Options {
	options := &bolt.Options{
		Timeout:        time.Second,
		FreelistType:   bolt.FreelistMapType,
		NoFreelistSync: true,
		MaxSize:        maxFile,
	}
	if strconv.IntSize == 64 {
		options.InitialMmapSize = 1 << 30 // address space only: a remap would wait for every reader
	}
	return options
}

// maxFile is how large the queue file may be, bytes; 0: as large as the disk. On a machine of 32 bits it is mapped into
// an address space of 2 to 3 GiB, together with a salvaged one, and bbolt's maps grow by 1 GiB.
var maxFile = func() int {
	if strconv.IntSize == 64 {
		return 0
	}
	return 1 << 30
}()

// openFile opens a queue file that is sound, making it when there is none.
func openFile(path string) (db *bolt.DB, err error) {
	defer func() { // bbolt panics where it finds a page it does not understand
		if failure := recover(); failure != nil {
			err = fmt.Errorf("open %s: %v", path, failure)
		}
	}()
	db, err = bolt.Open(path, 0o600, boltOptions())
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{chunkBucket, envelopeBucket, dueBucket, openBucket, outcomeBucket, stateBucket} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = syncFolder(filepath.Dir(path))
	}
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return db, nil
}

// begin sweeps what was never accepted, counts what waits and finds the last id given out.
func (s *Spool) begin() error {
	err := s.db.Update(func(tx *bolt.Tx) error {
		chunks, open := tx.Bucket(chunkBucket), tx.Bucket(openBucket)
		var orphans [][]byte
		marked := open.Cursor()
		for id, _ := marked.First(); id != nil; id, _ = marked.Next() {
			orphans = append(orphans, bytes.Clone(id))
		}
		for _, id := range orphans {
			if err := deleteChunksFrom(chunks, id, 0); err != nil {
				return err
			}
			if err := open.Delete(id); err != nil {
				return err
			}
		}
		envelopes := tx.Bucket(envelopeBucket)
		s.lastID = trace.ID(envelopes.Sequence())
		cursor := envelopes.Cursor()
		for id, value := cursor.First(); id != nil; id, value = cursor.Next() {
			head, err := readHead(value)
			if err != nil || len(id) != len(idKey(0)) {
				return fmt.Errorf("%w: envelope %x of %d bytes", ErrDamaged, id, len(value))
			}
			s.counts.add(head, 1)
			s.lastID = max(s.lastID, idOf(id))
		}
		first, _ := tx.Bucket(outcomeBucket).Cursor().First()
		s.outcomes.whole = first == nil
		return nil
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", s.path, err)
	}
	s.measure()
	if err := s.reserve.keep(s.disk); err != nil {
		s.log.Warn("no room to keep a reserve for a full disk", "error", err)
	}
	return nil
}

// Close commits what waits and closes the file. Messages not accepted by then are swept at the next start.
func (s *Spool) Close() error {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.start()
	<-s.stopped
	return s.db.Close()
}

// Failed is closed when the queue file can no longer be written for a damage found in it; the box must be
// started again, and Open then salvages what is readable.
func (s *Spool) Failed() <-chan struct{} { return s.failed }

// Counts tells how much is in the queue.
func (s *Spool) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

// Waiting counts the messages that wait at a connector.
func (s *Spool) Waiting(connector string) int {
	return s.countDue(connector, func(Due) bool { return true })
}

// WaitingOf counts the messages of one sender that wait at a connector.
func (s *Spool) WaitingOf(connector, sender string) int {
	return s.countDue(connector, func(due Due) bool { return due.Sender == sender })
}

func (s *Spool) countDue(connector string, want func(Due) bool) (n int) {
	prefix := append([]byte(connector), 0)
	s.view(func(tx *bolt.Tx) error {
		n = 0
		cursor := tx.Bucket(dueBucket).Cursor()
		for key, _ := cursor.Seek(prefix); bytes.HasPrefix(key, prefix); key, _ = cursor.Next() {
			if _, due, ok := readDue(key); ok && want(due) {
				n++
			}
		}
		return nil
	})
	return n
}

// Oldest is the id of the oldest message in the queue; 0 where there is none.
func (s *Spool) Oldest() (id trace.ID) {
	s.view(func(tx *bolt.Tx) error {
		if key, _ := tx.Bucket(envelopeBucket).Cursor().First(); key != nil {
			id = idOf(key)
		}
		return nil
	})
	return id
}

// view reads the file as it is now. Nothing slow may happen in fn: a reader left open stalls the committer.
func (s *Spool) view(fn func(*bolt.Tx) error) (err error) {
	defer func() {
		if failure := recover(); failure != nil {
			err = s.fail(fmt.Errorf("read %s: %v", s.path, failure), true)
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // a sector of the mapped file that cannot be read
	s.swap.RLock()
	defer s.swap.RUnlock()
	return s.db.View(fn)
}

// fail stops the spool. suspect: the file itself is damaged, and the next start must salvage it.
func (s *Spool) fail(err error, suspect bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil {
		return s.failure
	}
	s.failure = err
	close(s.failed)
	s.took.Broadcast()
	s.log.Error("the queue stops; the box must be started again", "error", err)
	if suspect {
		if err := markSuspect(s.path); err != nil {
			s.log.Error("mark the queue file as damaged", "error", err)
		}
	}
	return err
}

// suspectMark is a file beside the queue file that tells the next start to salvage it.
func suspectMark(path string) string { return path + ".suspect" }

func markSuspect(path string) error { return os.WriteFile(suspectMark(path), nil, 0o600) }

// State reads what was kept under a name with SetState: a few KB that must be as safe as the queue.
func (s *Spool) State(name string) (value []byte, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		value = bytes.Clone(tx.Bucket(stateBucket).Get([]byte(name)))
		return nil
	})
	return value, err
}

// SetState keeps a value under a name, with the next commit; it starts one. It does not wait.
func (s *Spool) SetState(name string, value []byte) {
	s.add(operation{keep: true, apply: func(t *tables) error {
		t.put(t.bucket(stateBucket), []byte(name), value)
		return nil
	}}, now)
}
