package delivery

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"mailchute/appliance/trace"
)

func TestMailIsRoutedAnewOnceTheDiskHasRoom(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	folder := t.TempDir()
	if err := unix.Mount("tmpfs", folder, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	defer unix.Unmount(folder, 0)
	synctest.Test(t, func(t *testing.T) {
		o := &office{t: t, cloud: &cloud{refuse: syscall.ECONNREFUSED}}
		o.start(folder)
		var ids []trace.ID
		for range 400 {
			ids = append(ids, o.hand("copier", "anna@contoso.com"))
		}
		o.after(0)
		os.Remove(filepath.Join(folder, "queue.reserve"))
		filler, err := os.Create(filepath.Join(folder, "filler"))
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = filler.Write(make([]byte, 4096))
		}
		clouds := map[string]*cloud{"backup": {}}
		o.use(4, clouds, "backup")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := len(clouds["backup"].now().given); n != 0 {
			t.Fatalf("%d messages were sent: the disk was not full", n)
		}
		if err := filler.Truncate(0); err != nil {
			t.Fatal(err)
		}
		filler.Close()
		o.after(2 * time.Minute)
		o.wantGone(ids...)
		o.stop()
	})
}
