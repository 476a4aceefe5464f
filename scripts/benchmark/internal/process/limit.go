package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Limit bounds the memory of a process and its children, the page cache they fill included where control groups
// can be used. By is the means, for the report.
type Limit struct {
	By string

	bytes int64
	group string // folder of the control group; "" for RLIMIT_DATA
}

const cgroups = "/sys/fs/cgroup"

// NewLimit makes the strictest limit that works here: a control group of version 2 or 1, else RLIMIT_DATA, which
// bounds private writable memory alone.
func NewLimit(bytes int64) *Limit {
	name := "mailchute-benchmark-" + strconv.Itoa(os.Getpid())
	for _, version := range []struct{ by, parent, file string }{
		{"cgroup v2 memory.max", cgroups, "memory.max"},
		{"cgroup v1 memory.limit_in_bytes", cgroups + "/memory", "memory.limit_in_bytes"},
	} {
		if _, err := os.Stat(filepath.Join(version.parent, "cgroup.procs")); err != nil {
			continue
		}
		group := filepath.Join(version.parent, name)
		if os.Mkdir(group, 0o755) != nil {
			continue
		}
		if os.WriteFile(filepath.Join(group, version.file), []byte(strconv.FormatInt(bytes, 10)), 0) == nil {
			return &Limit{By: version.by, bytes: bytes, group: group}
		}
		os.Remove(group)
	}
	return &Limit{By: "RLIMIT_DATA", bytes: bytes}
}

// wrap puts the program under the limit before its first instruction.
func (l *Limit) wrap(program string, arguments []string) (string, []string) {
	script := fmt.Sprintf(`ulimit -d %d && exec "$@"`, l.bytes>>10)
	if l.group != "" {
		script = fmt.Sprintf(`echo $$ > %s/cgroup.procs && exec "$@"`, l.group)
	}
	return "/bin/sh", append([]string{"-c", script, "sh", program}, arguments...)
}

// Peak is the most memory the group has held, page cache included, in bytes; 0 if the means does not tell.
func (l *Limit) Peak() int64 {
	for _, file := range []string{"memory.peak", "memory.max_usage_in_bytes"} {
		text, err := os.ReadFile(filepath.Join(l.group, file))
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil {
			return n
		}
	}
	return 0
}

// Remove takes the limit away; its processes must have ended.
func (l *Limit) Remove() error {
	if l.group == "" {
		return nil
	}
	if err := syscall.Rmdir(l.group); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing %s: %w", l.group, err)
	}
	return nil
}
