package appliance

import (
	"context"
	"errors"
	"slices"
	"time"

	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

const (
	gather     = time.Second // that outcomes are collected before they go to the trace in one write
	mostAtOnce = 2000        // outcomes in one write
	flushEvery = time.Minute // what was counted of strangers
	pruneEvery = time.Hour
	retryAfter = 10 * time.Second // that a trace that cannot be written waits
)

// keepHistory moves what became of messages from the queue file to the trace, until ctx ends. An outcome leaves the
// queue file only when the trace has it on disk.
func (b *box) keepHistory(ctx context.Context) {
	flush, prune := time.NewTicker(flushEvery), time.NewTicker(pruneEvery)
	defer flush.Stop()
	defer prune.Stop()
	b.moveOutcomes()
	for {
		select {
		case <-ctx.Done():
			b.moveOutcomes()
			return
		case <-b.spool.Settled():
			wait(ctx, gather)
			if !b.moveOutcomes() {
				wait(ctx, retryAfter)
			}
		case <-flush.C:
			if err := b.trace.Add(nil); err != nil {
				b.log.Error("write the trace", "error", err)
			}
			b.moveOutcomes() // of a trace that could not be written before
		case <-prune.C:
			if n, err := b.trace.Prune(time.Now()); err != nil {
				b.log.Error("shorten the trace", "error", err)
			} else if n > 0 {
				b.log.Info("shortened the trace", "records", n)
			}
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// moveOutcomes moves all there are; false: it could not.
func (b *box) moveOutcomes() bool {
	for {
		records, err := b.spool.Outcomes(mostAtOnce)
		if err == nil && len(records) > 0 {
			err = b.trace.Add(records)
		}
		if err != nil {
			b.log.Error("write the trace; what became of messages stays in the queue file until it can be", "error", err)
			return false
		}
		ids := make([]trace.ID, len(records))
		for i := range records {
			ids[i] = records[i].ID
		}
		if len(ids) > 0 {
			b.spool.Forget(ids)
		}
		if len(ids) < mostAtOnce {
			return true
		}
	}
}

// Trace finds messages, those in the queue and those that have left it, the newest first.
func (b *box) Trace(_ context.Context, query trace.Query) ([]trace.Record, error) {
	var found []trace.Record
	queued, err := b.spool.Newest(query.Before, query.Limit, func(e *spool.Envelope) bool { return query.Match(&e.Record) })
	if err != nil {
		return nil, err
	}
	for _, e := range queued {
		found = append(found, e.Record)
	}
	settled, err := b.spool.Outcomes(mostOutcomes)
	if err != nil {
		return nil, err
	}
	for _, r := range settled {
		if query.Match(&r) {
			found = append(found, r)
		}
	}
	kept, err := b.trace.Find(query)
	if err != nil {
		return nil, err
	}
	found = append(found, kept...)
	slices.SortStableFunc(found, func(a, b trace.Record) int { return -compareIDs(a.ID, b.ID) })
	found = slices.CompactFunc(found, func(a, b trace.Record) bool { return a.ID == b.ID }) // moved while it was looked for
	return found[:min(len(found), query.Limit)], nil
}

// mostOutcomes are looked at; a second's worth is there at most, unless the trace cannot be written.
const mostOutcomes = 20000

func compareIDs(a, b trace.ID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Record tells the story of one message, wherever it is.
func (b *box) Record(id trace.ID) (trace.Record, error) {
	e, err := b.spool.Get(id)
	if err == nil {
		return e.Record, nil
	}
	if record, err := b.spool.Outcome(id); err == nil {
		return record, nil
	}
	record, err := b.trace.Get(id)
	if errors.Is(err, trace.ErrNotFound) {
		err = spool.ErrNotFound
	}
	return record, err
}

// Strangers lists who was refused.
func (b *box) Strangers() []trace.Stranger { return b.trace.Strangers() }
