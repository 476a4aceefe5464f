package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"mailchute/appliance/boltfile"
	"mailchute/appliance/trace"
)

// Salvage tells what was saved out of a damaged queue file.
type Salvage struct {
	Aside   string // where the damaged file lies now; it is never deleted
	Damage  error  // what was wrong with it
	Saved   int    // messages in the new file
	Held    int    // of them on hold, because they may have been delivered already
	Missing []Lost // messages that could not be saved
}

// Lost is a message that was in the queue and cannot be read whole any more.
type Lost struct {
	ID         trace.ID
	Sender     string // as far as the envelope is readable
	Recipients []string
	Why        string
}

// openOrSalvage opens a sound file, and makes a sound one out of what is readable in a damaged one.
func openOrSalvage(path string, options Options) (*bolt.DB, *Salvage, error) {
	damage := suspected(path)
	if damage == nil {
		damage = boltfile.Verify(path)
	}
	switch {
	case damage == nil:
		db, err := openFile(path)
		return db, nil, err
	case !errors.Is(damage, boltfile.ErrDamaged):
		return nil, nil, fmt.Errorf("open the queue: %w", damage)
	}
	salvage := &Salvage{Damage: damage, Aside: fmt.Sprintf("%s.damaged-%s", path, options.Now().UTC().Format("20060102T150405.000000"))}
	fresh := path + ".salvaged"
	if err := salvage.fill(path, fresh, options.Now()); err != nil {
		return nil, nil, fmt.Errorf("salvage %s: %w", path, err)
	}
	// The damaged file gets its second name first: at no moment is there no queue file.
	if err := os.Link(path, salvage.Aside); err != nil {
		return nil, nil, fmt.Errorf("set the damaged queue file aside: %w", err)
	}
	if err := os.Rename(fresh, path); err != nil {
		return nil, nil, fmt.Errorf("put the salvaged queue file in place: %w", err)
	}
	if err := errors.Join(removeIfThere(suspectMark(path)), syncFolder(filepath.Dir(path))); err != nil {
		return nil, nil, err
	}
	db, err := openFile(path)
	return db, salvage, err
}

func suspected(path string) error {
	if _, err := os.Stat(suspectMark(path)); err == nil {
		return fmt.Errorf("the run before found it %w", boltfile.ErrDamaged)
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// found is what is readable in a damaged file. Values lie in the mapped file.
type found struct {
	file      *boltfile.File
	envelopes map[trace.ID][]byte
	strays    map[trace.ID]*Envelope // outside the index: of an older state of the file
	outcomes  map[trace.ID][]byte
	state     map[string][]byte
	chunks    map[[12]byte][]byte
	mentioned map[trace.ID]string // ids in the indexes, with their sender where it is known
	open      map[trace.ID]bool   // never accepted
}

// fill makes a new queue file of all that is readable in a damaged one.
func (s *Salvage) fill(path, fresh string, now time.Time) error {
	file, err := boltfile.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return s.take(file, fresh, now)
}

func (s *Salvage) take(file *boltfile.File, fresh string, now time.Time) error {
	f := &found{
		file: file, envelopes: make(map[trace.ID][]byte), strays: make(map[trace.ID]*Envelope),
		outcomes: make(map[trace.ID][]byte), state: make(map[string][]byte), chunks: make(map[[12]byte][]byte),
		mentioned: make(map[trace.ID]string), open: make(map[trace.ID]bool),
	}
	if err := file.Each(f.add); err != nil {
		file.Strays(f.addStray)
	}
	if err := removeIfThere(fresh); err != nil {
		return err
	}
	db, err := openFile(fresh)
	if err != nil {
		return err
	}
	db.NoSync = true
	if fault := boltfile.Protect(func() { err = s.copy(f, db, now) }); fault != nil {
		err = fault
	}
	return errors.Join(err, db.Sync(), db.Close())
}

// add takes an element of the tree.
func (f *found) add(bucket string, key, value []byte) {
	switch {
	case bucket == string(chunkBucket) && len(key) == 12:
		f.chunks[[12]byte(key)] = value
		if id := idOf(key); f.mentioned[id] == "" {
			f.mentioned[id] = ""
		}
	case bucket == string(dueBucket):
		if _, due, ok := readDue(key); ok {
			f.mentioned[due.ID] = due.Sender
		}
	case bucket == string(openBucket) && len(key) == 8:
		f.open[idOf(key)] = true
	case bucket == string(envelopeBucket) && len(key) == 8:
		f.envelopes[idOf(key)] = value
	case bucket == string(outcomeBucket) && len(key) == 8:
		f.outcomes[idOf(key)] = value
	case bucket == string(stateBucket):
		f.state[string(key)] = value
	}
}

// addStray takes an element outside the tree, which a damaged branch may have cut off. Most are of old states of pages:
// a chunk is the same in every state, an envelope may be of a message that is long delivered.
func (f *found) addStray(key, value []byte) {
	switch len(key) {
	case 12:
		if _, ok := f.chunks[[12]byte(key)]; !ok && soundChunk(value) {
			f.chunks[[12]byte(key)] = value
		}
	case 8:
		e, err := decodeEnvelope(value)
		if err != nil || e.ID != idOf(key) || !e.Done.IsZero() || !f.file.Harmed(string(envelopeBucket)) {
			return
		}
		if other := f.strays[e.ID]; other == nil || len(other.Events)+other.Skipped < len(e.Events)+e.Skipped {
			f.strays[e.ID] = e
		}
	}
}

func soundChunk(value []byte) bool {
	return len(value) > chunkHeader && crc32.Checksum(value[chunkHeader:], castagnoli) == binary.BigEndian.Uint32(value)
}

// salvageEnvelope reads a value that the disk may not be able to read.
func salvageEnvelope(value []byte) (e *Envelope, err error) {
	if fault := boltfile.Protect(func() { e, err = decodeEnvelope(value) }); fault != nil {
		return nil, fault
	}
	return e, err
}

func (s *Salvage) copy(f *found, db *bolt.DB, now time.Time) error {
	for id, value := range f.envelopes {
		e, err := salvageEnvelope(value)
		if err != nil {
			s.lose(&Envelope{Record: trace.Record{ID: id}}, "its envelope is not readable: "+err.Error())
			continue
		}
		delete(f.strays, id)
		if err := s.save(f, db, e, now); err != nil {
			return err
		}
	}
	for id, sender := range f.mentioned {
		if f.envelopes[id] == nil && f.strays[id] == nil && f.outcomes[id] == nil && !f.open[id] {
			s.lose(&Envelope{Record: trace.Record{ID: id, Sender: sender}}, "its envelope is not there any more")
		}
	}
	for id, e := range f.strays {
		if f.outcomes[id] != nil || headOf(e).settled() {
			continue
		}
		if e.Hold == nil {
			e.Hold = &Hold{By: "mailchute", Since: now, Why: "it was found outside the index of a damaged queue file: it may have been delivered already"}
		}
		s.Held++
		if err := s.save(f, db, e, now); err != nil {
			return err
		}
	}
	return db.Update(func(tx *bolt.Tx) error {
		for name, value := range f.state {
			if boltfile.Protect(func() { value = bytes.Clone(value) }) != nil {
				continue // what it kept is found out again
			}
			if err := tx.Bucket(stateBucket).Put([]byte(name), value); err != nil {
				return err
			}
		}
		last := uint64(trace.IDAt(now))
		outcomes := tx.Bucket(outcomeBucket)
		for id, value := range f.outcomes {
			last = max(last, uint64(id))
			if _, err := salvageEnvelope(value); err != nil {
				s.lose(&Envelope{Record: trace.Record{ID: id}}, "it had left the queue, and what became of it is not readable: "+err.Error())
				continue
			}
			if err := outcomes.Put(idKey(id), value); err != nil {
				return err
			}
		}
		for _, lost := range s.Missing { // the trace is to show them
			e := Envelope{Record: trace.Record{ID: lost.ID, Accepted: lost.ID.Time(), Sender: lost.Sender, Done: now}}
			for _, recipient := range lost.Recipients {
				e.Recipients = append(e.Recipients, trace.Recipient{Address: recipient, State: trace.Failed, Reply: lost.Why})
			}
			e.Add(trace.Event{Time: now, Kind: trace.Lost, Text: lost.Why})
			value, err := encodeEnvelope(&e)
			if err == nil {
				err = outcomes.Put(idKey(lost.ID), value)
			}
			if err != nil {
				return err
			}
		}
		envelopes := tx.Bucket(envelopeBucket)
		return envelopes.SetSequence(max(last, envelopes.Sequence()))
	})
}

// save puts one message into the new file, if its body is whole.
func (s *Salvage) save(f *found, db *bolt.DB, e *Envelope, now time.Time) error {
	var chunks [][]byte
	size := int64(0)
	for sequence := range chunkCount(e.Size) {
		value := f.chunks[[12]byte(chunkKey(e.ID, sequence))]
		sound := false
		_ = boltfile.Protect(func() { sound = soundChunk(value) })
		if !sound {
			if f.strays[e.ID] == e { // an old envelope whose body is gone was delivered
				s.Held--
				return nil
			}
			s.lose(e, fmt.Sprintf("%v: chunk %d of %d of its body is missing or its checksum is wrong", ErrDamaged, sequence+1, chunkCount(e.Size)))
			return nil
		}
		size += int64(len(value) - chunkHeader)
		chunks = append(chunks, value)
	}
	if size != e.Size {
		s.lose(e, fmt.Sprintf("%v: %d bytes of %d are there", ErrDamaged, size, e.Size))
		return nil
	}
	e.Add(trace.Event{Time: now, Kind: trace.Salvaged, Text: "out of a damaged queue file"})
	value, err := encodeEnvelope(e)
	if err != nil {
		return err
	}
	s.Saved++
	const atOnce = pendingLimit / chunkSize // so that memory does not grow with the body
	for first := 0; first < len(chunks); first += atOnce {
		err := db.Update(func(tx *bolt.Tx) error {
			t := &tables{tx: tx}
			bucket := t.bucket(chunkBucket)
			for i, chunk := range chunks[first:min(first+atOnce, len(chunks))] {
				t.put(bucket, chunkKey(e.ID, uint32(first+i)), chunk)
			}
			return t.failure
		})
		if err != nil {
			return err
		}
	}
	return db.Update(func(tx *bolt.Tx) error {
		t := &tables{tx: tx}
		envelopes := t.bucket(envelopeBucket)
		t.put(envelopes, idKey(e.ID), value)
		t.putAll(dueBucket, dueKeys(e))
		return errors.Join(t.failure, envelopes.SetSequence(max(envelopes.Sequence(), uint64(e.ID))))
	})
}

func (s *Salvage) lose(e *Envelope, why string) {
	lost := Lost{ID: e.ID, Sender: e.Sender, Why: why}
	for _, r := range e.Recipients {
		lost.Recipients = append(lost.Recipients, r.Address)
	}
	s.Missing = append(s.Missing, lost)
}
