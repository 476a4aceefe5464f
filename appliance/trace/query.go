package trace

import (
	"net/netip"
	"strings"
	"time"
)

// Query says which records are wanted. An empty field asks nothing; all that are set must hold.
type Query struct {
	Address string     // sender or any recipient, or a whole domain: "anna@contoso.com", "@contoso.com"
	Device  string     // name of the device entry
	Client  netip.Addr // address the message was handed in from
	From    time.Time  // handed in at this time or later
	Until   time.Time  // handed in before this time
	State   State      // of any recipient
	Limit   int        // records at most; 0: DefaultLimit, never more than MaxLimit
	Before  ID         // only older ones: the last id of the page before; 0: from the newest on
}

// How many records one answer holds.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// Match tells whether a record is wanted; Limit is not asked. Addresses and names are compared without
// regard to case: a person searches, nothing is delivered by it.
func (q *Query) Match(r *Record) bool {
	lowest, highest := q.ids()
	if r.ID < lowest || r.ID > highest {
		return false
	}
	if q.Device != "" && !strings.EqualFold(q.Device, r.Device) {
		return false
	}
	if q.Client.IsValid() && q.Client.Unmap().String() != r.Client {
		return false
	}
	if q.State != "" && !r.has(func(recipient *Recipient) bool { return recipient.State == q.State }) {
		return false
	}
	return q.Address == "" || MatchAddress(q.Address, r.Sender) ||
		r.has(func(recipient *Recipient) bool { return MatchAddress(q.Address, recipient.Address) })
}

// MatchAddress tells whether an address is the wanted one, or, where "@domain" is wanted, in that domain.
func MatchAddress(wanted, address string) bool {
	if strings.HasPrefix(wanted, "@") {
		at := strings.LastIndexByte(address, '@')
		return at >= 0 && strings.EqualFold(wanted, address[at:])
	}
	return strings.EqualFold(wanted, address)
}

// ids gives the lowest and the highest id that can be wanted; lowest > highest where none can.
func (q *Query) ids() (lowest, highest ID) {
	highest = ^ID(0)
	if !q.From.IsZero() {
		lowest = IDAt(q.From)
		if lowest.Time().Before(q.From) { // a fraction of a microsecond
			lowest++
		}
	}
	if !q.Until.IsZero() {
		until := IDAt(q.Until)
		if !until.Time().Before(q.Until) {
			if until == 0 {
				return 1, 0
			}
			until--
		}
		highest = min(highest, until)
	}
	if q.Before != 0 {
		highest = min(highest, q.Before-1)
	}
	return lowest, highest
}

// limit is Limit within its bounds.
func (q *Query) limit() int {
	if q.Limit <= 0 {
		return DefaultLimit
	}
	return min(q.Limit, MaxLimit)
}

func (r *Record) has(wanted func(*Recipient) bool) bool {
	for i := range r.Recipients {
		if wanted(&r.Recipients[i]) {
			return true
		}
	}
	return false
}
