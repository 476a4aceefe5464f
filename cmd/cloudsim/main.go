// Cloudsim stands in for Exchange Online in the demo and in tests: it takes mail for a tenant by the tenant's
// rules, stores it in a folder, prints a line for each message, and fails where it is told to.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/alecthomas/kong"

	"mailchute/cmd/cloudsim/sim"
)

// arguments are the command line.
type arguments struct {
	Listen      string            `default:"127.0.0.1:2526" placeholder:"ADDRESS" help:"Address to listen on (${default})."`
	Store       string            `placeholder:"DIR" help:"Folder for the messages: NNNNNN.eml, and NNNNNN.json with envelope, TLS and certificate. Empty: they are counted and dropped."`
	Credentials string            `placeholder:"DIR" help:"Folder for ca.pem and for relay.crt and relay.key, the client certificate of relay.contoso.com. Its authority is made once and kept there. Empty: made anew, written nowhere."`
	Domain      []string          `default:"contoso.com" placeholder:"DOMAIN" help:"Accepted domains (${default}). The connector takes certificates with names under them."`
	Account     map[string]string `placeholder:"USER=PASSWORD" help:"Accounts that may sign in (AUTH LOGIN, under TLS), and then send as themselves."`
	ImplicitTLS bool              `name:"implicit-tls" help:"TLS from the first byte, as on port 465."`
	Anyone      bool              `help:"Take mail for accepted domains without certificate too (Direct Send)."`
	Fault       []string          `sep:"none" placeholder:"FAULT" help:"STAGE[~MATCH]=WHAT[:COUNT], for example rcpt=stall or final=451:3; stages: ${stages}; WHAT: a reply, 4xx, 5xx, refuse, close, reset, stall, half-close, garbage, tls-alert, tls-reject, or reply+action."`
	Faults      string            `placeholder:"FILE" help:"More faults, one a line; read again on SIGHUP."`
}

func main() {
	var args arguments
	stages := make([]string, len(sim.Stages))
	for i, stage := range sim.Stages {
		stages[i] = string(stage)
	}
	kong.Parse(&args, kong.Name("cloudsim"), kong.Vars{"stages": strings.Join(stages, ", ")},
		kong.Description("A stand-in for Exchange Online: SMTP with the rules of a tenant, for demo and tests."))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, args, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "cloudsim:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, args arguments, out io.Writer) error {
	tenant, err := newTenant(args)
	if err != nil {
		return err
	}
	if args.Store != "" {
		if err := os.MkdirAll(args.Store, 0o755); err != nil {
			return err
		}
	}
	screen := &screen{out: out}
	server, err := sim.New(tenant, sim.Options{
		Folder:    args.Store,
		Discard:   true,
		OnMessage: screen.message,
		OnFault:   func(fault sim.Fault) { screen.line("fault: " + fault.String()) },
		OnEnd:     func(peer, why string) { screen.line("connection from " + peer + " ended: " + why) },
	})
	if err != nil {
		return err
	}
	defer server.Close()
	if err := setFaults(server, args); err != nil {
		return err
	}

	listener, err := net.Listen("tcp", args.Listen)
	if err != nil {
		return fmt.Errorf("%w; choose another address with --listen, or stop what uses this one", err)
	}
	screen.line(fmt.Sprintf("%s, the tenant of %s, listens on %s", tenant.Host, strings.Join(tenant.AcceptedDomains, ", "), listener.Addr()))

	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-reload:
			if err := setFaults(server, args); err != nil {
				screen.line("faults unchanged: " + err.Error())
				continue
			}
			screen.line("faults read again")
		}
	}
}

func newTenant(args arguments) (sim.Tenant, error) {
	authority, err := sim.NewAuthority()
	if args.Credentials != "" {
		if err := os.MkdirAll(args.Credentials, 0o700); err != nil {
			return sim.Tenant{}, err
		}
		authority, err = sim.LoadAuthority(args.Credentials)
	}
	if err != nil {
		return sim.Tenant{}, err
	}
	if len(args.Domain) == 0 {
		return sim.Tenant{}, errors.New("no accepted domain: name at least one with --domain")
	}
	tenant, err := sim.Contoso(authority)
	if err != nil {
		return sim.Tenant{}, err
	}
	tenant.AcceptedDomains = args.Domain
	tenant.Connectors = nil
	for _, domain := range args.Domain {
		tenant.Connectors = append(tenant.Connectors,
			sim.Connector{Name: "Relay box", CertificateName: domain}, sim.Connector{Name: "Relay box", CertificateName: "*." + domain})
	}
	tenant.Accounts = args.Account
	tenant.ImplicitTLS = args.ImplicitTLS
	tenant.RejectDirectSend, tenant.RequireCertificate = !args.Anyone, !args.Anyone
	if args.Credentials == "" {
		return tenant, nil
	}
	relay, err := authority.Issue("relay." + args.Domain[0])
	if err != nil {
		return sim.Tenant{}, err
	}
	return tenant, sim.WriteCertificate(args.Credentials, "relay", relay)
}

// setFaults sets those of the command line and of the file.
func setFaults(server *sim.Server, args arguments) error {
	faults, err := sim.ParseFaults(strings.NewReader(strings.Join(args.Fault, "\n")))
	if err != nil {
		return err
	}
	if args.Faults != "" {
		script, err := os.Open(args.Faults)
		if err != nil {
			return err
		}
		defer script.Close()
		more, err := sim.ParseFaults(script)
		if err != nil {
			return fmt.Errorf("%s: %w", args.Faults, err)
		}
		faults = slices.Concat(faults, more)
	}
	server.SetFaults(faults)
	return nil
}

// screen prints whole lines, whoever calls.
type screen struct {
	mutex sync.Mutex
	out   io.Writer
}

func (s *screen) line(text string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	fmt.Fprintln(s.out, "cloud:", text)
}

func (s *screen) message(m sim.Message) {
	identity := "without certificate"
	switch {
	case m.Account != "":
		identity = "signed in as " + m.Account
	case m.Trusted:
		identity = "certificate " + strings.Join(m.Certificates, ", ")
	case len(m.Certificates) > 0:
		identity = "certificate not trusted: " + strings.Join(m.Certificates, ", ")
	}
	stored := ""
	if m.File != "" {
		stored = ", stored as " + filepath.Clean(m.File)
	}
	s.line(fmt.Sprintf("message %d from <%s> to <%s>, %d bytes, %s, %s%s", m.Number, m.Sender,
		strings.Join(m.Recipients, ">, <"), m.Size, cmp.Or(m.TLS, "no TLS"), identity, stored))
}
