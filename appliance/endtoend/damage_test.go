package endtoend

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailchute/appliance/trace"
)

// TestDamage: a queue file that the disk has harmed is set aside; every message that is still readable in it arrives, and
// each of those lost is named in trace and log. The box starts in any case.
func TestDamage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		damage func(t *testing.T, file []byte, victim string) []byte
		lost   int  // at least
		silent bool // of a message nothing at all may be left, not even its name
	}{
		{"a page with a body", func(t *testing.T, file []byte, victim string) []byte {
			return clearPages(t, file, compose(victim, 100_000)[50_000:50_100])
		}, 1, false},
		{"a page with envelopes", func(t *testing.T, file []byte, victim string) []byte {
			return clearPages(t, file, []byte(`"message_id":"\u003c`+strings.Trim(victim, "<>")))
		}, 1, false},
		{"both pages with the roots", func(t *testing.T, file []byte, _ string) []byte {
			clear(file[:2*pageSize])
			return file
		}, 0, false},
		{"the end cut off", func(t *testing.T, file []byte, victim string) []byte {
			return file[:bytes.Index(file, compose(victim, 100_000)[50_000:50_100])]
		}, 1, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			cloud := newCloud(t, nil)
			box := newBox(t, office, cloud.connector())
			cloud.trust(box)
			cloud.down()
			box.start()
			all := make(letters)
			for n := range 20 {
				name, id := hand(box, fmt.Sprint(n), 5000*(1+n%5))
				all[name] = id
			}
			victim, id := hand(box, "victim", 100_000)
			all[victim] = id
			box.stop()

			queue := filepath.Join(box.state, "queue.db")
			file, err := os.ReadFile(queue)
			if err != nil {
				t.Fatal(err)
			}
			damaged := test.damage(t, bytes.Clone(file), victim)
			if err := os.WriteFile(queue, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			cloud.up()
			box.start()
			aside, err := filepath.Glob(queue + ".damaged-*")
			if err != nil || len(aside) != 1 {
				t.Fatalf("set aside: %q (%v)", aside, err)
			}
			if kept, err := os.ReadFile(aside[0]); err != nil || !bytes.Equal(kept, damaged) {
				t.Errorf("the damaged file is not kept as it was (%v)", err)
			}
			if log := box.log(); !strings.Contains(log, "the queue file was damaged: it was set aside") || !strings.Contains(log, aside[0]) {
				t.Error("the log does not tell")
			}
			box.run("queue", "release", "--all") // what may be a copy from before is held
			box.awaitEmpty()
			lost := 0
			for name, id := range all {
				switch record, err := box.Client.Record(t.Context(), id); {
				case err != nil && test.silent && len(cloud.came(name)) == 0:
					lost++
				case err != nil:
					t.Errorf("%s: %v", name, err)
				case len(cloud.came(name)) == 1 && record.Recipients[0].State == trace.Sent && countEvents(record, trace.Salvaged) == 1:
				case len(cloud.came(name)) == 0 && countEvents(record, trace.Lost) == 1 &&
					strings.Contains(box.log(), `"msg":"a message was lost with the damaged queue file","message":"`+id.String()+`"`):
					lost++
				default:
					t.Errorf("%s has arrived %d times, and is told as %+v", name, len(cloud.came(name)), record)
				}
			}
			t.Logf("%d of %d are lost", lost, len(all))
			if lost < test.lost {
				t.Errorf("%d messages are lost, at least %d should be", lost, test.lost)
			}
			name, id := hand(box, "afterwards", 1000)
			sentOnce(box, cloud, letters{name: id})
			box.stop()
			box.start() // the salvaged file is a sound one
			if aside, _ := filepath.Glob(queue + ".damaged-*"); len(aside) != 1 {
				t.Errorf("set aside again: %q", aside)
			}
			box.stop()
		})
	}
}

// TestDamagedTrace: the story of earlier messages is not worth a stop.
func TestDamagedTrace(t *testing.T) {
	t.Parallel()
	cloud := newCloud(t, nil)
	box := newBox(t, office, cloud.connector())
	cloud.trust(box)
	if err := os.WriteFile(filepath.Join(box.state, "trace.db"), bytes.Repeat([]byte("This is no trace. "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	box.start()
	name, id := hand(box, "1", 1000)
	sentOnce(box, cloud, letters{name: id})
	box.stop()
	box.start()
	sentOnce(box, cloud, letters{name: id})
	if log := box.log(); strings.Count(log, "the trace was damaged: it was set aside") != 1 {
		t.Error("the log does not tell, or it tells again")
	}
	box.stop()
}

const pageSize = 4096

// clearPages writes zeros over the beginning of every page of a bbolt file that has the text: the one in use, and those
// of earlier states.
func clearPages(t *testing.T, file, text []byte) []byte {
	t.Helper()
	found := 0
	for from := 0; ; {
		at := bytes.Index(file[from:], text)
		if at < 0 {
			break
		}
		from += at + 1
		page := from / pageSize
		for !isLeaf(file, page) { // it may be one of those that follow as a part of the page
			page--
		}
		clear(file[page*pageSize:][:pageSize])
		found++
	}
	if found == 0 {
		t.Fatalf("%.100q is not in the queue file", text)
	}
	return file
}

// isLeaf tells whether a leaf page begins there: it has its own number and the flag of a leaf.
func isLeaf(file []byte, page int) bool {
	header := file[page*pageSize:]
	return binary.NativeEndian.Uint64(header) == uint64(page) && binary.NativeEndian.Uint16(header[8:]) == 2
}
