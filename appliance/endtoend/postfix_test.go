package endtoend

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	_ "embed"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailchute/appliance/trace"
	"mailchute/cmd/cloudsim/sim"
)

// TestPostfix has a real Postfix as the cloud, which verifies the box's certificate against an authority and relays
// for the one it has on its list. It takes the right one, and the mail arrives whole; with a wrong one the connector is
// held, for a reason that an administrator understands, until there is the right one.
func TestPostfix(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("postfix"); err != nil {
		t.Skip("Postfix is not installed: scripts/setup test does it")
	}
	if os.Getuid() != 0 {
		t.Skip("Postfix runs as root only")
	}
	cloud := newPostfix(t)
	others, err := sim.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	for mode, address := range map[string]string{"starttls": cloud.starttls, "implicit": cloud.implicit} {
		settings := connector(address, `tls_mode = "`+mode+`"`, `tls_name = "mx.cloud.test"`, `ca_file = "ca.pem"`)
		certified := settings + `certificate = "relay"` + "\n"
		for _, wrong := range []struct {
			name     string
			settings string
			issuer   *sim.Authority // of the certificate
			subject  string
			answer   string // of Postfix, or of its TLS
			cause    string // said by the box
		}{
			{"no certificate", settings, others, "relay.contoso.com",
				"421 4.7.1 mx.cloud.test Error: No client certificate presented", "wants a client certificate"},
			{"of another authority", certified, others, "relay.contoso.com",
				"421 4.7.1 mx.cloud.test Error: Client certificate not trusted", "does not trust the box's client certificate"},
			{"not on the list", certified, cloud.clients, "relay.fabrikam.com",
				"554 5.7.1 <" + to + ">: Relay access denied", "does not relay for the box"},
		} {
			t.Run(mode+"/"+wrong.name, func(t *testing.T) {
				b := newBox(t, office, wrong.settings)
				cloud.trust(b)
				issue(b, wrong.issuer, wrong.subject)
				b.start()
				name, id := hand(b, mode+wordOf(wrong.name), 10_000)
				held := heldConnector(b, wrong.answer)
				if !strings.Contains(held.Cause, wrong.cause) {
					t.Errorf("the cause is told as %q, for %q", held.Cause, held.Reply)
				}
				if n := len(cloud.mail(t)[name]); n > 0 {
					t.Error("the message was taken all the same")
				}

				cloud.trust(b)
				b.configure(office, certified)
				if status, said := b.run("config", "reload"); status != 0 {
					t.Fatalf("config reload: %s", said)
				}
				cloud.took(b, name, id)
				b.stop()
			})
		}
		t.Run(mode+"/the right one", func(t *testing.T) {
			b := newBox(t, office, certified)
			cloud.trust(b)
			b.start()
			ids := make(map[string]trace.ID)
			for i, size := range []int{1000, 4000, 60_000, 64 << 10, 1 << 20, 5_000_000, 2000, 3000} {
				name, id := hand(b, fmt.Sprint(mode, i), size)
				ids[name] = id
			}
			for name, id := range ids {
				cloud.took(b, name, id)
			}
			b.stop()
		})
	}
}

// postfix is an instance in a folder of its own.
type postfix struct {
	folder             string
	own, clients       *sim.Authority  // of its certificate, and of those it trusts
	relay              tls.Certificate // the one it relays for
	starttls, implicit string          // addresses

	opened map[string]bool     // files of mail that was looked at
	found  map[string][][]byte // in them, by Message-ID
}

//go:embed testdata/postfix-main.cf
var postfixMain string

//go:embed testdata/postfix-master.cf
var postfixMaster string

// newPostfix runs an instance until the test is over.
func newPostfix(t *testing.T) *postfix {
	t.Helper()
	p := &postfix{starttls: freeAddress(t), implicit: freeAddress(t), opened: make(map[string]bool), found: make(map[string][][]byte)}
	try := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	p.folder, err = os.MkdirTemp("", "postfix")
	try(err)
	t.Cleanup(func() { os.RemoveAll(p.folder) })
	try(os.Chmod(p.folder, 0o755)) // its processes have users of their own
	p.own, err = sim.NewAuthority()
	try(err)
	p.clients, err = sim.NewAuthority()
	try(err)
	p.relay, err = p.clients.Issue("relay.contoso.com")
	try(err)
	server, err := p.own.Issue("mx.cloud.test")
	try(err)
	try(sim.WriteCertificate(p.folder, "server", server))
	try(os.WriteFile(filepath.Join(p.folder, "clients.pem"), p.clients.RootPEM(), 0o644))

	nobody, err := user.Lookup("nobody")
	try(err)
	uid, err := strconv.Atoi(nobody.Uid)
	try(err)
	gid, err := strconv.Atoi(nobody.Gid)
	try(err)
	for _, folder := range []string{"etc", "queue", "mail"} {
		try(os.Mkdir(filepath.Join(p.folder, folder), 0o755))
	}
	try(os.Chown(filepath.Join(p.folder, "mail"), uid, gid))
	fingerprint := sha256.Sum256(p.relay.Leaf.Raw)
	main := strings.NewReplacer("FOLDER", p.folder, "UID", nobody.Uid, "GID", nobody.Gid,
		"FINGERPRINT", strings.ReplaceAll(fmt.Sprintf("% X", fingerprint), " ", ":")).Replace(postfixMain)
	master := strings.NewReplacer("STARTTLS", p.starttls, "IMPLICIT", p.implicit).Replace(postfixMaster)
	try(os.WriteFile(filepath.Join(p.folder, "etc/main.cf"), []byte(main), 0o644))
	try(os.WriteFile(filepath.Join(p.folder, "etc/master.cf"), []byte(master), 0o644))
	p.run(t)
	return p
}

// freeAddress is one that nothing listens on at this moment.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.77.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func (p *postfix) run(t *testing.T) {
	t.Helper()
	etc := filepath.Join(p.folder, "etc")
	if said, err := exec.Command("postfix", "-c", etc, "check").CombinedOutput(); err != nil { // makes the folders of its queue
		t.Fatalf("postfix check: %v\n%s", err, said)
	}
	daemons, err := exec.Command("postconf", "-c", etc, "-h", "daemon_directory").Output()
	if err != nil {
		t.Fatal(err)
	}
	var console bytes.Buffer
	master := exec.Command(filepath.Join(strings.TrimSpace(string(daemons)), "master"), "-c", etc, "-s")
	master.Stdout, master.Stderr = &console, &console
	master.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := master.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		master.Process.Signal(syscall.SIGTERM)
		killer := time.AfterFunc(10*time.Second, func() { syscall.Kill(-master.Process.Pid, syscall.SIGKILL) })
		master.Wait()
		killer.Stop()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(p.folder, "maillog"))
			t.Logf("Postfix said:\n%s\n%s", &console, log[max(0, len(log)-10000):])
		}
	})
	eventually(t, func() error {
		conn, err := textproto.Dial("tcp", p.starttls)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, _, err = conn.ReadResponse(220)
		return err
	})
}

// trust gives the box the certificate that is on the list, and the authority of Postfix's own.
func (p *postfix) trust(b *box) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.state, "ca.pem"), p.own.RootPEM(), 0o600); err != nil {
		b.t.Fatal(err)
	}
	if err := sim.WriteCertificate(filepath.Join(b.state, "certs"), "relay", p.relay); err != nil {
		b.t.Fatal(err)
	}
}

// took demands that Postfix has a message, once and whole, and that the box shows it as sent.
func (p *postfix) took(b *box, name string, id trace.ID) {
	b.t.Helper()
	record := b.awaitState(id, trace.Sent)
	eventually(b.t, func() error {
		if len(p.mail(b.t)[name]) == 0 {
			return fmt.Errorf("%s has not arrived, it is told as %+v", name, record.Recipients)
		}
		return nil
	})
	copies := p.mail(b.t)[name]
	if len(copies) != 1 {
		b.t.Errorf("%s has arrived %d times", name, len(copies))
	}
	if !bytes.Contains(copies[0], []byte("(verified OK)")) {
		b.t.Errorf("Postfix has not verified the certificate: %.1000s", copies[0])
	}
}

// mail is what has arrived, by Message-ID; letters are compared with what was sent.
func (p *postfix) mail(t *testing.T) map[string][][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(p.folder, "mail/inbox/new/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if p.opened[file] {
			continue
		}
		p.opened[file] = true
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
		at := bytes.Index(text, []byte("Received: from scanner "))
		if at < 0 {
			t.Fatalf("%s has not passed the box: %.1000s", file, text)
		}
		name, _, err := openLetter(text[at:])
		if err != nil {
			t.Error(err)
		}
		p.found[name] = append(p.found[name], text)
	}
	return p.found
}
