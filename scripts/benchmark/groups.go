package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"mailchute/scripts/benchmark/internal/process"
	"mailchute/scripts/benchmark/internal/source"
)

// contender is what takes the mail between source and sink.
type contender string

const (
	tools     contender = "tools" // nothing: the source hands in at the sink, which shows what the tools can do
	postfix   contender = "Postfix"
	mailchute contender = "Mailchute"
)

var everyone = []contender{tools, postfix, mailchute}

// group is one piece of work, and the rows of the table that its figures fill.
type group struct {
	name       string
	contenders []contender
	work       func(ctx context.Context, b *bench, c contender) (figures, error)
	rows       []row
}

// row is a line of the table; its name is that of the figure it shows.
type row struct {
	name, work string
	unit       unit
	goal       goal
}

func (g group) rowNames() []string {
	var names []string
	for _, r := range g.rows {
		names = append(names, r.name)
	}
	return names
}

// The sizes of the table: 150 MB is the largest message Mailchute takes by default.
const (
	kilobyte = 1 << 10
	megabyte = 1 << 20
)

// groups are the work of the table, in its order.
var groups = []group{
	{
		name: "small", contenders: everyone, work: small,
		rows: []row{
			{"accepted", "4 KB, 20 scanners, accepted a second", perSecond, timesAtLeast(5)},
			{"arrived", "4 KB, 20 scanners, arrived at the sink a second", perSecond, timesAtLeast(5)},
		},
	}, {
		name: "scans", contenders: everyone, work: scans,
		rows: []row{
			{"scans", "1 MB, 4 scanners, arrived a second", perSecond, timesAtLeast(2)},
			{"written", "bytes written to disk per byte of mail, 1 MB scans", plain, under(1.3)},
		},
	}, {
		name: "large", contenders: everyone, work: large,
		rows: []row{{"large", "50 MB, 4 scanners, arrived a second", perSecond, timesAtLeast(2)}},
	}, {
		name: "latency", contenders: everyone, work: latency,
		rows: []row{{"latency", "one scanner, 4 KB: from the final dot to the sink, median", milliseconds, timesAtMost(0.6)}},
	}, {
		name: "distant", contenders: []contender{postfix, mailchute}, work: distant,
		rows: []row{{"distant", "sink 50 ms away, 2 connections: arrived a second", perSecond, timesAtLeast(10)}},
	}, {
		name: "memory", contenders: []contender{postfix, mailchute}, work: memory,
		rows: []row{
			{"memory", "anonymous memory (RssAnon) with 4 × 150 MB in the air", megabytes, under(64)},
			{"limited", "the same under a memory limit of 192 MB", verdict, passes},
		},
	}, {
		name: "backlog", contenders: []contender{mailchute}, work: backlog,
		rows: []row{
			{"start", "100,000 messages waiting: warm start until MAIL is answered", seconds, under(2)},
			{"waiting", "100,000 messages waiting: RssAnon, start and 10,000 more messages", megabytes, under(100)},
			{"filled", "100,000 messages waiting: accept rate ÷ that of an empty queue", plain, atLeast(0.9)},
		},
	},
}

func small(ctx context.Context, b *bench, c contender) (figures, error) {
	stage, err := b.open(ctx, c, conditions{})
	if err != nil {
		return nil, err
	}
	defer stage.close()
	if _, err := stage.pass(ctx, 20, b.count(1000), 4*kilobyte); err != nil {
		return nil, err
	}
	p, err := stage.profiled(ctx, "small", 20, b.count(20000), 4*kilobyte)
	return figures{"accepted": p.accepted, "arrived": p.arrived}, err
}

func scans(ctx context.Context, b *bench, c contender) (figures, error) {
	stage, err := b.open(ctx, c, conditions{})
	if err != nil {
		return nil, err
	}
	defer stage.close()
	if _, err := stage.pass(ctx, 4, b.count(20), megabyte); err != nil {
		return nil, err
	}
	if c == tools {
		p, err := stage.pass(ctx, 4, b.count(400), megabyte)
		return figures{"scans": p.arrived}, err
	}
	before, err := stage.written(ctx)
	if err != nil {
		return nil, err
	}
	p, err := stage.profiled(ctx, "scans", 4, b.count(400), megabyte)
	if err != nil {
		return nil, err
	}
	after, err := stage.written(ctx)
	return figures{"scans": p.arrived, "written": float64(after-before) / float64(b.count(400)*megabyte)}, err
}

func large(ctx context.Context, b *bench, c contender) (figures, error) {
	stage, err := b.open(ctx, c, conditions{})
	if err != nil {
		return nil, err
	}
	defer stage.close()
	if _, err := stage.pass(ctx, 4, 4, 50*megabyte); err != nil {
		return nil, err
	}
	p, err := stage.profiled(ctx, "large", 4, max(4, b.count(32)), 50*megabyte)
	return figures{"large": p.arrived}, err
}

// latency sends one message at a time, the next when the one before has arrived and has its 250.
func latency(ctx context.Context, b *bench, c contender) (figures, error) {
	stage, err := b.open(ctx, c, conditions{})
	if err != nil {
		return nil, err
	}
	defer stage.close()
	mail, err := b.mail(4 * kilobyte)
	if err != nil {
		return nil, err
	}
	scanner := source.NewScanner(1, stage.address(), mail)
	if err := scanner.Connect(ctx); err != nil {
		return nil, err
	}
	defer scanner.Close()
	warmUp, count := b.count(100), b.count(1000)
	var times []float64
	for i := range warmUp + count {
		arrived := stage.sink.Expect(1, mail.Checksum)
		dot, err := scanner.Send(int64(i))
		if err != nil {
			return nil, err
		}
		if err := stage.await(ctx, arrived); err != nil {
			return nil, err
		}
		if i >= warmUp {
			times = append(times, float64(stage.sink.Tally().Last.Sub(dot))/float64(time.Millisecond))
		}
	}
	return figures{"latency": median(times)}, nil
}

func distant(ctx context.Context, b *bench, c contender) (figures, error) {
	stage, err := b.open(ctx, c, conditions{delay: 50 * time.Millisecond, connections: 2})
	if err != nil {
		return nil, err
	}
	defer stage.close()
	if _, err := stage.pass(ctx, 20, b.count(100), 4*kilobyte); err != nil {
		return nil, err
	}
	// A rate needs seconds to show, and Postfix minutes for what takes Mailchute seconds: each gets its own count.
	count := b.count(500)
	if c == mailchute {
		count = b.count(3000)
	}
	p, err := stage.profiled(ctx, "distant", 20, count, 4*kilobyte)
	return figures{"distant": p.arrived}, err
}

// memory has four scanners hand in one message of 150 MB after another, so that mail comes in and goes out at once.
func memory(ctx context.Context, b *bench, c contender) (figures, error) {
	run := func(limit *process.Limit) (int64, error) {
		stage, err := b.open(ctx, c, conditions{limit: limit})
		if err != nil {
			return 0, err
		}
		defer stage.close()
		peak := process.Watch(10*time.Millisecond, func() int64 { return process.AnonymousMemory(stage.relay.PIDs()) })
		_, err = stage.pass(ctx, 4, max(4, b.count(12)), 150*megabyte)
		return peak.Stop(), err
	}
	peak, err := run(nil)
	result := figures{"memory": float64(peak) / megabyte}
	if err != nil || c != mailchute {
		return result, err
	}
	limit := process.NewLimit(192 * megabyte)
	_, err = run(limit)
	b.note("The limit was set by %s; the most it held, page cache included, was %d MB.", limit.By, limit.Peak()/megabyte)
	result["limited"] = 1
	if err != nil {
		result["limited"] = 0
		err = fmt.Errorf("under %s of 192 MB: %w", limit.By, err)
	}
	return result, errors.Join(err, limit.Remove())
}

// backlog fills a queue whose connector is down, restarts the box and hands in more.
func backlog(ctx context.Context, b *bench, c contender) (figures, error) {
	stage, err := b.open(ctx, c, conditions{down: true})
	if err != nil {
		return nil, err
	}
	defer stage.close()
	probe, fill := b.count(10000), b.count(100000)
	warmUp := b.count(1000)
	if _, err := stage.fill(ctx, 20, warmUp, 4*kilobyte); err != nil {
		return nil, err
	}
	empty, err := stage.fill(ctx, 20, probe, 4*kilobyte)
	if err != nil {
		return nil, err
	}
	if _, err := stage.fill(ctx, 20, fill-probe-warmUp, 4*kilobyte); err != nil {
		return nil, err
	}
	if err := stage.relay.Stop(); err != nil {
		return nil, err
	}
	start := time.Now()
	if err := stage.relay.Start(ctx); err != nil {
		return nil, err
	}
	took := time.Since(start)
	peak := process.Watch(10*time.Millisecond, func() int64 { return process.AnonymousMemory(stage.relay.PIDs()) })
	if _, err := stage.fill(ctx, 20, warmUp, 4*kilobyte); err != nil {
		peak.Stop()
		return nil, err
	}
	stop := stage.profile(ctx, "backlog")
	filled, err := stage.fill(ctx, 20, probe, 4*kilobyte)
	return figures{
		"start":   took.Seconds(),
		"waiting": float64(peak.Stop()) / megabyte,
		"filled":  filled / empty,
	}, errors.Join(err, stop())
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
