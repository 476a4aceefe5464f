package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"mailchute/scripts/benchmark/internal/process"
	"mailchute/scripts/benchmark/internal/relay"
	"mailchute/scripts/benchmark/internal/sink"
	"mailchute/scripts/benchmark/internal/source"
)

// measurementLimit bounds one measurement: what takes longer is stuck, and fails.
const measurementLimit = 5 * time.Minute

// bench is one run of the command.
type bench struct {
	options options
	folder  string // made for this run, removed after it
	mails   map[int]*source.Mail
	notes   []string
	first   bool // round, the one that is profiled
}

func newBench(o options) (*bench, error) {
	folder, err := os.MkdirTemp(o.Folder, "mailchute-benchmark-")
	if err != nil {
		return nil, err
	}
	// Postfix's daemons run as another user and must get through.
	if err := os.Chmod(folder, 0o755); err != nil {
		return nil, err
	}
	if o.Profile != "" {
		if err := os.MkdirAll(o.Profile, 0o755); err != nil {
			return nil, err
		}
	}
	return &bench{options: o, folder: folder, mails: map[int]*source.Mail{}}, nil
}

func (b *bench) close() { os.RemoveAll(b.folder) }

func (b *bench) contenders() []contender {
	result := []contender{tools}
	if b.options.Peer == "postfix" {
		result = append(result, postfix)
	}
	if b.options.Mailchute != "none" {
		result = append(result, mailchute)
	}
	return result
}

// count is n, or a tenth with --quick.
func (b *bench) count(n int) int {
	if b.options.Quick {
		return max(1, n/10)
	}
	return n
}

// mail makes each size once.
func (b *bench) mail(size int) (*source.Mail, error) {
	if m := b.mails[size]; m != nil {
		return m, nil
	}
	m, err := source.NewMail(size)
	if err == nil {
		b.mails[size] = m
	}
	return m, err
}

// measure does the work of a group once, within its limit of time.
func (b *bench) measure(ctx context.Context, g group, c contender, round int) (figures, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, measurementLimit, fmt.Errorf("not done within %v", measurementLimit))
	defer cancel()
	b.first = round == 0
	// What the one before left to be written is not this one's load.
	syscall.Sync()
	return g.work(ctx, b, c)
}

// conditions are what a row asks for beside the defaults.
type conditions struct {
	delay       time.Duration // of the sink
	connections int           // to the sink
	limit       *process.Limit
	down        bool // nothing listens at the sink's port
}

// stage is a contender that runs, and the sink it relays to.
type stage struct {
	bench     *bench
	contender contender
	folder    string
	sink      *sink.Sink
	listener  net.Listener
	served    chan error
	relay     relay.Relay // nil for the tools alone
}

// open starts a sink and the contender, in a fresh folder.
func (b *bench) open(ctx context.Context, c contender, with conditions) (*stage, error) {
	s := &stage{bench: b, contender: c, served: make(chan error, 1)}
	var err error
	if s.folder, err = os.MkdirTemp(b.folder, "stage-"); err != nil {
		return nil, err
	}
	if err := os.Chmod(s.folder, 0o755); err != nil {
		return nil, err
	}
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	s.sink = &sink.Sink{Name: "sink.bench.test", MaxSize: 200_000_000, Delay: with.delay}
	if with.down {
		s.listener.Close()
	}
	go func() { s.served <- s.sink.Serve(s.listener) }()
	setup := relay.Setup{
		Folder:      s.folder,
		Sink:        s.listener.Addr().(*net.TCPAddr).Port,
		Connections: with.connections,
		Limit:       with.limit,
	}
	switch c {
	case postfix:
		s.relay, err = relay.NewPostfix(setup)
	case mailchute:
		s.relay, err = relay.NewMailchute(b.options.Mailchute, setup)
	}
	if err == nil && s.relay != nil {
		err = s.relay.Start(ctx)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// close stops what open started; what goes wrong is told, because a relay that does not stop spoils what follows.
func (s *stage) close() {
	if s.relay != nil {
		if err := s.relay.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	s.listener.Close()
	if err := <-s.served; err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.RemoveAll(s.folder)
}

func (s *stage) address() string {
	if s.relay == nil {
		return s.listener.Addr().String()
	}
	return s.relay.Address()
}

// rates are messages a second, both from the first connection on.
type rates struct{ accepted, arrived float64 }

// pass hands in mail and waits until all of it is at the sink, whole and once.
func (s *stage) pass(ctx context.Context, scanners, messages, size int) (rates, error) {
	mail, err := s.bench.mail(size)
	if err != nil {
		return rates{}, err
	}
	arrived := s.sink.Expect(int64(messages), mail.Checksum)
	submission, err := s.office(scanners, messages, mail).Submit(ctx)
	if err != nil {
		return rates{}, err
	}
	if err := s.await(ctx, arrived); err != nil {
		return rates{}, err
	}
	tally := s.sink.Tally()
	if tally.Damaged > 0 || tally.Messages != int64(messages) {
		return rates{}, fmt.Errorf("of %d messages %d arrived, %d of them damaged", messages, tally.Messages, tally.Damaged)
	}
	return rates{
		accepted: float64(messages) / submission.Last.Sub(submission.First).Seconds(),
		arrived:  float64(messages) / tally.Last.Sub(submission.First).Seconds(),
	}, nil
}

// fill hands in mail that stays, and returns how many messages were accepted a second.
func (s *stage) fill(ctx context.Context, scanners, messages, size int) (float64, error) {
	mail, err := s.bench.mail(size)
	if err != nil {
		return 0, err
	}
	submission, err := s.office(scanners, messages, mail).Submit(ctx)
	return float64(messages) / submission.Last.Sub(submission.First).Seconds(), err
}

func (s *stage) office(scanners, messages int, mail *source.Mail) source.Office {
	return source.Office{
		Address: s.address(), Scanners: scanners, Messages: messages, Mail: mail,
		MessagesPerConnection: s.bench.options.MessagesPerConnection,
	}
}

func (s *stage) await(ctx context.Context, arrived <-chan struct{}) error {
	select {
	case <-arrived:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%d messages at the sink: %w", s.sink.Tally().Messages, context.Cause(ctx))
	}
}

// settle is how long a relay has for what it does after the last message has arrived: take it out of the queue.
const settle = time.Second

// written is what the contender has caused to be written to disk so far, in bytes.
func (s *stage) written(ctx context.Context) (int64, error) {
	select {
	case <-time.After(settle):
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	return process.Written(s.relay.PIDs())
}

// profiled is pass, under perf if a profile was asked for.
func (s *stage) profiled(ctx context.Context, name string, scanners, messages, size int) (rates, error) {
	stop := s.profile(ctx, name)
	r, err := s.pass(ctx, scanners, messages, size)
	return r, errors.Join(err, stop())
}

// profile starts perf on Mailchute; what it returns ends it and writes the report beside the record.
func (s *stage) profile(ctx context.Context, name string) func() error {
	if s.bench.options.Profile == "" || s.contender != mailchute || !s.bench.first {
		return func() error { return nil }
	}
	record := filepath.Join(s.bench.options.Profile, name+".perf")
	perf, err := process.Start(process.Options{Log: filepath.Join(s.bench.options.Profile, name+".log")},
		"perf", "record", "-q", "-F", "499", "-g", "-o", record, "-p", strconv.Itoa(s.relay.PIDs()[0]))
	if err != nil {
		return func() error { return fmt.Errorf("profile: %w", err) }
	}
	s.bench.note("Mailchute ran under perf in %s, and nothing else did: its first round there is too low to compare.", name)
	return func() error {
		// perf ends on SIGTERM with its record complete.
		if err := perf.Stop(20 * time.Second); err != nil {
			return fmt.Errorf("profile: %w", err)
		}
		report, err := os.Create(filepath.Join(s.bench.options.Profile, name+".txt"))
		if err != nil {
			return err
		}
		defer report.Close()
		command := exec.CommandContext(ctx, "perf", "report", "--stdio", "--no-children", "-g", "none", "-i", record)
		command.Stdout = report
		if err := command.Run(); err != nil {
			return fmt.Errorf("profile: perf report: %w", err)
		}
		return nil
	}
}

// note keeps a remark for below the table.
func (b *bench) note(format string, arguments ...any) {
	b.notes = append(b.notes, fmt.Sprintf(format, arguments...))
}
