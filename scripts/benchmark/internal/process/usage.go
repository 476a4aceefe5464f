package process

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// AnonymousMemory is the RssAnon of all given processes, in bytes. A process that is gone counts nothing.
func AnonymousMemory(pids []int) int64 {
	var sum int64
	for _, pid := range pids {
		kilobytes, _ := field(fmt.Sprintf("/proc/%d/status", pid), "RssAnon:")
		sum += kilobytes << 10
	}
	return sum
}

// Written is how many bytes all given processes have caused to be written to disk (write_bytes less
// cancelled_write_bytes of /proc/PID/io), those of their children that have ended and were waited for included.
func Written(pids []int) (int64, error) {
	var sum int64
	for _, pid := range pids {
		path := fmt.Sprintf("/proc/%d/io", pid)
		written, err := field(path, "write_bytes:")
		if err != nil {
			if os.IsNotExist(err) {
				continue
			}
			return 0, err
		}
		cancelled, err := field(path, "cancelled_write_bytes:")
		if err != nil {
			return 0, err
		}
		sum += written - cancelled
	}
	return sum, nil
}

// field reads the number after a name at the start of a line.
func field(path, name string) (int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			if fields := strings.Fields(string(rest)); len(fields) > 0 {
				return strconv.ParseInt(fields[0], 10, 64)
			}
		}
	}
	return 0, fmt.Errorf("%s: no line %s", path, name)
}

// Children are the process ids of a process's living children.
func Children(parent int) []int {
	paths, _ := filepath.Glob("/proc/[0-9]*/stat")
	var children []int
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// The name in parentheses may hold anything; the state and the parent's id follow it.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) < 2 || fields[1] != strconv.Itoa(parent) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			children = append(children, pid)
		}
	}
	return children
}

// Peak watches a value until it is told to stop.
type Peak struct {
	highest int64
	stop    chan struct{}
	group   sync.WaitGroup
}

// Watch reads the value every interval and keeps the highest.
func Watch(interval time.Duration, value func() int64) *Peak {
	p := &Peak{stop: make(chan struct{})}
	p.group.Go(func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			p.highest = max(p.highest, value())
			select {
			case <-ticker.C:
			case <-p.stop:
				return
			}
		}
	})
	return p
}

// Stop ends the watch and returns the highest value seen. It is called once.
func (p *Peak) Stop() int64 {
	close(p.stop)
	p.group.Wait()
	return p.highest
}
