package config

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1m": time.Minute, "30m": 30 * time.Minute, "90s": 90 * time.Second, "1h30m": 90 * time.Minute,
		"5d": 120 * time.Hour, "1d12h": 36 * time.Hour, "250ms": 250 * time.Millisecond, "3650d": 87600 * time.Hour,
	} {
		if got, err := ParseDuration(text); err != nil || time.Duration(got) != want {
			t.Errorf("ParseDuration(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "5", "0s", "0d", "-1m", "+1m", "1.5h", "1 m", "1M", "1w", "d", "1h1d", "1us", "3651d", "9999d", "3650d1ms",
		"999999999999h", "99999999999999999999s", "1d2d",
	} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", text, got)
		}
	}
}

func TestDurationsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := Duration(rapid.Int64Range(1, int64(maxDuration/Duration(time.Millisecond))).Draw(t, "ms")) * Duration(time.Millisecond)
		if again, err := ParseDuration(d.String()); err != nil || again != d {
			t.Fatalf("%d is written as %q and read back as %d, %v", d, d, again, err)
		}
	})
	if got := Duration(90*time.Minute + 24*time.Hour).String(); got != "1d1h30m" {
		t.Error(got)
	}
	if got := Duration(0).String(); got != "0s" {
		t.Error(got)
	}
}

func TestParseAddressRange(t *testing.T) {
	for _, c := range []struct{ text, prefix, back string }{
		{"192.168.1.40", "192.168.1.40/32", "192.168.1.40"},
		{"192.168.1.40/32", "192.168.1.40/32", "192.168.1.40"},
		{"192.168.2.0/24", "192.168.2.0/24", "192.168.2.0/24"},
		{"0.0.0.0/0", "0.0.0.0/0", "0.0.0.0/0"},
		{"FD00:0::1", "fd00::1/128", "fd00::1"},
		{"fd00::/64", "fd00::/64", "fd00::/64"},
		{"::ffff:192.168.1.40", "192.168.1.40/32", "192.168.1.40"},
		{"::ffff:192.168.2.0/120", "192.168.2.0/24", "192.168.2.0/24"},
	} {
		got, err := ParseAddressRange(c.text)
		if err != nil || got.Prefix != netip.MustParsePrefix(c.prefix) || got.String() != c.back {
			t.Errorf("ParseAddressRange(%q) = %s, written %s, %v; want %s, written %s", c.text, got.Prefix, got, err, c.prefix, c.back)
		}
	}
	for _, text := range []string{
		"", "printer", "192.168.1", "192.168.1.256", "192.168.1.0/33", "192.168.1.1/24", "::ffff:192.168.1.1/120",
		"::ffff:0:0/95", "fe80::1%eth0", "fe80::%eth0/64", "192.168.1.0-192.168.1.9", "192.168.001.001", " 10.0.0.1",
	} {
		if got, err := ParseAddressRange(text); err == nil {
			t.Errorf("ParseAddressRange(%q) = %s, want an error", text, got)
		}
	}
}
