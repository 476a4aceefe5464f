package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// describeMachine says what the figures hold for: processor, memory, system, disk with the time of a flush, and
// the versions that were compared.
func describeMachine(folder string, o options) string {
	var b strings.Builder
	line := func(name, value string) { fmt.Fprintf(&b, "- %s: %s\n", name, value) }
	line("Processor", fmt.Sprintf("%s, %d cores", firstValue("/proc/cpuinfo", "model name"), runtime.NumCPU()))
	line("Memory", firstValue("/proc/meminfo", "MemTotal"))
	line("System", fmt.Sprintf("%s, Linux %s", firstValue("/etc/os-release", "PRETTY_NAME"), firstLine("/proc/sys/kernel/osrelease")))
	disk := fileSystem(folder)
	if flush, err := flushTime(folder); err == nil {
		disk += fmt.Sprintf(", fdatasync of 4 KB in %.2f ms (median)", float64(flush)/float64(time.Millisecond))
	}
	line("Disk", disk)
	line("Load before", firstLine("/proc/loadavg"))
	if o.Peer == "postfix" {
		line("Postfix", output("postconf", "-dh", "mail_version"))
	}
	if o.Mailchute != "none" {
		line("Mailchute", output(o.Mailchute, "version"))
	}
	session := "one connection for all its messages"
	if n := o.MessagesPerConnection; n > 0 {
		session = fmt.Sprintf("a new connection after each %d messages", n)
	}
	line("Scanners", "no pipelining, "+session)
	line("Measured", fmt.Sprintf("%s, median of %d", time.Now().UTC().Format(time.DateOnly), o.Rounds))
	return b.String()
}

// flushTime is the median time that 4 KB take to the disk, which bounds what any durable queue can do.
func flushTime(folder string) (time.Duration, error) {
	file, err := os.Create(filepath.Join(folder, "flush"))
	if err != nil {
		return 0, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	block := make([]byte, 4096)
	var times []float64
	for range 100 {
		start := time.Now()
		if _, err := file.Write(block); err != nil {
			return 0, err
		}
		if err := syscall.Fdatasync(int(file.Fd())); err != nil {
			return 0, err
		}
		times = append(times, float64(time.Since(start)))
	}
	return time.Duration(median(times)), nil
}

// fileSystem is type and device of what the folder lies on: the longest mount point above it.
func fileSystem(folder string) string {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	longest, found := -1, "unknown"
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) < 3 || len(fields[1]) <= longest {
			continue
		}
		if below, err := filepath.Rel(fields[1], folder); err == nil && !strings.HasPrefix(below, "..") {
			longest, found = len(fields[1]), fields[2]+" on "+fields[0]
		}
	}
	return found
}

// firstValue is what follows a key, = or : in the first line that has the key.
func firstValue(path, key string) string {
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strings.Trim(rest, " \t\r\n:=\"")
		}
	}
	return "unknown"
}

func firstLine(path string) string {
	text, _ := os.ReadFile(path)
	line, _, _ := bytes.Cut(text, []byte{'\n'})
	return string(line)
}

func output(program string, arguments ...string) string {
	text, err := exec.Command(program, arguments...).Output()
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(text))
}
