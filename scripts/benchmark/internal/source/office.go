package source

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Office is a number of scanners that hand in mail at the same time.
type Office struct {
	Address  string // host:port of the relay
	Scanners int
	Messages int // of all scanners together
	Mail     *Mail
	// MessagesPerConnection is after how many a scanner says QUIT and connects anew; 0: one connection for all.
	MessagesPerConnection int
}

// Submission is what became of an office's mail.
type Submission struct {
	First, Last time.Time // before the first connection; after the last 250
}

// Submit hands in all messages and returns when each has its 250, or with the first error.
func (o Office) Submit(ctx context.Context) (Submission, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		group sync.WaitGroup
		next  atomic.Int64
	)
	first := time.Now()
	for i := range o.Scanners {
		group.Go(func() {
			if err := o.scan(ctx, NewScanner(i+1, o.Address, o.Mail), &next); err != nil {
				cancel(fmt.Errorf("scanner %d: %w", i+1, err))
			}
		})
	}
	group.Wait()
	return Submission{first, time.Now()}, context.Cause(ctx)
}

func (o Office) scan(ctx context.Context, scanner *Scanner, next *atomic.Int64) error {
	defer scanner.Close()
	for sent := 0; ; sent++ {
		number := next.Add(1)
		if number > int64(o.Messages) {
			break
		}
		if o.MessagesPerConnection > 0 && sent == o.MessagesPerConnection {
			if err := scanner.Quit(); err != nil {
				return err
			}
			sent = 0
		}
		if scanner.conn == nil {
			if err := scanner.Connect(ctx); err != nil {
				return err
			}
		}
		if _, err := scanner.Send(number); err != nil {
			return err
		}
	}
	if scanner.conn == nil {
		return nil
	}
	return scanner.Quit()
}
