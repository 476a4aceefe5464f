package delivery

import (
	"bytes"
	"io"
	"slices"

	"mailchute/appliance/smtpclient"
	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

// job is an attempt on record that waits for a connection or is on one.
type job struct {
	smtpclient.Transaction
	id       trace.ID
	device   string
	attempts int
	body     []byte // the message, where it is at hand; else it is read from the queue
}

func (j *job) attempt(connector string) attempt { return attempt{j.id, connector} }

// newJob makes the job of a message's recipients that wait at a connector.
func newJob(s *spool.Spool, e *spool.Envelope, leg *spool.Leg) *job {
	j := &job{id: e.ID, device: e.Device, attempts: leg.Attempts}
	j.Sender, j.Size, j.EightBit, j.UTF8 = e.Sender, e.Size, e.EightBit, e.UTF8
	for _, r := range e.Recipients {
		if r.State == trace.Waiting && r.Connector == leg.Connector {
			j.Recipients = append(j.Recipients, r.Address)
		}
	}
	j.Body = func() (io.ReadCloser, error) {
		if j.body != nil {
			return io.NopCloser(bytes.NewReader(j.body)), nil
		}
		return s.Body(j.id, j.Size), nil
	}
	return j
}

// ready holds jobs; devices take turns.
type ready struct {
	devices []string // that have jobs, in the order of their turns
	jobs    map[string][]*job
	count   int
	bytes   int // of bodies
}

// maxBodies are the bytes of bodies kept in memory; more are read from the queue again.
const maxBodies = 4 << 20

func (r *ready) push(j *job) {
	if r.bytes+len(j.body) > maxBodies {
		j.body = nil
	}
	r.bytes += len(j.body)
	if r.jobs == nil {
		r.jobs = make(map[string][]*job)
	}
	if len(r.jobs[j.device]) == 0 {
		r.devices = append(r.devices, j.device)
	}
	r.jobs[j.device] = append(r.jobs[j.device], j)
	r.count++
}

func (r *ready) pop() *job {
	if r.count == 0 {
		return nil
	}
	device := r.devices[0]
	jobs := r.jobs[device]
	j := jobs[0]
	jobs[0] = nil
	r.devices = append(r.devices[:0], r.devices[1:]...)
	if len(jobs) > 1 {
		r.jobs[device] = jobs[1:]
		r.devices = append(r.devices, device)
	} else {
		delete(r.jobs, device)
	}
	r.count--
	r.bytes -= len(j.body)
	return j
}

// take removes the jobs that match and returns them.
func (r *ready) take(match func(*job) bool) (taken []*job) {
	for device, jobs := range r.jobs {
		rest := slices.DeleteFunc(slices.Clone(jobs), func(j *job) bool {
			if !match(j) {
				return false
			}
			taken = append(taken, j)
			r.bytes -= len(j.body)
			return true
		})
		if r.jobs[device] = rest; len(rest) == 0 {
			delete(r.jobs, device)
			r.devices = slices.DeleteFunc(r.devices, func(d string) bool { return d == device })
		}
	}
	r.count -= len(taken)
	return taken
}
