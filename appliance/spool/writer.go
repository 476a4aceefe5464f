package spool

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"sync"

	"mailchute/appliance/trace"
)

// A chunk is stored as the CRC-32C of its data (4 bytes) and the data. Two of them with their keys fill 8 pages of bbolt
// to the byte, so that a body takes no more room than it has. Each commit writes the last two to four chunks of a
// message again, as bbolt splits no page with fewer: so small chunks write less (BenchmarkScans: 1.04 bytes a byte).
const (
	chunkSize   = 16344 // bytes of data
	chunkHeader = 4
)

// maxRecent envelopes are kept in memory, so that the first result of a fresh message need not read it again.
const maxRecent = 1000

var chunkBuffers = sync.Pool{New: func() any {
	buffer := make([]byte, chunkHeader, chunkHeader+chunkSize)
	return &buffer
}}

// Writer takes in one message. It is used by one goroutine at a time.
type Writer struct {
	s     *Spool
	id    trace.ID
	size  int64
	count uint32  // chunks handed to the committer
	chunk *[]byte // being filled; nil: none
	err   error   // the first failure: the message cannot be accepted any more
	small []byte  // the whole body, where it is a single chunk

	failure error // of a chunk on its way to the disk; guarded by s.mu
	aborted bool  // guarded by s.mu

	stored bool // chunks of it are in the file; the committer's
}

// Create begins a message. Accept or Abort ends it.
func (s *Spool) Create() *Writer { return &Writer{s: s, id: s.nextID()} }

// ID is the message's id, from the start.
func (w *Writer) ID() trace.ID { return w.id }

// Size is the number of bytes written so far.
func (w *Writer) Size() int64 { return w.size }

// Write takes the next bytes of the body and copies them. It waits for the disk when more than 4 MiB of all
// sessions wait to be written, and returns ErrFull when the queue has reached its ceiling.
func (w *Writer) Write(p []byte) (n int, err error) {
	for len(p) > 0 && w.err == nil {
		if w.chunk == nil {
			w.chunk = chunkBuffers.Get().(*[]byte)
		}
		room := chunkHeader + chunkSize - len(*w.chunk)
		part := p[:min(room, len(p))]
		*w.chunk = append(*w.chunk, part...)
		p, n, w.size = p[len(part):], n+len(part), w.size+int64(len(part))
		if len(part) == room {
			w.err = w.flush()
		}
	}
	return n, w.err
}

// flush hands a full chunk to the committer.
func (w *Writer) flush() error {
	s := w.s
	buffer, sequence := w.chunk, w.count
	w.chunk, w.count = nil, w.count+1
	seal(*buffer)

	s.mu.Lock()
	defer s.mu.Unlock()
	for s.loading >= pendingLimit && s.failure == nil && !s.closing {
		s.took.Wait()
	}
	if w.failure != nil {
		return w.failure
	}
	if s.overLocked(int64(len(*buffer))) {
		return ErrFull
	}
	return s.addLocked(operation{
		mail:   true,
		loaded: int64(len(*buffer)),
		apply: func(t *tables) error {
			if !w.gone() {
				t.put(t.bucket(chunkBucket), chunkKey(w.id, sequence), *buffer)
				t.writers[w] = false
			}
			return nil
		},
		done: func(err error) {
			*buffer = (*buffer)[:chunkHeader]
			chunkBuffers.Put(buffer)
			if err != nil {
				s.mu.Lock()
				w.failure = err
				s.mu.Unlock()
			}
		},
	}, rides)
}

func seal(chunk []byte) {
	binary.BigEndian.PutUint32(chunk, crc32.Checksum(chunk[chunkHeader:], castagnoli))
}

// Accept stores the envelope and returns when body and envelope are on disk. After an error the message does
// not exist. The envelope's id and size are set here; from here on it belongs to the spool.
func (w *Writer) Accept(e *Envelope) error {
	if w.err != nil {
		w.Abort()
		return w.err
	}
	e.ID, e.Size = w.id, w.size
	value, err := encodeEnvelope(e)
	if err != nil {
		w.Abort()
		return err
	}
	var last []byte
	if w.chunk != nil {
		last = append(make([]byte, 0, len(*w.chunk)), *w.chunk...)
		seal(last)
		w.release()
	}
	if w.count == 0 && last != nil {
		w.small = last[chunkHeader:]
	}
	h, dues := headOf(e), dueKeys(e)
	err = w.s.run(operation{mail: true, loaded: int64(len(last)), apply: func(t *tables) error {
		if err := w.lost(); err != nil {
			return err
		}
		if last != nil {
			t.put(t.bucket(chunkBucket), chunkKey(w.id, w.count), last)
		}
		envelopes := t.bucket(envelopeBucket)
		t.put(envelopes, idKey(w.id), value)
		if err := envelopes.SetSequence(max(envelopes.Sequence(), uint64(w.id))); err != nil && t.failure == nil {
			t.failure = err
		}
		t.putAll(dueBucket, dues)
		t.counts.add(h, 1)
		t.writers[w] = true
		if len(w.s.recent) < maxRecent {
			w.s.recent[w.id] = e
		}
		return nil
	}})
	if err != nil {
		w.err = err
		w.Abort()
	}
	w.count = 0
	return err
}

// lost: a chunk did not reach the disk.
func (w *Writer) lost() error {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.failure
}

// Body is the accepted message while it is small enough to be kept in memory (one chunk), else nil. It must not
// be changed.
func (w *Writer) Body() []byte { return w.small }

// Abort forgets the message. It is harmless after Accept.
func (w *Writer) Abort() {
	w.release()
	if w.err == nil {
		w.err = io.ErrClosedPipe
	}
	if w.count == 0 {
		return
	}
	count := w.count
	w.count = 0
	w.s.mu.Lock()
	w.aborted = true
	w.s.mu.Unlock()
	w.s.add(operation{keep: true, apply: func(t *tables) error {
		chunks := t.bucket(chunkBucket)
		for sequence := range count {
			t.delete(chunks, chunkKey(w.id, sequence))
		}
		t.writers[w] = true
		return nil
	}}, now)
}

func (w *Writer) gone() bool {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.aborted
}

func (w *Writer) release() {
	if w.chunk != nil {
		*w.chunk = (*w.chunk)[:chunkHeader]
		chunkBuffers.Put(w.chunk)
		w.chunk = nil
	}
}
