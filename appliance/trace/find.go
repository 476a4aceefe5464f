package trace

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
)

// Find gives the records that match, the newest first. A record that cannot be read any more is left out; Get
// says why.
func (s *Store) Find(query Query) ([]Record, error) {
	var found []Record
	err := s.view(func(tx *bbolt.Tx) error {
		if wanted := query.hashes(); len(wanted) > 0 {
			found = findSigned(tx, &query, wanted)
		} else {
			found = findTime(tx, &query)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("searching the trace: %w", err)
	}
	return found, nil
}

// findTime walks the records themselves: only time is asked, and they lie in its order.
func findTime(tx *bbolt.Tx, query *Query) []Record {
	var found []Record
	lowest, highest := query.ids()
	cursor := tx.Bucket(recordBucket).Cursor()
	for key, value := seekLast(cursor, highest); key != nil && len(found) < query.limit(); key, value = cursor.Prev() {
		var record Record
		if ID(binary.BigEndian.Uint64(key)) < lowest {
			break
		}
		if json.Unmarshal(value, &record) == nil && query.Match(&record) {
			found = append(found, record)
		}
	}
	return found
}

// seekLast moves to the last key that is not above id.
func seekLast(cursor *bbolt.Cursor, id ID) (key, value []byte) {
	wanted := binary.BigEndian.AppendUint64(nil, uint64(id))
	key, value = cursor.Seek(wanted)
	if key == nil {
		return cursor.Last()
	}
	if string(key) > string(wanted) {
		return cursor.Prev()
	}
	return key, value
}

// findSigned reads the signatures from the newest block back. Messages do not leave the queue in the order of
// their ids, so an id is settled only when no earlier block can hold a higher one.
func findSigned(tx *bbolt.Tx, query *Query, wanted []uint32) []Record {
	var found []Record
	var open []ID // with the right signature, ascending once sorted
	lowest, highest := query.ids()
	limit := query.limit()
	records := tx.Bucket(recordBucket)
	var last ID // taken or refused already
	settle := func(above ID) {
		slices.Sort(open)
		for len(open) > 0 && len(found) < limit {
			id := open[len(open)-1]
			if id <= above {
				return
			}
			open = open[:len(open)-1]
			if id == last {
				continue // written twice
			}
			last = id
			var record Record
			value := records.Get(binary.BigEndian.AppendUint64(nil, uint64(id)))
			if value != nil && json.Unmarshal(value, &record) == nil && query.Match(&record) {
				found = append(found, record)
			}
		}
	}
	cursor := tx.Bucket(signatureBucket).Cursor()
	for key, value := cursor.Last(); key != nil && len(found) < limit; key, value = cursor.Prev() {
		b := block(value)
		if b.newest() < lowest {
			break
		}
		if len(open) > 0 && open[len(open)-1] > b.newest() {
			settle(b.newest())
		}
		if b.highest() >= lowest {
			before := len(open)
			if open = b.find(open, lowest, highest, wanted); len(open) > before {
				slices.Sort(open)
			}
		}
	}
	settle(0)
	return found
}
