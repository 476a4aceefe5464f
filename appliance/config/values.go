package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Duration is a span of time, in the document "30m", "5d", "1h30m": days, hours, minutes, seconds, milliseconds.
type Duration time.Duration

const (
	minute = Duration(time.Minute)
	day    = 24 * Duration(time.Hour)
)

// maxDuration keeps sums of durations far from overflowing.
const maxDuration = 3650 * day

var durationForm = regexp.MustCompile(`^(?:(\d{1,4})d)?((?:\d{1,12}(?:h|m|s|ms))*)$`)

// ParseDuration reads a span of more than 0 and at most 3650 days.
func ParseDuration(text string) (Duration, error) {
	parts := durationForm.FindStringSubmatch(text)
	if parts == nil || text == "" {
		return 0, fmt.Errorf("%q: not a span of time", clip(text))
	}
	var sum Duration
	if parts[1] != "" {
		days, err := strconv.Atoi(parts[1])
		if err != nil {
			return 0, err
		}
		sum = Duration(days) * day
	}
	if parts[2] != "" {
		rest, err := time.ParseDuration(parts[2])
		if err != nil || Duration(rest) > maxDuration {
			return 0, fmt.Errorf("%q: too long", clip(text))
		}
		sum += Duration(rest)
	}
	if sum <= 0 || sum > maxDuration {
		return 0, fmt.Errorf("%q: out of range", clip(text))
	}
	return sum, nil
}

// String writes what ParseDuration reads, each unit once and only where it is not zero.
func (d Duration) String() string {
	days, rest := d/day, time.Duration(d%day)
	text := ""
	if days > 0 {
		text = strconv.Itoa(int(days)) + "d"
	}
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}, {time.Millisecond, "ms"}} {
		if count := rest / unit.length; count > 0 {
			text += strconv.FormatInt(int64(count), 10) + unit.name
		}
		rest %= unit.length
	}
	if text == "" {
		return "0s"
	}
	return text
}

func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d *Duration) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDuration(string(text))
	return err
}

// AddressRange is an IP address or a range of them, in the document "192.168.1.40", "192.168.2.0/24" or
// "fd00::/64". IPv4 addresses written as IPv6 are kept as IPv4.
type AddressRange struct{ netip.Prefix }

// ParseAddressRange reads an address or a range whose host bits are zero.
func ParseAddressRange(text string) (AddressRange, error) {
	if !strings.Contains(text, "/") {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			return AddressRange{}, fmt.Errorf("%q: not an IP address", clip(text))
		}
		if ip.Zone() != "" {
			return AddressRange{}, fmt.Errorf("%q: it has a zone, but an address counts on every interface", clip(text))
		}
		ip = ip.Unmap()
		return AddressRange{netip.PrefixFrom(ip, ip.BitLen())}, nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return AddressRange{}, fmt.Errorf("%q: not a range of IP addresses", clip(text))
	}
	if ip := prefix.Addr(); ip.Is4In6() {
		if prefix.Bits() < 96 {
			return AddressRange{}, fmt.Errorf("%q: it mixes IPv4 and IPv6 addresses", clip(text))
		}
		prefix = netip.PrefixFrom(ip.Unmap(), prefix.Bits()-96)
	}
	if prefix != prefix.Masked() {
		return AddressRange{}, fmt.Errorf("%q: host bits are set; the range is %s, the address alone %s", clip(text), prefix.Masked(), prefix.Addr())
	}
	return AddressRange{prefix}, nil
}

func (r AddressRange) String() string {
	if r.IsSingleIP() {
		return r.Addr().String()
	}
	return r.Prefix.String()
}

func (r AddressRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

func (r *AddressRange) UnmarshalText(text []byte) (err error) {
	*r, err = ParseAddressRange(string(text))
	return err
}

// clip keeps an error readable when what was found is long.
func clip(text string) string {
	if len(text) > 60 {
		return text[:60] + "..."
	}
	return text
}
