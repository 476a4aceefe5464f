package spool

import (
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
