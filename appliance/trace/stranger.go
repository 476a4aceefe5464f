package trace

import (
	"container/list"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

// Stranger counts what one address that may not send was refused.
type Stranger struct {
	Address   netip.Addr `json:"address"`
	First     time.Time  `json:"first"`
	Last      time.Time  `json:"last"`
	Count     int        `json:"count"`     // refusals since First
	Sender    string     `json:"sender"`    // of the last one, at most 256 bytes, as the two below
	Recipient string     `json:"recipient"` // of the last one, where it came that far
	Reason    string     `json:"reason"`    // of the last one
}

const (
	maxStrangers    = 1000
	maxStrangerText = 256
)

// Refused counts a refusal of an address that may not send. It is on disk with the next Add. Of more than a
// thousand addresses, the one not seen for the longest time is forgotten.
func (s *Store) Refused(address netip.Addr, sender, recipient, reason string) {
	s.strangers.refused(address, sender, recipient, reason, time.Now())
}

// Strangers lists who was refused, the last seen first.
func (s *Store) Strangers() []Stranger { return s.strangers.list() }

// strangers is the list in memory; the zero value is empty.
type strangers struct {
	mutex     sync.Mutex
	seen      list.List // of *stranger, the last seen at the front
	byAddress map[netip.Addr]*list.Element
	gone      map[netip.Addr]bool // forgotten, and still in the file
}

type stranger struct {
	Stranger
	stored  bool // in the file
	changed bool // since it was written
}

func (s *strangers) refused(address netip.Addr, sender, recipient, reason string, now time.Time) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	entry := s.enter(address.Unmap())
	if entry.Count == 0 {
		entry.First = now
	}
	entry.Last = now
	entry.Count++
	entry.Sender = cut(sender, maxStrangerText)
	entry.Recipient = cut(recipient, maxStrangerText)
	entry.Reason = cut(reason, maxStrangerText)
	entry.changed = true
}

// enter gives the entry of an address, now in front; where there is none, it makes it and room for it.
func (s *strangers) enter(address netip.Addr) *stranger {
	if element, ok := s.byAddress[address]; ok {
		s.seen.MoveToFront(element)
		return element.Value.(*stranger)
	}
	if s.byAddress == nil {
		s.byAddress, s.gone = make(map[netip.Addr]*list.Element), make(map[netip.Addr]bool)
	}
	if s.seen.Len() >= maxStrangers {
		oldest := s.seen.Remove(s.seen.Back()).(*stranger)
		delete(s.byAddress, oldest.Address)
		if oldest.stored {
			s.gone[oldest.Address] = true
		}
	}
	entry := &stranger{Stranger: Stranger{Address: address}, stored: s.gone[address]}
	delete(s.gone, address)
	s.byAddress[address] = s.seen.PushFront(entry)
	return entry
}

func (s *strangers) list() []Stranger {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	all := make([]Stranger, 0, s.seen.Len())
	for element := s.seen.Front(); element != nil; element = element.Next() {
		all = append(all, element.Value.(*stranger).Stranger)
	}
	return all
}

// strangerChanges is what the file does not have yet.
type strangerChanges struct {
	put     []Stranger
	deleted []netip.Addr
}

func (c *strangerChanges) empty() bool { return len(c.put)+len(c.deleted) == 0 }

// changes gives what is to be written, and takes it for written.
func (s *strangers) changes() strangerChanges {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	var changes strangerChanges
	for element := s.seen.Front(); element != nil; element = element.Next() {
		if entry := element.Value.(*stranger); entry.changed {
			changes.put = append(changes.put, entry.Stranger)
			entry.changed, entry.stored = false, true
		}
	}
	for address := range s.gone {
		changes.deleted = append(changes.deleted, address)
	}
	clear(s.gone)
	return changes
}

// unwritten takes back changes that could not be written.
func (s *strangers) unwritten(changes strangerChanges) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, put := range changes.put {
		if element, ok := s.byAddress[put.Address]; ok {
			element.Value.(*stranger).changed = true
		}
	}
	for _, address := range changes.deleted {
		if element, ok := s.byAddress[address]; ok {
			element.Value.(*stranger).stored = true
		} else {
			s.gone[address] = true
		}
	}
}

func (c *strangerChanges) write(bucket *bbolt.Bucket) error {
	for i := range c.put {
		value, err := json.Marshal(&c.put[i])
		if err != nil {
			return err
		}
		if err := bucket.Put([]byte(c.put[i].Address.String()), value); err != nil {
			return err
		}
	}
	for _, address := range c.deleted {
		if err := bucket.Delete([]byte(address.String())); err != nil {
			return err
		}
	}
	return nil
}

// load reads the file's list; an entry that cannot be read is left out.
func (s *strangers) load(bucket *bbolt.Bucket) error {
	var all []Stranger
	err := bucket.ForEach(func(_, value []byte) error {
		var entry Stranger
		if json.Unmarshal(value, &entry) == nil && entry.Address.IsValid() {
			all = append(all, entry)
		}
		return nil
	})
	slices.SortFunc(all, func(a, b Stranger) int { return a.Last.Compare(b.Last) })
	for i := range all {
		*s.enter(all[i].Address) = stranger{Stranger: all[i], stored: true}
	}
	return err
}

// cut shortens a text to at most so many bytes of whole characters.
func cut(text string, length int) string {
	if len(text) > length {
		text = text[:length]
	}
	return strings.ToValidUTF8(text, "")
}
