package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestStartAndStop(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	p, err := Start(Options{Log: log}, "sleep", "600")
	if err != nil {
		t.Fatal(err)
	}
	if children := Children(os.Getpid()); !slices.Contains(children, p.PID) {
		t.Errorf("children of the test are %v, want %d among them", children, p.PID)
	}
	if err := p.Stop(time.Minute); err != nil {
		t.Error(err)
	}
	if err := p.Stop(time.Minute); err == nil || !strings.Contains(err.Error(), "had ended by itself") {
		t.Errorf("stopping what has ended: %v", err)
	}
}

func TestAProgramThatEndsByItself(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	p, err := Start(Options{Log: log}, "sh", "-c", "echo gone; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	<-p.Ended()
	if err := p.Err(); err == nil || err.Error() != "exit status 3" {
		t.Errorf("ended with %v, want exit status 3", err)
	}
	if text, err := os.ReadFile(log); err != nil || string(text) != "gone\n" {
		t.Errorf("log %q, %v", text, err)
	}
}

// TestAProgramThatWillNotStop stops itself, so that the signal to end waits for ever, and is killed.
func TestAProgramThatWillNotStop(t *testing.T) {
	p, err := Start(Options{Log: filepath.Join(t.TempDir(), "log")}, "sh", "-c", `trap "" TERM; kill -STOP $$`)
	if err != nil {
		t.Fatal(err)
	}
	for state := ""; state != "T"; {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID), "stat"))
		if err != nil {
			t.Fatal(err)
		}
		state = strings.Fields(string(text))[2]
	}
	if err := p.Stop(0); err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("error %v, want one that says it was killed", err)
	}
}

func TestUsage(t *testing.T) {
	if got := AnonymousMemory([]int{os.Getpid(), 1 << 30}); got < 1<<20 {
		t.Errorf("a running test has %d bytes of anonymous memory", got)
	}
	before, err := Written([]int{os.Getpid()})
	if err != nil {
		t.Skipf("this system does not tell what a process writes: %v", err)
	}
	// By a child that has ended: what it wrote must not be lost. Not in /tmp, which may be memory.
	folder, err := os.MkdirTemp(".", "testdata-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(folder)
	if err := exec.Command("dd", "if=/dev/zero", "of="+filepath.Join(folder, "zeros"), "bs=1M", "count=3", "conv=fsync").Run(); err != nil {
		t.Fatal(err)
	}
	after, err := Written([]int{os.Getpid(), 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	if got := after - before; got < 3<<20 || got > 4<<20 {
		t.Errorf("3 MiB written by a child show as %d bytes", got)
	}
}

func TestFieldIsFoundByItsWholeName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "io")
	os.WriteFile(path, []byte("cancelled_write_bytes: 7\nwrite_bytes: 5\nRssAnon:\t  12 kB\nodd: x\nempty:\n"), 0o600)
	for name, want := range map[string]int64{"write_bytes:": 5, "cancelled_write_bytes:": 7, "RssAnon:": 12} {
		if got, err := field(path, name); err != nil || got != want {
			t.Errorf("%s %d, %v, want %d", name, got, err, want)
		}
	}
	for _, name := range []string{"odd:", "empty:", "missing:"} {
		if got, err := field(path, name); err == nil {
			t.Errorf("%s %d, want an error", name, got)
		}
	}
}

func TestWatchKeepsTheHighest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var value atomic.Int64
		value.Store(5)
		peak := Watch(10*time.Millisecond, value.Load)
		synctest.Wait()
		value.Store(9)
		<-time.After(15 * time.Millisecond)
		value.Store(1)
		<-time.After(15 * time.Millisecond)
		if got := peak.Stop(); got != 9 {
			t.Errorf("highest %d, want 9", got)
		}
	})
}

// TestLimit runs a program that wants more memory than it may have: it must not get it.
func TestLimit(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can make control groups")
	}
	for _, limit := range []*Limit{NewLimit(32 << 20), {By: "RLIMIT_DATA", bytes: 32 << 20}} {
		t.Run(limit.By, func(t *testing.T) {
			for _, test := range []struct {
				size   string
				passes bool
			}{{"1M", true}, {"64M", false}} {
				// dd holds one block in memory.
				p, err := Start(Options{Log: filepath.Join(t.TempDir(), "log"), Limit: limit},
					"dd", "if=/dev/zero", "of=/dev/null", "count=1", "bs="+test.size)
				if err != nil {
					t.Fatal(err)
				}
				<-p.Ended()
				if passed := p.Err() == nil; passed != test.passes {
					t.Errorf("%s in 32 MiB: ended with %v, want passed %v", test.size, p.Err(), test.passes)
				}
			}
			if err := limit.Remove(); err != nil {
				t.Error(err)
			}
		})
	}
}
