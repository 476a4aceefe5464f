package trace

import (
	"net/netip"
	"time"
)

// Stranger counts what one address that may not send was refused.
type Stranger struct {
	Address   netip.Addr `json:"address"`
	First     time.Time  `json:"first"`
	Last      time.Time  `json:"last"`
	Count     int        `json:"count"`     // refusals since First
	Sender    string     `json:"sender"`    // of the last one, at most 256 bytes, as the two below
	Recipient string     `json:"recipient"` // of the last one, where it came that far
	Reason    string     `json:"reason"`    // of the last one
}
