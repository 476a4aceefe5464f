package spool

import (
	"bytes"
	"fmt"
	"slices"
	"sync"

	bolt "go.etcd.io/bbolt"

	"mailchute/appliance/trace"
)

// Change lets fn alter an envelope and returns when the result is on disk. When no recipient is left waiting or
// failed, the message leaves the queue and its record becomes an outcome for the trace. ID, Device, Sender and Size
// stay as they are. An error of fn changes nothing and is returned; so is ErrFull where the disk has no room left.
func (s *Spool) Change(id trace.ID, fn func(*Envelope) error) error {
	return s.run(s.change(id, fn))
}

// ChangeLater is Change without the wait, for the result of a delivery: it may wait a little for company. done, which must not block, is told the result after the flush. A full
// disk does not lose it: it is tried again until there is room.
func (s *Spool) ChangeLater(id trace.ID, fn func(*Envelope) error, done func(error)) {
	op := s.change(id, fn)
	op.keep, op.done = true, done
	s.add(op, soon)
}

// ChangeAll is Change for many messages in one flush; the errors are in the order of the ids.
func (s *Spool) ChangeAll(ids []trace.ID, fn func(*Envelope) error) []error {
	errs := make([]error, len(ids))
	var wg sync.WaitGroup
	wg.Add(len(ids))
	s.mu.Lock()
	for i, id := range ids {
		op := s.change(id, fn)
		op.done = func(err error) { errs[i] = err; wg.Done() }
		if err := s.addLocked(op, now); err != nil {
			op.done(err)
		}
	}
	s.mu.Unlock()
	wg.Wait()
	return errs
}

func (s *Spool) change(id trace.ID, fn func(*Envelope) error) operation {
	return operation{apply: func(t *tables) error {
		key := idKey(id)
		envelopes := t.bucket(envelopeBucket)
		stored := envelopes.Get(key)
		if stored == nil {
			return fmt.Errorf("%w: %s", ErrNotFound, id)
		}
		e := s.recent[id]
		delete(s.recent, id) // what fn makes of it may not be kept
		if e == nil {
			var err error
			if e, err = s.decode(id, stored); err != nil {
				return err
			}
		}
		before, dues := headOf(e), dueKeys(e)
		if err := fn(e); err != nil {
			return err
		}
		after := headOf(e)
		if after.settled() {
			return s.settle(t, e, before, dues)
		}
		value, err := encodeEnvelope(e)
		if err != nil {
			return err
		}
		t.put(envelopes, key, value)
		t.reindex(dues, dueKeys(e))
		t.counts.add(before, -1)
		t.counts.add(after, 1)
		return nil
	}}
}

func (t *tables) reindex(before, after [][]byte) {
	b := t.bucket(dueBucket)
	for _, key := range before {
		t.delete(b, key)
	}
	t.putAll(dueBucket, after)
}

// settle removes a message that is done and keeps what became of it, in the same transaction.
func (s *Spool) settle(t *tables, e *Envelope, before head, dues [][]byte) error {
	e.Done = s.now()
	e.Legs, e.Hold = nil, nil
	value, err := encodeEnvelope(e)
	if err != nil {
		return err
	}
	key := idKey(e.ID)
	t.put(t.bucket(outcomeBucket), key, value)
	t.settled = append(t.settled, e.Record)
	t.reindex(dues, nil)
	t.delete(t.bucket(envelopeBucket), key)
	chunks := t.bucket(chunkBucket)
	for sequence := range chunkCount(e.Size) {
		t.delete(chunks, chunkKey(e.ID, sequence))
	}
	t.counts.add(before, -1)
	return nil
}

func chunkCount(size int64) uint32 { return uint32((size + chunkSize - 1) / chunkSize) }

// Get reads an envelope.
func (s *Spool) Get(id trace.ID) (e *Envelope, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		value := tx.Bucket(envelopeBucket).Get(idKey(id))
		if value == nil {
			return fmt.Errorf("%w: %s", ErrNotFound, id)
		}
		e, err = s.decode(id, value)
		return err
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// decode reads a stored envelope; one that is damaged stops the spool, for the next start to salvage the file.
func (s *Spool) decode(id trace.ID, value []byte) (*Envelope, error) {
	e, err := decodeEnvelope(value)
	if err != nil {
		return nil, s.fail(fmt.Errorf("message %s: %w", id, err), true)
	}
	return e, nil
}

// stretch is how many records a long walk looks at in one transaction, so that it does not hold up the committer.
const stretch = 1000

// List reads envelopes in the order they came in, from an id on (0: the oldest), those that match want, up to limit.
func (s *Spool) List(from trace.ID, limit int, want func(*Envelope) bool) ([]*Envelope, error) {
	return s.list(limit, want, func(cursor *bolt.Cursor) ([]byte, []byte) { return cursor.Seek(idKey(from)) },
		(*bolt.Cursor).Next, func(last trace.ID) { from = last + 1 })
}

// Newest is List backwards: those before an id (0: the newest), the newest first.
func (s *Spool) Newest(before trace.ID, limit int, want func(*Envelope) bool) ([]*Envelope, error) {
	return s.list(limit, want, func(cursor *bolt.Cursor) ([]byte, []byte) {
		if before != 0 {
			if key, _ := cursor.Seek(idKey(before)); key != nil {
				return cursor.Prev()
			}
		}
		return cursor.Last()
	}, (*bolt.Cursor).Prev, func(last trace.ID) { before = last })
}

// list walks the envelopes by start and step; goOn moves the start behind the last one seen.
func (s *Spool) list(limit int, want func(*Envelope) bool, start, step func(*bolt.Cursor) ([]byte, []byte), goOn func(last trace.ID)) (list []*Envelope, err error) {
	for more := true; more; {
		err = s.view(func(tx *bolt.Tx) error {
			cursor := tx.Bucket(envelopeBucket).Cursor()
			key, value := start(cursor)
			for range stretch {
				if key == nil || len(list) >= limit {
					more = false
					return nil
				}
				e, err := s.decode(idOf(key), value)
				if err != nil {
					return err
				}
				if want(e) {
					list = append(list, e)
				}
				goOn(idOf(key))
				key, value = step(cursor)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// outcomes are the records of messages that have left the queue and that the trace does not have yet. Those of this
// run are in memory too, as long as the trace keeps up; the file has all of them.
type outcomes struct {
	records []trace.Record
	whole   bool              // records are all that the file has, but for those hidden
	hidden  map[trace.ID]bool // the trace has them; still to be removed from the file
}

// maxOutcomes are kept in memory: a second's worth.
const maxOutcomes = 8000

// add takes what a commit has settled.
func (o *outcomes) add(records []trace.Record) {
	if len(o.records)+len(records) > maxOutcomes {
		o.records, o.whole = nil, false
	}
	if o.whole {
		o.records = append(o.records, records...)
	}
}

// Outcomes gives up to limit records of messages that have left the queue and that the trace does not have yet.
func (s *Spool) Outcomes(limit int) (records []trace.Record, err error) {
	s.mu.Lock()
	whole := s.outcomes.whole
	if whole {
		records = slices.Clone(s.outcomes.records[:min(limit, len(s.outcomes.records))])
	}
	s.mu.Unlock()
	if whole {
		return records, nil
	}
	err = s.view(func(tx *bolt.Tx) error {
		records = nil
		cursor := tx.Bucket(outcomeBucket).Cursor()
		for key, value := cursor.First(); key != nil && len(records) < limit; key, value = cursor.Next() {
			if s.isHidden(idOf(key)) {
				continue
			}
			e, err := s.decode(idOf(key), value)
			if err != nil {
				return err
			}
			records = append(records, e.Record)
		}
		return nil
	})
	return records, err
}

// Settled tells that messages have left the queue since it was last heard: there are Outcomes.
func (s *Spool) Settled() <-chan struct{} { return s.settled }

// Outcome reads the record of one message that has left the queue; ErrNotFound where the trace has it already.
func (s *Spool) Outcome(id trace.ID) (record trace.Record, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		value := tx.Bucket(outcomeBucket).Get(idKey(id))
		if value == nil {
			return fmt.Errorf("%w: %s", ErrNotFound, id)
		}
		e, err := s.decode(id, value)
		if err == nil {
			record = e.Record
		}
		return err
	})
	return record, err
}

func (s *Spool) isHidden(id trace.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.outcomes.hidden[id]
}

// Forget removes outcomes that the trace has on disk, with the next commit; it starts none.
func (s *Spool) Forget(ids []trace.ID) {
	s.mu.Lock()
	for _, id := range ids {
		s.outcomes.hidden[id] = true
	}
	s.outcomes.records = slices.DeleteFunc(s.outcomes.records, func(r trace.Record) bool { return s.outcomes.hidden[r.ID] })
	s.mu.Unlock()
	s.add(operation{keep: true, apply: func(t *tables) error {
		b := t.bucket(outcomeBucket)
		for _, id := range ids {
			t.delete(b, idKey(id))
		}
		return nil
	}, done: func(error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, id := range ids {
			delete(s.outcomes.hidden, id)
		}
	}}, rides)
}

// At lists the messages that wait at a connector, due or not, up to limit; next is where to go on, nil at the end.
func (s *Spool) At(connector string, from []byte, limit int) (ids []trace.ID, next []byte, err error) {
	prefix := append([]byte(connector), 0)
	err = s.view(func(tx *bolt.Tx) error {
		ids, next = nil, nil
		cursor := tx.Bucket(dueBucket).Cursor()
		key, _ := cursor.Seek(append(bytes.Clone(prefix), from...))
		for ; bytes.HasPrefix(key, prefix); key, _ = cursor.Next() {
			if len(ids) == limit {
				next = bytes.Clone(key[len(prefix):])
				return nil
			}
			if _, due, ok := readDue(key); ok {
				ids = append(ids, due.ID)
			}
		}
		return nil
	})
	return ids, next, err
}
