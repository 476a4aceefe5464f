// Package device knows who may hand in mail.
package device

import (
	"net/netip"
	"slices"

	"mailchute/appliance/config"
)

// Table finds the device entry that covers an address. It does not change; new settings make a new one.
type Table struct {
	byRange map[netip.Prefix]*config.Device
	lengths []int // of the IPv4 and IPv6 prefixes that occur, the longest first
}

// NewTable makes the table of a document's devices. It keeps pointers to them.
func NewTable(devices []config.Device) *Table {
	t := &Table{byRange: map[netip.Prefix]*config.Device{}}
	for i := range devices {
		for _, addresses := range devices[i].Addresses {
			t.byRange[addresses.Prefix] = &devices[i]
			t.lengths = append(t.lengths, addresses.Bits())
		}
	}
	slices.Sort(t.lengths)
	t.lengths = slices.Compact(t.lengths)
	slices.Reverse(t.lengths)
	return t
}

// Find gives the entry with the most specific range that covers the address. IPv4 mapped to IPv6 counts as
// IPv4, and a zone does not count.
func (t *Table) Find(ip netip.Addr) (*config.Device, bool) {
	ip = ip.Unmap().WithZone("")
	for _, length := range t.lengths {
		if length > ip.BitLen() {
			continue // of IPv6
		}
		prefix, _ := ip.Prefix(length)
		if device := t.byRange[prefix]; device != nil {
			return device, true
		}
	}
	return nil, false
}
