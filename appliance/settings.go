package appliance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"mailchute/appliance/address"
	"mailchute/appliance/api"
	"mailchute/appliance/cert"
	"mailchute/appliance/config"
	"mailchute/appliance/connector"
	"mailchute/appliance/delivery"
	"mailchute/appliance/device"
	"mailchute/appliance/intake"
	"mailchute/appliance/route"
)

func (b *box) settingsPath() string { return filepath.Join(b.options.State, config.FileName) }

// readSettings reads config.toml and checks it, with the files it names.
func (b *box) readSettings() (*config.Config, error) {
	data, err := config.Read(b.settingsPath())
	if err != nil {
		return nil, err
	}
	return config.Check(b.settingsPath(), data, b.options.State)
}

// Reload applies config.toml as it is on disk, whole; when anything in it cannot be, the settings in use stay.
func (b *box) Reload(_ context.Context, by string) error {
	notifyReloading()
	defer notify("READY=1")
	settings, err := b.readSettings()
	if err != nil {
		return err
	}
	if err := b.apply(settings); err != nil {
		return err
	}
	b.log.Info("settings applied", "by", by)
	return nil
}

// apply puts settings in use: everything that can fail comes first.
func (b *box) apply(settings *config.Config) (err error) {
	b.applying.Lock()
	defer b.applying.Unlock()
	endpoints, shown, err := b.endpoints(settings)
	if err != nil {
		return err
	}
	identity, err := b.openIdentity(settings.Hostname)
	if err != nil {
		return err
	}
	ports, opened, err := b.openPorts(settings.SMTP.Listeners)
	if err != nil {
		return err
	}
	routes, devices := route.NewTable(settings), device.NewTable(settings.Devices)
	b.spool.SetMaxSize(settings.Queue.MaxSize)
	b.delivery.Set(delivery.Settings{
		Endpoints: endpoints,
		Route: func(sender, recipient address.Address) (string, bool) {
			name, _, ok := routes.Route(sender, recipient)
			return name, ok
		},
		Routes: routesOf(settings),
		Retry: delivery.Retry{
			First: time.Duration(settings.Retry.First), Ceiling: time.Duration(settings.Retry.Ceiling), GiveUp: time.Duration(settings.Retry.GiveUp),
		},
	})
	b.intake.SetRules(intake.Rules{
		Hostname:                 settings.Hostname,
		MaxMessageSize:           settings.SMTP.MaxMessageSize,
		MaxConnections:           settings.SMTP.MaxConnections,
		MaxConnectionsPerAddress: settings.SMTP.MaxConnectionsPerAddress,
		Devices:                  devices,
		Routes: func(sender, recipient address.Address) bool {
			_, _, ok := routes.Route(sender, recipient)
			return ok
		},
	})
	b.mu.Lock()
	before := b.ports
	b.settings, b.applied, b.ports, b.identity, b.shown = settings, time.Now(), ports, identity, shown
	b.mu.Unlock()
	for address, p := range before {
		if ports[address] != p {
			p.close()
		}
	}
	for _, p := range opened {
		b.tasks.Go(func() {
			if err := b.intake.Serve(p.listener, p.settings); err != nil {
				b.fail(err)
			}
		})
	}
	return nil
}

// openIdentity gives the certificate that devices are shown.
func (b *box) openIdentity(hostname string) (*cert.Listener, error) {
	b.mu.Lock()
	identity := b.identity
	b.mu.Unlock()
	if identity == nil {
		return cert.OpenListener(cert.Options{Folder: filepath.Join(b.options.State, "certs"), Hostname: hostname, Log: b.log})
	}
	return identity, identity.SetHostname(hostname)
}

// routesOf names what routing depends on.
func routesOf(settings *config.Config) string {
	text := fmt.Sprintf("%q", settings.AcceptedDomains)
	for _, c := range settings.Connectors {
		text += fmt.Sprintf("\n%q %v %v %d", c.Name, c.Domains, c.Senders, c.Priority)
	}
	return text
}

// endpoints makes the connectors that the settings name, and tells which certificates they show.
func (b *box) endpoints(settings *config.Config) (endpoints []delivery.Endpoint, shown []api.Certificate, err error) {
	var wrong []error
	for _, s := range settings.Connectors {
		c, err := connector.New(s, settings.Hostname, b.options.State, connector.System)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		if leaf := c.Certificate(); leaf != nil {
			shown = append(shown, certificate(s.Certificate, "connector "+s.Name, leaf))
		}
		endpoints = append(endpoints, delivery.Endpoint{
			Name: s.Name, Connections: s.Connections,
			Connect: func(ctx context.Context) (delivery.Conn, error) {
				conn, err := c.Connect(ctx)
				if err != nil {
					return nil, err
				}
				return conn, nil
			},
		})
	}
	return endpoints, shown, errors.Join(wrong...)
}

// openPorts gives the listeners of the settings by address: those in use, and new ones. One whose TLS changed goes
// on with the same socket, so that no connection is refused in between.
func (b *box) openPorts(listeners []config.Listener) (all map[string]*port, opened []*port, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all = make(map[string]*port, len(listeners))
	defer func() {
		if err != nil {
			for _, p := range opened {
				p.close()
			}
		}
	}()
	for _, settings := range listeners {
		p := b.ports[settings.Address]
		if p == nil || p.settings != settings {
			listener, err := b.listen(settings.Address, p)
			if err != nil {
				return nil, opened, err
			}
			p = &port{settings: settings, listener: listener}
			opened = append(opened, p)
		}
		all[settings.Address] = p
	}
	return all, opened, nil
}

func (b *box) listen(address string, before *port) (net.Listener, error) {
	if before != nil {
		file, err := before.listener.(*net.TCPListener).File()
		if err != nil {
			return nil, fmt.Errorf("listener %s: %w", address, err)
		}
		defer file.Close()
		return net.FileListener(file)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("smtp.listener: nothing can listen on %s: %w; another program may use the port (ss -ltnp shows which), or the address is not one of this machine", address, err)
	}
	return listener, nil
}
