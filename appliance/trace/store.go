package trace

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"mailchute/appliance/boltfile"
)

// Store is trace.db. Its methods may be called from any goroutine.
//
// Buckets: record (id, 8 bytes big-endian → the Record as JSON), signature (sequence, 8 bytes → a block, see
// signature.go), stranger (address as text → the Stranger as JSON).
type Store struct {
	db       *bbolt.DB
	setAside string

	keep time.Duration // how long a record is kept
	size int64         // how many bytes of the file may live

	adding  sync.Mutex // one Add, Prune or Close at a time; guards what follows
	hasher  hasher
	encoded bytes.Buffer
	closed  bool

	strangers strangers
}

var (
	recordBucket    = []byte("record")
	signatureBucket = []byte("signature")
	strangerBucket  = []byte("stranger")
)

const (
	keepTime = 30 * 24 * time.Hour
	keepSize = 200_000_000

	// batchSize bounds the JSON written in one transaction, and so the memory Add takes.
	batchSize = 2 << 20

	// One record is at most largeRecord long as JSON, unless it has so many recipients that their addresses
	// alone, with a short reply each, are more.
	largeRecord = 1 << 20
)

var (
	// ErrNotFound: no record with this id, or not any more.
	ErrNotFound = errors.New("no such message in the trace")
	// ErrClosed: the store has been closed.
	ErrClosed = errors.New("the trace is closed")
)

// Open opens the trace at path and makes it where there is none. A file that is damaged is set aside beside it as
// path.damaged-TIME, and a new one begun: SetAside names it then. An error means that the file could not be
// reached or is in use, and nothing was changed.
func Open(path string) (*Store, error) {
	s := &Store{keep: keepTime, size: keepSize}
	db, err := openFile(path)
	if damaged := err; errors.Is(err, boltfile.ErrDamaged) {
		s.setAside = path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000000Z")
		if err := os.Rename(path, s.setAside); err != nil {
			return nil, fmt.Errorf("trace: %w; it cannot be set aside: %w; move it away", damaged, err)
		}
		db, err = openFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	s.db = db
	if err := errors.Join(s.prepare(), syncFolder(filepath.Dir(path))); err != nil {
		return nil, errors.Join(fmt.Errorf("trace: %s: %w", path, err), db.Close())
	}
	return s, nil
}

// SetAside is the path a damaged file was moved to when the trace was opened; empty: it was whole.
func (s *Store) SetAside() string { return s.setAside }

// prepare makes the buckets of a new file and reads the strangers of an old one.
func (s *Store) prepare() error {
	var missing bool
	err := s.view(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{recordBucket, signatureBucket, strangerBucket} {
			missing = missing || tx.Bucket(name) == nil
		}
		if missing {
			return nil
		}
		return s.strangers.load(tx.Bucket(strangerBucket))
	})
	if err != nil || !missing {
		return err
	}
	return s.update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{recordBucket, signatureBucket, strangerBucket} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
}

// Close writes what was counted of strangers and closes the file.
func (s *Store) Close() error {
	err := s.Add(nil)
	s.adding.Lock()
	defer s.adding.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return errors.Join(err, s.db.Close())
}

// Add writes records; when it returns nil they survive a power cut. A record whose id is there already takes
// the place of the old one, so that a batch may be added again. What was counted of strangers since the last
// Add is written with it, so Add(nil) is of use too.
//
// After an error some of the records may be there.
func (s *Store) Add(records []Record) error {
	s.adding.Lock()
	defer s.adding.Unlock()
	if s.closed {
		return ErrClosed
	}
	order := make([]*Record, len(records))
	for i := range records {
		order[i] = &records[i]
	}
	// Keys in order are what a B+ tree takes fastest.
	slices.SortStableFunc(order, func(a, b *Record) int { return cmp.Compare(a.ID, b.ID) })
	for len(order) > 0 {
		batch, err := s.encode(order)
		if err != nil {
			return fmt.Errorf("trace: %w", err)
		}
		if err := s.write(batch); err != nil {
			return fmt.Errorf("trace: writing %d records: %w", len(batch.keys), err)
		}
		order = order[len(batch.keys):]
	}
	if err := s.write(batch{}); err != nil {
		return fmt.Errorf("trace: writing the list of strangers: %w", err)
	}
	return nil
}

// batch is what one transaction writes.
type batch struct {
	keys   [][8]byte
	values [][]byte
	blocks []byte // entries of the signatures, one after the other
	ends   []int  // where each ends
}

// encode makes a batch of the first of the records, at least one.
func (s *Store) encode(records []*Record) (batch, error) {
	var b batch
	var ends []int
	s.encoded.Reset()
	encoder := json.NewEncoder(&s.encoded)
	encoder.SetEscapeHTML(false)
	for _, r := range records {
		start := s.encoded.Len()
		if err := encoder.Encode(r); err != nil {
			return batch{}, fmt.Errorf("record %s: %w", r.ID, err)
		}
		if s.encoded.Len()-start > largeRecord {
			s.encoded.Truncate(start)
			if err := encoder.Encode(shorten(r)); err != nil {
				return batch{}, fmt.Errorf("record %s: %w", r.ID, err)
			}
		}
		var key [8]byte
		binary.BigEndian.PutUint64(key[:], uint64(r.ID))
		b.keys = append(b.keys, key)
		b.blocks = s.hasher.appendEntry(b.blocks, r)
		b.ends = append(b.ends, len(b.blocks))
		ends = append(ends, s.encoded.Len())
		if s.encoded.Len() >= batchSize {
			break
		}
	}
	start := 0
	for _, end := range ends {
		b.values = append(b.values, s.encoded.Bytes()[start:end])
		start = end
	}
	return b, nil
}

// write writes a batch and the strangers that changed, in one transaction, if there is anything to write.
func (s *Store) write(b batch) error {
	changes := s.strangers.changes()
	if len(b.keys) == 0 && changes.empty() {
		return nil
	}
	err := s.update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(recordBucket)
		bucket.FillPercent = 0.95 // nearly all keys are added at the end
		for i := range b.keys {
			if err := bucket.Put(b.keys[i][:], b.values[i]); err != nil {
				return err
			}
		}
		return errors.Join(writeSignatures(tx.Bucket(signatureBucket), b), changes.write(tx.Bucket(strangerBucket)))
	})
	if err != nil {
		s.strangers.unwritten(changes)
	}
	return err
}

// writeSignatures puts the entries into the last block while it is open, and into new ones.
func writeSignatures(bucket *bbolt.Bucket, b batch) error {
	if len(b.keys) == 0 {
		return nil
	}
	bucket.FillPercent = 0.95
	key, last := bucket.Cursor().Last()
	newest := block(last).newest()
	var current []byte
	if block(last).open() {
		current = slices.Concat(last, nil)
		key = slices.Clone(key)
	} else {
		key = nil
	}
	start := 0
	for i, end := range b.ends {
		if key == nil {
			sequence, err := bucket.NextSequence()
			if err != nil {
				return err
			}
			key = binary.BigEndian.AppendUint64(nil, sequence)
			current = make([]byte, blockHeader)
		}
		id := ID(binary.BigEndian.Uint64(b.keys[i][:]))
		newest = max(newest, id)
		binary.BigEndian.PutUint64(current, uint64(newest))
		binary.BigEndian.PutUint64(current[8:], uint64(max(block(current).highest(), id)))
		current = append(current, b.blocks[start:end]...)
		start = end
		if len(current) >= fullBlock || i == len(b.ends)-1 {
			if err := bucket.Put(key, current); err != nil {
				return err
			}
			key = nil
		}
	}
	return nil
}

// Get gives the record with this id.
func (s *Store) Get(id ID) (Record, error) {
	var record Record
	err := s.view(func(tx *bbolt.Tx) error {
		value := tx.Bucket(recordBucket).Get(binary.BigEndian.AppendUint64(nil, uint64(id)))
		if value == nil {
			return ErrNotFound
		}
		return json.Unmarshal(value, &record)
	})
	if err != nil {
		return Record{}, fmt.Errorf("message %s: %w", id, err)
	}
	return record, nil
}

func (s *Store) view(read func(*bbolt.Tx) error) error {
	return protect(func() error { return s.db.View(read) })
}

func (s *Store) update(write func(*bbolt.Tx) error) error {
	return protect(func() error { return s.db.Update(write) })
}

// protect makes an error of the panic or the fault that a page damaged since Open brings.
func protect(run func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if found := recover(); found != nil {
			err = fmt.Errorf("the trace is damaged: %v; restart the box: it sets the file aside and begins a new one", found)
		}
	}()
	if err = run(); errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return err
}

// shorten makes a copy of a record that is too large, without the long tail of its texts and lists. What became of each
// recipient stays.
func shorten(r *Record) *Record {
	const listed, text, answer = 20, 1000, 300
	short := *r
	short.Recipients = slices.Clone(r.Recipients)
	for i := range short.Recipients {
		recipient := &short.Recipients[i]
		recipient.Reply = cut(recipient.Reply, answer)
		recipient.Cause = cut(recipient.Cause, answer)
		recipient.Fix = cut(recipient.Fix, answer)
	}
	short.Events = slices.Clone(r.Events)
	for i := range short.Events {
		event := &short.Events[i]
		event.Reply = cut(event.Reply, text)
		event.Text = cut(event.Text, text)
		if more := len(event.Recipients) - listed; more > 0 {
			event.Recipients = append(slices.Clone(event.Recipients[:listed]), fmt.Sprintf("and %d more", more))
		}
	}
	return &short
}

func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
