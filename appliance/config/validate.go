package config

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"mailchute/appliance/address"
)

// validate checks what the types and tags cannot say, and brings names into the form they are compared in.
// Keys that are not there are right: they are defaults, or reported as missing.
func validate(c *Config, root *node, found *problems) {
	v := validator{found}
	if n := root.given("hostname"); n != nil {
		c.Hostname = v.hostname(n)
	}
	for i, n := range root.given("accepted_domains").each {
		c.AcceptedDomains[i] = v.domain(n)
	}
	v.listeners(c.SMTP.Listeners, root.given("smtp").given("listener"))
	v.devices(c.Devices, root.given("device"))
	v.connectors(c.Connectors, root.given("connector"))
	v.retry(c.Retry, root.given("retry"))
}

type validator struct{ *problems }

// hostname takes what other servers accept as HELO name (RFC 5321 2.3.5): a name with a dot, no address.
func (v validator) hostname(n *node) string {
	name, err := address.ParseDomain(n.text)
	if _, ipErr := netip.ParseAddr(n.text); err != nil || ipErr == nil || !strings.Contains(name, ".") || strings.Contains(name, "_") {
		v.value(n, strconv.Quote(clip(n.text)), "a full host name of letters, digits, hyphens and at least one dot",
			`give the name the box has in DNS, such as "relay.contoso.com"`)
	}
	return name
}

func (v validator) domain(n *node) string {
	domain, err := address.ParseDomain(n.text)
	if err != nil {
		v.value(n, err.Error(), `a domain such as "contoso.com"`, "correct it")
	}
	return domain
}

func (v validator) listeners(listeners []Listener, list *node) {
	type bound struct {
		at   netip.AddrPort
		node *node
	}
	var before []bound
	for _, item := range list.each {
		n := item.given("address")
		if n == nil {
			continue
		}
		at, err := parseListenAddress(n.text)
		if err != nil {
			v.value(n, err.Error(), `a port as ":25", or an IP address and a port as "192.168.1.5:25" or "[fd00::5]:25"`, "correct it")
			continue
		}
		for _, other := range before {
			isShared := at.Addr() == other.at.Addr() || at.Addr().IsUnspecified() || other.at.Addr().IsUnspecified()
			if isShared && at.Port() == other.at.Port() && at.Port() != 0 {
				v.value(n, fmt.Sprintf("%q, which the listener in line %d has taken", n.text, other.node.at.line),
					"each address and port once; no address means all of them", "change or remove one of the two")
				break
			}
		}
		before = append(before, bound{at, n})
	}
}

// parseListenAddress reads host:port, the host empty, an IP address, or localhost. Every way to say all
// addresses is the same, as it is to Linux.
func parseListenAddress(text string) (netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(text)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q, which is not an address and a port", clip(text))
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q, whose port is not a number from 0 to 65535", clip(text))
	}
	ip := netip.IPv6Unspecified()
	switch host {
	case "":
	case "localhost":
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	default:
		if ip, err = netip.ParseAddr(host); err != nil {
			return netip.AddrPort{}, fmt.Errorf("%q, whose host is not an IP address", clip(text))
		}
		if ip = ip.Unmap(); ip.IsUnspecified() {
			ip = netip.IPv6Unspecified()
		}
	}
	return netip.AddrPortFrom(ip, uint16(port)), nil
}

func (v validator) devices(devices []Device, list *node) {
	names := map[string]*node{}
	ranges := map[netip.Prefix]*node{}
	for i, item := range list.each {
		v.name(item.given("name"), names, "device")
		for j, n := range item.given("addresses").each {
			prefix := devices[i].Addresses[j].Prefix
			if first := ranges[prefix]; first != nil {
				v.value(n, fmt.Sprintf("%q, which is in line %d already", n.text, first.at.line),
					"each address or range once", "remove it here or there")
				continue
			}
			ranges[prefix] = n
		}
	}
}

// maxName bounds names, in characters: they stand in lists, logs and traces.
const maxName = 64

// name checks a device's or connector's name; names that differ in case alone would be mixed up by people.
func (v validator) name(n *node, names map[string]*node, what string) {
	if n == nil {
		return
	}
	if n.text == "" || utf8.RuneCountInString(n.text) > maxName || strings.TrimSpace(n.text) != n.text || hasControl(n.text) {
		v.value(n, strconv.Quote(clip(n.text)), fmt.Sprintf("1 to %d characters, none of them a control character, no space at either end", maxName),
			"give the "+what+" a name people know it by")
		return
	}
	folded := strings.ToLower(n.text)
	if first := names[folded]; first != nil {
		v.value(n, fmt.Sprintf("%q, the name of the %s in line %d", n.text, what, first.at.line),
			"each name once; case does not count", "give one of them another name")
		return
	}
	names[folded] = n
}

func hasControl(text string) bool { return strings.ContainsFunc(text, unicode.IsControl) }

// certificateName is a plain file name: it can neither leave the folder certs nor be hidden in it.
var certificateName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$`)

func (v validator) connectors(connectors []Connector, list *node) {
	names := map[string]*node{}
	for i, item := range list.each {
		connector := &connectors[i]
		v.name(item.given("name"), names, "connector")
		if n := item.given("host"); n != nil {
			connector.Host = v.host(n)
		}
		if n := item.given("tls_name"); n != nil && n.text != "" {
			connector.TLSName = v.host(n)
		}
		v.addressFamily(connector, item)
		v.identity(connector, item)
	}
}

func (v validator) host(n *node) string {
	if ip, err := netip.ParseAddr(n.text); err == nil && ip.Zone() == "" {
		return ip.Unmap().String()
	}
	name, err := address.ParseDomain(n.text)
	if err != nil {
		v.value(n, err.Error(), `a host name such as "smtp.contoso.com", or an IP address`, "give the name alone, a port by the key port")
	}
	return name
}

// addressFamily checks that source_address is one, and that ip, host and source_address can be used together.
func (v validator) addressFamily(connector *Connector, item *node) {
	source := connector.SourceAddress.Unmap()
	connector.SourceAddress = source
	sourceNode := item.given("source_address")
	if sourceNode != nil && (source.IsUnspecified() || source.IsMulticast()) {
		v.value(sourceNode, strconv.Quote(sourceNode.text), "one of the box's own addresses", `give one of them, or "" to let the system choose`)
	}
	if item.isFlawed("ip", "host", "source_address") {
		return
	}
	wanted := connector.IP
	if host, err := netip.ParseAddr(connector.Host); err == nil {
		if n := item.given("ip"); n != nil && wanted != IPAuto && wanted != versionOf(host) {
			v.value(n, fmt.Sprintf("%q with the IPv%s address %s as host", n.text, versionOf(host), host),
				`"auto", or the version of the host`, "change one of the two")
		}
		wanted = versionOf(host)
	}
	if source.IsValid() && wanted != IPAuto && wanted != versionOf(source) {
		v.value(sourceNode, fmt.Sprintf("%q, while connections go over IPv%s", sourceNode.text, wanted), "an IPv"+string(wanted)+" address",
			"change source_address, or ip and host")
	}
}

func versionOf(ip netip.Addr) IPVersion {
	if ip.Is4() {
		return IP4
	}
	return IP6
}

// identity checks what the connector shows to the endpoint: certificate and account, both under TLS only.
func (v validator) identity(connector *Connector, item *node) {
	certificate, username, password := item.given("certificate"), item.given("username"), item.given("password_file")
	if certificate != nil && certificate.text != "" && !certificateName.MatchString(certificate.text) {
		v.value(certificate, strconv.Quote(clip(certificate.text)), "letters, digits, dots, hyphens and underscores, no path and no ending, or \"\" for none",
			`give "relay" for certs/relay.crt and certs/relay.key`)
	}
	if username != nil && (hasControl(username.text) || len(username.text) > 255) {
		v.value(username, strconv.Quote(clip(username.text)), "up to 255 bytes without control characters", "correct it")
	}
	switch {
	case item.isFlawed("username", "password_file"):
	case username != nil && connector.Username != "" && connector.PasswordFile == "":
		v.value(username, "a username without password_file", "both or neither", `put the password into a file of mode 0600 and name it: password_file = "secrets/m365"`)
	case password != nil && connector.PasswordFile != "" && connector.Username == "":
		v.value(password, "a password_file without username", "both or neither", "give the username or remove password_file")
	}
	if connector.TLS != TLSNone || item.isFlawed("tls") {
		return
	}
	for _, n := range []*node{certificate, username} {
		if n != nil && n.text != "" {
			v.value(n, n.name+` with tls = "none"`, "it under TLS only, so that nobody overhears it",
				`set tls to "verified", or remove `+n.name)
		}
	}
	if n := item.given("tls_mode"); n != nil && connector.TLSMode == TLSImplicit {
		v.value(n, `"implicit" with tls = "none"`, "implicit TLS needs tls", `set tls to "verified", or remove tls_mode`)
	}
}

func (v validator) retry(retry Retry, table *node) {
	first, ceiling, giveUp := table.given("first"), table.given("ceiling"), table.given("give_up")
	if n := either(giveUp, first); n != nil && !table.isFlawed("first", "give_up") && retry.First > retry.GiveUp {
		v.value(n, fmt.Sprintf("first %s above give_up %s", retry.First, retry.GiveUp), "first up to give_up", "raise give_up or lower first")
	}
	if n := either(ceiling, first); n != nil && !table.isFlawed("first", "ceiling") && retry.First > retry.Ceiling {
		v.value(n, fmt.Sprintf("first %s above ceiling %s", retry.First, retry.Ceiling), "first up to ceiling", "raise ceiling or lower first")
	}
}

// either is the one that stands in the document; the other is a default then.
func either(n, other *node) *node {
	if n != nil {
		return n
	}
	return other
}
