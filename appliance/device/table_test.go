package device

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"mailchute/appliance/config"
)

func entry(t interface{ Fatal(...any) }, name string, ranges ...string) config.Device {
	device := config.Device{Name: name}
	for _, text := range ranges {
		addresses, err := config.ParseAddressRange(text)
		if err != nil {
			t.Fatal(err)
		}
		device.Addresses = append(device.Addresses, addresses)
	}
	return device
}

func TestFind(t *testing.T) {
	table := NewTable([]config.Device{
		entry(t, "office", "192.168.0.0/16", "fd00::/48", "fe80::/64"),
		entry(t, "floor 2", "192.168.2.0/24", "fd00:0:0:2::/64"),
		entry(t, "copier", "192.168.2.40", "fd00:0:0:2::40"),
		entry(t, "mapped", "::ffff:10.0.0.0/104"),
	})
	for ip, want := range map[string]string{
		"192.168.1.1":             "office",
		"192.168.2.1":             "floor 2",
		"192.168.2.40":            "copier",
		"::ffff:192.168.2.40":     "copier",
		"::ffff:192.168.2.1%eth0": "floor 2",
		"192.169.0.1":             "",
		"10.1.2.3":                "mapped",
		"11.1.2.3":                "",
		"fd00::1":                 "office",
		"fd00:0:0:2::1":           "floor 2",
		"fd00:0:0:2::40":          "copier",
		"fd01::1":                 "",
		"fe80::1%eth0":            "office",
		"::":                      "",
	} {
		got := ""
		if device, ok := table.Find(netip.MustParseAddr(ip)); ok {
			got = device.Name
		}
		if got != want {
			t.Errorf("%s is %q, want %q", ip, got, want)
		}
	}
}

// Nobody is a device where there are none, and what is no address never is one.
func TestFindNothing(t *testing.T) {
	if device, ok := NewTable(nil).Find(netip.MustParseAddr("192.168.1.1")); ok {
		t.Errorf("an empty table found %q", device.Name)
	}
	all := NewTable([]config.Device{entry(t, "all", "0.0.0.0/0", "::/0")})
	if device, ok := all.Find(netip.Addr{}); ok {
		t.Errorf("no address is %q", device.Name)
	}
	if _, ok := all.Find(netip.MustParseAddr("192.168.1.1")); !ok {
		t.Error("0.0.0.0/0 does not cover 192.168.1.1")
	}
}

// The lookup by lengths agrees with looking at each range in turn.
func TestFindAgreesWithSearch(t *testing.T) {
	ips := []string{"10.0.0.1", "10.0.0.2", "10.1.0.1", "11.0.0.1", "fd00::1", "fd00::2", "fd01::1"}
	rapid.Check(t, func(t *rapid.T) {
		var devices []config.Device
		seen := map[netip.Prefix]bool{}
		for range rapid.IntRange(0, 6).Draw(t, "ranges") {
			ip := netip.MustParseAddr(rapid.SampledFrom(ips).Draw(t, "ip"))
			prefix := netip.PrefixFrom(ip, rapid.IntRange(0, ip.BitLen()).Draw(t, "length")).Masked()
			if !seen[prefix] {
				seen[prefix] = true
				devices = append(devices, entry(t, prefix.String(), prefix.String()))
			}
		}
		ip := netip.MustParseAddr(rapid.SampledFrom(ips).Draw(t, "client"))
		want, length := "", -1
		for _, device := range devices {
			if prefix := device.Addresses[0].Prefix; prefix.Contains(ip) && prefix.Bits() > length {
				want, length = device.Name, prefix.Bits()
			}
		}
		got := ""
		if device, ok := NewTable(devices).Find(ip); ok {
			got = device.Name
		}
		if got != want {
			t.Fatalf("%s is %q, want %q", ip, got, want)
		}
	})
}

func BenchmarkFind(b *testing.B) {
	table := NewTable([]config.Device{entry(b, "office", "192.168.0.0/16", "192.168.2.0/24", "192.168.2.40", "fd00::/48", "fd00::1")})
	ip := netip.MustParseAddr("192.168.7.7")
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := table.Find(ip); !ok {
			b.Fatal("not found")
		}
	}
}
