// Package config is the one settings document, config.toml in the state folder: its types, defaults, checks
// with positions, and earlier revisions.
package config

import (
	"net/netip"
	"path/filepath"

	"mailchute/appliance/address"
)

// FileName is the settings document's place in the state folder.
const FileName = "config.toml"

// Config is the whole document, checked: see Parse for what can be relied on. JSON has the same names.
//
// The tags tell the checks: required (a list then needs an item), with an example; enum, the values allowed;
// minimum and maximum, of numbers. A key that is not required has the default that setDefaults of its table
// gives.
type Config struct {
	Version         int         `toml:"version" json:"version" required:"true" example:"1" minimum:"1" maximum:"1"`
	Hostname        string      `toml:"hostname" json:"hostname" required:"true" example:"relay.contoso.com"`           // HELO name, and the name in Received
	AcceptedDomains []string    `toml:"accepted_domains" json:"accepted_domains" required:"true" example:"contoso.com"` // as address.ParseDomain gives them, at least one
	SMTP            SMTP        `toml:"smtp" json:"smtp"`
	Devices         []Device    `toml:"device" json:"device"`
	Connectors      []Connector `toml:"connector" json:"connector"`
	Retry           Retry       `toml:"retry" json:"retry"`
	Queue           Queue       `toml:"queue" json:"queue"`
}

func (c *Config) setDefaults() {
	*c = Config{Devices: []Device{}, Connectors: []Connector{}}
	c.SMTP.setDefaults()
	c.Retry.setDefaults()
}

// SMTP is where and how the box takes mail from devices.
type SMTP struct {
	MaxMessageSize           int64      `toml:"max_message_size" json:"max_message_size" minimum:"1" maximum:"1099511627776"` // bytes; one of exactly that size passes
	MaxConnections           int        `toml:"max_connections" json:"max_connections" minimum:"1" maximum:"100000"`
	MaxConnectionsPerAddress int        `toml:"max_connections_per_address" json:"max_connections_per_address" minimum:"1" maximum:"100000"`
	Listeners                []Listener `toml:"listener" json:"listener"` // none in the document: one with the defaults, on ":25"
}

func (s *SMTP) setDefaults() {
	*s = SMTP{MaxMessageSize: 157286400, MaxConnections: 500, MaxConnectionsPerAddress: 50,
		Listeners: []Listener{{Address: ":25", TLS: ListenStartTLS}}}
}

// Listener is one address devices connect to.
type Listener struct {
	Address string    `toml:"address" json:"address" required:"true" example:":25"` // ":25", "192.168.1.5:25", "[fd00::5]:25"; port 0: the system chooses
	TLS     ListenTLS `toml:"tls" json:"tls" enum:"none,starttls,implicit"`
}

func (l *Listener) setDefaults() { l.TLS = ListenStartTLS }

// ListenTLS is what a listener offers.
type ListenTLS string

const (
	ListenPlain    ListenTLS = "none"
	ListenStartTLS ListenTLS = "starttls" // offered, not demanded
	ListenImplicit ListenTLS = "implicit" // TLS from the first byte
)

// Device is one entry of those who may hand in mail.
type Device struct {
	Name      string         `toml:"name" json:"name" required:"true" example:"Floor 2"`
	Addresses []AddressRange `toml:"addresses" json:"addresses" required:"true" example:"192.168.1.40"` // at least one; no two entries have the same
}

// Connector is a way to one cloud endpoint.
type Connector struct {
	Name          string            `toml:"name" json:"name" required:"true" example:"m365"`
	Kind          Kind              `toml:"kind" json:"kind" required:"true" example:"smarthost" enum:"smarthost"`
	Host          string            `toml:"host" json:"host" required:"true" example:"contoso-com.mail.protection.outlook.com"` // a name, or an IP address without brackets; MX is not looked up
	Port          int               `toml:"port" json:"port" minimum:"1" maximum:"65535"`
	TLS           TLS               `toml:"tls" json:"tls" enum:"none,opportunistic,required,verified"`
	TLSMode       TLSMode           `toml:"tls_mode" json:"tls_mode" enum:"starttls,implicit"`
	TLSName       string            `toml:"tls_name" json:"tls_name"` // the name to verify; empty: Host
	IP            IPVersion         `toml:"ip" json:"ip" enum:"auto,4,6"`
	SourceAddress netip.Addr        `toml:"source_address" json:"source_address"`                      // local address to send from; invalid: the system chooses
	CAFile        string            `toml:"ca_file" json:"ca_file"`                                    // PEM; empty: the system's roots
	Certificate   string            `toml:"certificate" json:"certificate"`                            // see CertificateFiles; empty: none
	Username      string            `toml:"username" json:"username"`                                  // AUTH PLAIN or LOGIN; empty: none
	PasswordFile  string            `toml:"password_file" json:"password_file"`                        // set if and only if Username is
	Domains       []address.Pattern `toml:"domains" json:"domains" required:"true" example:"*"`        // of recipients, at least one
	Senders       []address.Scope   `toml:"senders" json:"senders"`                                    // empty: all; matched before Domains
	Priority      int               `toml:"priority" json:"priority" minimum:"0" maximum:"65535"`      // the lower is tried first
	Connections   int               `toml:"connections" json:"connections" minimum:"1" maximum:"1000"` // at once
}

func (c *Connector) setDefaults() {
	*c = Connector{Port: 25, TLS: TLSVerified, TLSMode: TLSStartTLS, IP: IPAuto, Senders: []address.Scope{},
		Priority: 10, Connections: 4}
}

// Kind is the sort of endpoint a connector leads to.
type Kind string

// Smarthost is a named SMTP server.
const Smarthost Kind = "smarthost"

// TLS is how far a connector trusts the way to its endpoint.
type TLS string

const (
	TLSNone          TLS = "none"          // never
	TLSOpportunistic TLS = "opportunistic" // where offered, unverified
	TLSRequired      TLS = "required"      // always, unverified
	TLSVerified      TLS = "verified"      // always, with the endpoint's certificate and name verified
)

// TLSMode is how TLS begins.
type TLSMode string

const (
	TLSStartTLS TLSMode = "starttls"
	TLSImplicit TLSMode = "implicit" // from the first byte
)

// IPVersion limits which of a host's addresses are used.
type IPVersion string

const (
	IPAuto IPVersion = "auto"
	IP4    IPVersion = "4"
	IP6    IPVersion = "6"
)

// Retry is the schedule of attempts: after First, then doubling up to Ceiling, until GiveUp after acceptance.
type Retry struct {
	First   Duration `toml:"first" json:"first"`
	Ceiling Duration `toml:"ceiling" json:"ceiling"` // not below First
	GiveUp  Duration `toml:"give_up" json:"give_up"` // not below First
}

func (r *Retry) setDefaults() { *r = Retry{First: minute, Ceiling: 30 * minute, GiveUp: 5 * day} }

// Queue is how much may wait.
type Queue struct {
	MaxSize int64 `toml:"max_size" json:"max_size" minimum:"0" maximum:"1125899906842624"` // bytes; 0: half the disk
}

// Path is the place of a file the settings name: relative ones are relative to the state folder.
func Path(stateDir, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(stateDir, name)
}

// CertificateFiles are the places of a connector's certificate (with its intermediates) and key; empty where
// it has none.
func (c *Connector) CertificateFiles(stateDir string) (certificate, key string) {
	if c.Certificate == "" {
		return "", ""
	}
	base := filepath.Join(stateDir, "certs", c.Certificate)
	return base + ".crt", base + ".key"
}
