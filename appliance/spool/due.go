package spool

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"mailchute/appliance/trace"
)

// A key of the due index is: connector 0 device 0 sender 0 time (8 bytes, microseconds) id (8 bytes). So the messages
// of a connector, of a device in it, of a sender in that lie together, the longest due first, and any of
// them can be passed over in one step. A message on hold is not in it.
const dueTail = 8 + 8

func dueKey(connector, device, sender string, next time.Time, id trace.ID) []byte {
	key := make([]byte, 0, len(connector)+len(device)+len(sender)+3+dueTail)
	key = append(append(key, connector...), 0)
	key = append(append(key, device...), 0)
	key = append(append(key, sender...), 0)
	key = binary.BigEndian.AppendUint64(key, uint64(max(next.UnixMicro(), 0)))
	return binary.BigEndian.AppendUint64(key, uint64(id))
}

// dueKeys are the keys of an envelope in the due index.
func dueKeys(e *Envelope) [][]byte {
	if e.Hold != nil {
		return nil
	}
	keys := make([][]byte, len(e.Legs))
	for i, leg := range e.Legs {
		keys[i] = dueKey(leg.Connector, e.Device, e.Sender, leg.Next, e.ID)
	}
	return keys
}

func (t *tables) putAll(name []byte, keys [][]byte) {
	b := t.bucket(name)
	for _, key := range keys {
		t.put(b, key, nil)
	}
}

// Due is one message that is due at a connector.
type Due struct {
	ID             trace.ID
	Device, Sender string
	Next           time.Time
}

func readDue(key []byte) (connector string, due Due, ok bool) {
	fields := bytes.SplitN(key, []byte{0}, 4)
	if len(fields) != 4 || len(fields[3]) != dueTail {
		return "", due, false
	}
	due = Due{
		ID: idOf(fields[3][8:]), Device: string(fields[1]), Sender: string(fields[2]),
		Next: time.UnixMicro(int64(binary.BigEndian.Uint64(fields[3]))),
	}
	return string(fields[0]), due, true
}

// Turns remembers whose turn it is at a connector, so that devices, and the senders of a device, are served one
// after the other.
type Turns struct {
	device  string
	senders map[string]string
}

// Pass says what Due passes over.
type Pass struct {
	Sender  func(sender string) bool // all mail of this sender
	Message func(id trace.ID) bool   // this message
	Beyond  time.Time                // what is put off for longer is due: the clock was ahead then; zero: nothing is
}

// Due finds up to limit messages that are due at a connector, at most share of one device. soonest is when the next of those not yet due will be; zero: none, or the limit was reached.
func (s *Spool) Due(connector string, turns *Turns, now time.Time, limit, share int, pass Pass) (found []Due, soonest time.Time, err error) {
	if turns.senders == nil {
		turns.senders = make(map[string]string)
	}
	err = s.view(func(tx *bolt.Tx) error {
		found, soonest = found[:0], time.Time{}
		w := walk{cursor: tx.Bucket(dueBucket).Cursor(), connector: append([]byte(connector), 0), now: now, pass: pass}
		devices := w.devices(turns.device)
		for _, device := range devices {
			if len(found) >= limit {
				soonest = time.Time{}
				return nil
			}
			some, sender := w.device(device, turns.senders[device], min(share, limit-len(found)))
			if len(some) > 0 {
				turns.device, turns.senders[device] = device, sender
			}
			found = append(found, some...)
			soonest = w.soonest
		}
		if len(found) >= limit {
			soonest = time.Time{}
		}
		if len(turns.senders) > len(devices) { // forget those that have nothing waiting
			maps.DeleteFunc(turns.senders, func(device, _ string) bool { return !slices.Contains(devices, device) })
		}
		return nil
	})
	return found, soonest, err
}

// walk goes over the due index of one connector by steps from lane to lane.
type walk struct {
	cursor    *bolt.Cursor
	connector []byte // with its final 0
	now       time.Time
	pass      Pass
	soonest   time.Time
}

// devices lists the devices that have mail here, beginning with the one after the last served.
func (w *walk) devices(last string) []string {
	var before, after []string
	for key, _ := w.cursor.Seek(w.connector); bytes.HasPrefix(key, w.connector); {
		_, due, ok := readDue(key)
		if !ok {
			key, _ = w.cursor.Next()
			continue
		}
		if due.Device > last {
			after = append(after, due.Device)
		} else {
			before = append(before, due.Device)
		}
		key, _ = w.cursor.Seek(append(append(bytes.Clone(w.connector), due.Device...), 1))
	}
	return append(after, before...)
}

// device collects up to limit due messages of one device, its senders taking turns after the last served.
func (w *walk) device(device, last string, limit int) (found []Due, sender string) {
	prefix := append(append(bytes.Clone(w.connector), device...), 0)
	senders := w.senders(prefix, last)
	share := max(1, limit/max(1, len(senders)))
	for _, lane := range senders {
		if len(found) >= limit {
			break
		}
		taken := 0
		start := append(append(bytes.Clone(prefix), lane...), 0)
		for key, _ := w.cursor.Seek(start); bytes.HasPrefix(key, start) && taken < share && len(found) < limit; key, _ = w.cursor.Next() {
			_, due, ok := readDue(key)
			if !ok {
				continue
			}
			if w.isEarly(due) {
				break
			}
			if w.pass.Message(due.ID) {
				continue
			}
			found, sender, taken = append(found, due), lane, taken+1
		}
	}
	return found, sender
}

// isEarly: it is not yet due, nor what comes after it in its lane.
func (w *walk) isEarly(due Due) bool {
	if !due.Next.After(w.now) || !w.pass.Beyond.IsZero() && due.Next.After(w.pass.Beyond) {
		return false
	}
	if w.soonest.IsZero() || due.Next.Before(w.soonest) {
		w.soonest = due.Next
	}
	return true
}

// maxSenders bounds the senders of one device with mail that is due that are listed in one go.
const maxSenders = 256

func (w *walk) senders(prefix []byte, last string) []string {
	var senders []string
	collect := func(from []byte, until func(string) bool) {
		for key, _ := w.cursor.Seek(from); bytes.HasPrefix(key, prefix) && len(senders) < maxSenders; {
			_, due, ok := readDue(key)
			if !ok {
				key, _ = w.cursor.Next()
				continue
			}
			if until(due.Sender) {
				return
			}
			if !w.pass.Sender(due.Sender) && !w.isEarly(due) {
				senders = append(senders, due.Sender)
			}
			key, _ = w.cursor.Seek(append(append(bytes.Clone(prefix), due.Sender...), 1))
		}
	}
	collect(append(append(bytes.Clone(prefix), last...), 1), func(string) bool { return false })
	collect(prefix, func(sender string) bool { return sender > last })
	return senders
}

// Lanes lists the connectors that have mail in the due index: those of earlier settings too.
func (s *Spool) Lanes() (connectors []string, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		connectors = nil
		cursor := tx.Bucket(dueBucket).Cursor()
		for key, _ := cursor.First(); key != nil; {
			connector, _, ok := readDue(key)
			if !ok {
				key, _ = cursor.Next()
				continue
			}
			connectors = append(connectors, connector)
			key, _ = cursor.Seek(append([]byte(connector), 1))
		}
		return nil
	})
	return connectors, err
}
