package spool

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"mailchute/appliance/trace"
)

// cpu is the processor time this process has used, user and system.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkThrough is the way of a small message through the queue: accepted, delivered, told to the trace. Twenty
// scanners hand in at once.
func BenchmarkThrough(b *testing.B) {
	s, _, err := Open(b.TempDir()+"/queue.db", Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	body := scan(4096)
	var left atomic.Int64
	left.Store(int64(b.N))
	var settled sync.WaitGroup
	settled.Add(b.N)
	stop := make(chan struct{})
	var pump sync.WaitGroup
	pump.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
			records, err := s.Outcomes(2000)
			if err != nil {
				b.Error(err)
			}
			var ids []trace.ID
			for _, r := range records {
				ids = append(ids, r.ID)
			}
			s.Forget(ids)
		}
	})
	b.ResetTimer()
	before := cpu()
	var scanners sync.WaitGroup
	for range 20 {
		scanners.Go(func() {
			for left.Add(-1) >= 0 {
				id := hand(b, s, letter("copier", "anna@contoso.com"), body)
				s.ChangeLater(id, settle, func(err error) {
					if err != nil {
						b.Error(err)
					}
					settled.Done()
				})
			}
		})
	}
	scanners.Wait()
	settled.Wait()
	b.StopTimer()
	close(stop)
	pump.Wait()
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

// written is what this process has written to files, in bytes. (What the kernel counts as written to disk is more: it
// counts large folios of the page cache whole.)
func written(b *testing.B) (bytes int64) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		b.Skip("this system does not count what a process writes")
	}
	for line := range strings.Lines(string(text)) {
		fmt.Sscanf(line, "wchar: %d", &bytes)
	}
	return bytes
}

// BenchmarkScans is the way of scans through the queue, by four scanners at once. written/byte is what is written
// for a byte of mail.
func BenchmarkScans(b *testing.B) {
	for _, size := range []int{1 << 20, 50 << 20} {
		b.Run(fmt.Sprintf("%dMB", size>>20), func(b *testing.B) {
			s, _, err := Open(b.TempDir()+"/queue.db", Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			body := scan(size)
			var left atomic.Int64
			left.Store(int64(b.N))
			b.SetBytes(int64(size))
			b.ResetTimer()
			before, begun := written(b), cpu()
			var settled, scanners sync.WaitGroup
			settled.Add(b.N)
			for range 4 {
				scanners.Go(func() {
					for left.Add(-1) >= 0 {
						w := s.Create()
						for rest := body; len(rest) > 0; rest = rest[min(len(rest), 32<<10):] {
							w.Write(rest[:min(len(rest), 32<<10)])
						}
						if err := w.Accept(letter("copier", "anna@contoso.com")); err != nil {
							b.Error(err)
						}
						if _, err := io.Copy(io.Discard, s.Body(w.ID(), w.Size())); err != nil {
							b.Error(err)
						}
						s.ChangeLater(w.ID(), settle, func(error) { settled.Done() })
					}
				})
			}
			scanners.Wait()
			settled.Wait()
			b.StopTimer()
			b.ReportMetric(float64(written(b)-before)/float64(b.N)/float64(size), "written/byte")
			b.ReportMetric(float64((cpu()-begun).Microseconds())/float64(b.N)/float64(size>>20), "cpu-µs/MB")
		})
	}
}

// BenchmarkStart opens a queue in which 100,000 messages of 4 KB wait.
func BenchmarkStart(b *testing.B) {
	path := b.TempDir() + "/queue.db"
	s, _, err := Open(path, Options{})
	if err != nil {
		b.Fatal(err)
	}
	body := scan(4096)
	var scanners sync.WaitGroup
	for range 100 {
		scanners.Go(func() {
			for range 1000 {
				hand(b, s, letter("copier", "anna@contoso.com"), body)
			}
		})
	}
	scanners.Wait()
	s.Close()
	for b.Loop() {
		s, _, err := Open(path, Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		s.Close()
		b.StartTimer()
	}
}
