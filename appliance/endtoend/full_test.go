package endtoend

import (
	"errors"
	"fmt"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"mailchute/appliance/trace"
)

// handed in, by Message-ID.
type letters map[string]trace.ID

// handUntilFull hands in letters until one is refused, over one connection, and demands that it is for want of room.
func handUntilFull(b *box, size int) letters {
	b.t.Helper()
	taken := make(letters)
	s, err := connect(b.address("none"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer s.close()
	for n := 0; ; n++ {
		name, content := letter(fmt.Sprint(b.t.Name(), n), size)
		id, err := s.send(from, to, content)
		if err != nil {
			wantFull(b.t, err)
			return taken
		}
		taken[name] = id
		if n > 10_000 {
			b.t.Fatal("the queue has no end")
		}
	}
}

// wantFull demands the reply of a full queue.
func wantFull(t *testing.T, err error) {
	t.Helper()
	var refusal *textproto.Error
	if !errors.As(err, &refusal) || refusal.Code != 452 || !strings.HasPrefix(refusal.Msg, "4.3.1 ") {
		t.Fatalf("refused by %v, want 452 4.3.1", err)
	}
}

// refused hands in a letter larger than those there was no room for, and demands that there is none for it either.
func refused(b *box) (name string) {
	b.t.Helper()
	s, err := connect(b.address("none"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer s.close()
	name, content := letter("refused", 2_000_000)
	_, err = s.send(from, to, content)
	wantFull(b.t, err)
	if log := b.log(); !strings.Contains(log, `"msg":"message refused for now","device":"Floor 2","client":"127.0.0.1","error":"the queue is full`) {
		b.t.Error("the log does not tell")
	}
	return name
}

// sentOnce waits until all letters are shown as sent, and demands that each has arrived once.
func sentOnce(b *box, c *cloud, all letters) {
	b.t.Helper()
	for name, id := range all {
		b.awaitState(id, trace.Sent)
		c.cameOnce(name)
	}
}

// TestFullQueue: at its ceiling the queue takes no more, and delivers what it has.
func TestFullQueue(t *testing.T) {
	t.Parallel()
	cloud := newCloud(t, nil)
	box := newBox(t, office, "[queue]\nmax_size = 4000000", cloud.connector())
	cloud.trust(box)
	cloud.down()
	box.start()
	taken := handUntilFull(box, 150_000)
	if len(taken) < 15 || len(taken) > 27 {
		t.Errorf("%d messages of 150 KB in a queue of 4 MB", len(taken))
	}
	tooMuch := refused(box)
	cloud.up()
	sentOnce(box, cloud, taken)
	name, id := hand(box, "afterwards", 150_000)
	sentOnce(box, cloud, letters{name: id})
	if n := len(cloud.came(tooMuch)); n > 0 {
		t.Error("a message that was refused has arrived")
	}
	box.stop()
}

// TestFullDisk: others have filled the disk to the last byte.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	cloud := newCloud(t, nil)
	box := newBox(t)
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	if err := syscall.Mount("tmpfs", box.state, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if box.alive() {
			box.kill()
		}
		syscall.Unmount(box.state, 0)
	})
	if err := os.Mkdir(filepath.Join(box.state, "certs"), 0o700); err != nil {
		t.Fatal(err)
	}
	box.configure(office, cloud.connector())
	cloud.trust(box)
	cloud.down()
	box.start()
	taken := make(letters)
	for n := range 20 {
		name, id := hand(box, fmt.Sprint("before", n), 300_000)
		taken[name] = id
	}
	filler := filepath.Join(box.state, "filler")
	fill(t, filler)
	for name, id := range handUntilFull(box, 300_000) {
		taken[name] = id
	}
	refused(box)
	cloud.up()
	sentOnce(box, cloud, taken)
	box.kill() // what became of them is on the full disk
	box.start()
	sentOnce(box, cloud, taken)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	name, id := hand(box, "afterwards", 300_000)
	taken[name] = id
	sentOnce(box, cloud, taken)
	box.stop()
	box.start()
	sentOnce(box, cloud, taken)
	box.stop()
}

// fill writes a file until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, size := range []int{1 << 20, 4096, 1} {
		block := make([]byte, size)
		for err = nil; err == nil; {
			_, err = file.Write(block)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}
