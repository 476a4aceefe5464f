package trace

import (
	"slices"
	"testing"
)

// FuzzBlock: a block that is damaged on disk gives fewer or other ids, which the records then refuse, and
// never a panic.
func FuzzBlock(f *testing.F) {
	var h hasher
	record := scan(1, "Floor 1", "anna@contoso.com", Sent)
	good := h.appendEntry(make([]byte, blockHeader), &record)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(good[:blockHeader+9])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		query := Query{Address: "anna@contoso.com"}
		b := block(raw)
		_, _, _ = b.newest(), b.highest(), b.open()
		ids := b.find(nil, 0, ^ID(0), query.hashes())
		if len(ids) > len(raw)/entryHeader {
			t.Errorf("%d ids in %d bytes", len(ids), len(raw))
		}
		if string(raw) == string(good) && !slices.Equal(ids, []ID{record.ID}) {
			t.Errorf("a whole block gives %v", ids)
		}
	})
}

// FuzzParseID: every text that is an id is the text of that id.
func FuzzParseID(f *testing.F) {
	f.Add("01KJ2Q8Z3V0")
	f.Add("zzzzzzzzzzz")
	f.Add("")
	f.Add("0000000000ö")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseID(text)
		if err != nil {
			return
		}
		if again, err := ParseID(id.String()); err != nil || again != id {
			t.Errorf("%q is %d, which is %q, which is %d: %v", text, id, id, again, err)
		}
	})
}
