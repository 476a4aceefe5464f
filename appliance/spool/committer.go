package spool

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"mailchute/appliance/trace"
)

// The committer is the one goroutine that writes. What arrives while a commit runs waits, and the next commit
// takes all of it: twenty scanners share a flush, and a lone one waits for nobody.

// pendingLimit starts a commit without an acceptance: bytes of chunks, of all sessions together. A session that
// would go beyond it waits until the committer has taken what is there.
const pendingLimit = 4 << 20

// operation is one change of the queue file.
type operation struct {
	// apply makes the change. An error refuses this operation alone and must come before the first put.
	apply func(*tables) error
	// done is told the result after the flush; may be nil. It must not block.
	done func(error)
	// mail is coming in: a full disk refuses it first, so that what is queued can go.
	mail bool
	// keep: nobody waits for it, and it must not get lost. On a full disk it is tried again until there is room.
	keep   bool
	loaded int64 // bytes of chunk it carries
}

// tables is a transaction of the committer: all that operations may do.
type tables struct {
	tx      *bolt.Tx
	failure error // the first error of bbolt: the whole transaction fails
	counts  Counts
	settled []trace.Record // messages that left the queue
	// writers that put chunks in this transaction, and whether they were accepted or aborted in it.
	writers map[*Writer]bool
}

func (t *tables) bucket(name []byte) *bolt.Bucket {
	b := t.tx.Bucket(name)
	b.FillPercent = 0.9 // keys come mostly in ascending order
	return b
}

func (t *tables) put(b *bolt.Bucket, key, value []byte) {
	if err := b.Put(key, value); err != nil && t.failure == nil {
		t.failure = err
	}
}

func (t *tables) delete(b *bolt.Bucket, key []byte) {
	if err := b.Delete(key); err != nil && t.failure == nil {
		t.failure = err
	}
}

// haste says whether an operation starts a commit.
type haste int

const (
	rides haste = iota // with the next one, whatever starts that
	soon               // within resultLag
	now                // somebody waits for it
)

// resultLag is how long the result of a delivery waits for company. Nobody waits for it, and a commit of its own
// would be in the way of the scanner's next message, which comes just then.
const resultLag = 5 * time.Millisecond

// add hands an operation to the committer.
func (s *Spool) add(op operation, when haste) {
	s.mu.Lock()
	err := s.addLocked(op, when)
	s.mu.Unlock()
	if err != nil && op.done != nil {
		op.done(err)
	}
}

func (s *Spool) addLocked(op operation, when haste) error {
	if s.failure != nil {
		return s.failure
	}
	if s.closing {
		return ErrClosed
	}
	s.pending = append(s.pending, op)
	s.loading += op.loaded
	switch {
	case when == now || s.loading >= pendingLimit:
		s.start()
	case when == soon && !s.lagging:
		s.lagging = true
		s.lag.Reset(resultLag)
	}
	return nil
}

func (s *Spool) start() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run hands over an operation and waits for its flush.
func (s *Spool) run(op operation) error {
	result := make(chan error, 1)
	op.done = func(err error) { result <- err }
	s.add(op, now)
	return <-result
}

const (
	retryDelay = time.Second      // between two tries to write results to a full disk
	idleTime   = 10 * time.Second // without anything to write, until the file is looked at for compacting
)

func (s *Spool) commitLoop() {
	defer close(s.stopped)
	var batch, kept []operation
	pause := time.NewTimer(idleTime)
	defer pause.Stop()
	for {
		pause.Reset(idleTime)
		if len(kept) > 0 {
			pause.Reset(retryDelay)
		}
		idle := false
		select {
		case <-s.wake:
		case <-pause.C:
			idle = len(kept) == 0
		}
		s.mu.Lock()
		closing := s.closing
		batch = append(append(batch[:0], kept...), s.pending...)
		clear(s.pending)
		s.lagging = false
		s.pending = s.pending[:0]
		s.storing, s.loading = s.loading, 0
		s.took.Broadcast()
		s.mu.Unlock()

		if len(batch) > 0 {
			kept = s.commit(batch)
		}
		clear(batch)
		s.mu.Lock()
		s.storing = 0
		s.mu.Unlock()
		s.took.Broadcast()
		if closing {
			return
		}
		if idle {
			s.compactIfSparse()
		}
	}
}

// commit applies the operations in one transaction, flushes it, and tells each how it ended. It returns those
// that must be tried again because the disk did not take them.
func (s *Spool) commit(batch []operation) (kept []operation) {
	results, counts, err := s.write(batch)
	if full(err) && s.reserve.release() {
		s.log.Warn("the disk is full: the reserve is used to record what was delivered", "error", err)
		batch = refuse(batch, err, func(op operation) bool { return op.mail })
		results, counts, err = s.write(batch)
	}
	switch {
	case err == nil:
		s.mu.Lock()
		s.counts = counts
		s.mu.Unlock()
		s.measure()
		if s.reserve.used {
			if err := s.reserve.keep(s.disk); err != nil {
				s.log.Warn("keep a reserve for a full disk", "error", err)
			}
		}
	case full(err):
		s.log.Error("the disk is full", "error", err)
		return refuse(batch, err, func(op operation) bool { return !op.keep })
	default: // what the disk did with it is not known any more
		err = s.fail(fmt.Errorf("write %s: %w", s.path, err), false)
		for i := range results {
			results[i] = err
		}
	}
	for i, op := range batch {
		if op.done != nil {
			op.done(results[i])
		}
	}
	return nil
}

func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, bolterrors.ErrMaxSizeReached)
}

// refuse tells the operations that match that the disk is full, and returns the others.
func refuse(batch []operation, err error, match func(operation) bool) (kept []operation) {
	for _, op := range batch {
		switch {
		case !match(op):
			kept = append(kept, op)
		case op.done != nil:
			op.done(fmt.Errorf("%w: %w", ErrFull, err))
		}
	}
	return kept
}

// write runs one transaction. results holds the operations' own errors; the error returned is the transaction's.
func (s *Spool) write(batch []operation) (results []error, counts Counts, err error) {
	results = make([]error, len(batch))
	if err := s.Err(); err != nil {
		return results, counts, err
	}
	defer func() {
		if failure := recover(); failure != nil {
			err = s.fail(fmt.Errorf("write %s: %v", s.path, failure), true)
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	t := &tables{counts: s.Counts(), writers: make(map[*Writer]bool)}
	err = s.db.Update(func(tx *bolt.Tx) error {
		t.tx = tx
		for i, op := range batch {
			results[i] = op.apply(t)
			if t.failure != nil {
				return t.failure
			}
		}
		s.markOpen(t)
		return t.failure
	})
	if err != nil {
		clear(s.recent) // it may have been changed, and the file was not
	} else {
		for w := range t.writers {
			w.stored = true
		}
		if len(t.settled) > 0 {
			s.mu.Lock()
			s.outcomes.add(t.settled)
			s.mu.Unlock()
			select {
			case s.settled <- struct{}{}:
			default:
			}
		}
	}
	return results, t.counts, err
}

// markOpen records the messages that have chunks in the file but are not accepted, so that a start after a
// crash finds and sweeps them, and unmarks the others.
func (s *Spool) markOpen(t *tables) {
	open := t.bucket(openBucket)
	for w, ended := range t.writers {
		switch {
		case ended && w.stored:
			t.delete(open, idKey(w.id))
		case !ended && !w.stored:
			t.put(open, idKey(w.id), nil)
		}
	}
}

// Err is the failure that stopped the spool, nil while it works.
func (s *Spool) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

// nextID gives out an id: the time, or one more than the last where the clock has not moved on or went back.
func (s *Spool) nextID() trace.ID {
	now := trace.IDAt(s.now())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID = max(s.lastID+1, now)
	return s.lastID
}

// deleteChunksFrom removes the chunks of a message, beginning with a sequence.
func deleteChunksFrom(chunks *bolt.Bucket, id []byte, sequence uint32) error {
	cursor := chunks.Cursor()
	var keys [][]byte
	for key, _ := cursor.Seek(chunkKey(idOf(id), sequence)); len(key) == 12 && slices.Equal(key[:8], id); key, _ = cursor.Next() {
		keys = append(keys, slices.Clone(key))
	}
	for _, key := range keys {
		if err := chunks.Delete(key); err != nil {
			return err
		}
	}
	return nil
}
