package intake

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailchute/appliance/config"
	"mailchute/appliance/spool"
)

// TestDialogs replays testdata/*.dialog, each against a server of its own, on a clock that stands still while
// anything moves. A line is one step, # begins a comment:
//
//	listen none|starttls|implicit    what the listener does; before the first connection. Default: starttls
//	rules KEY=VALUE ...              max_message_size, max_connections, max_connections_per_address, hostname
//	queue MEANS ERROR                room|write|accept full|closed|broken|ok: what the queue says from now on
//	c open [ADDRESS]                 client c (any letter) connects, from 192.168.1.40 if not said
//	c -> TEXT                        sends a line, and CRLF
//	c ~> "TEXT"                      sends bytes, as a Go string
//	c N -> TEXT                      sends a line N times, {n} in it counting from 0
//	c <- PATTERN                     the next line of a reply; * stands for anything
//	c <~ CODE                        a whole reply, however many lines, with this code
//	c N <~ CODE                      N of them
//	c <- closed                      the server has hung up
//	c tls                            does a TLS handshake
//	c close                          hangs up
//	wait 5m                          lets time pass
//	stop                             the server begins to shut down
//	queued KEY=VALUE ...             the next message in the queue: device, client, listener, helo, tls, sender, to,
//	                                 subject, message_id, eight_bit, utf8, size
//	received PATTERN                 its Received field, unfolded
//	body "TEXT"                      the rest of it
//	nothing queued                   there is no further message
//	refused PATTERN                  the next refusal counted: client, <sender>, <recipient>, reason
//	log PATTERN                      the log has such a line
//	unlogged PATTERN                 the log has no such line
func TestDialogs(t *testing.T) {
	files, err := filepath.Glob("testdata/*.dialog")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogs in testdata", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".dialog"), func(t *testing.T) {
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				d := &dialog{T: t, box: newBox(t), clients: make(map[string]*dialogClient), tlsMode: config.ListenStartTLS}
				defer d.end()
				for i, line := range strings.Split(string(script), "\n") {
					if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
						continue
					}
					if err := d.step(line); err != nil {
						t.Fatalf("%s:%d: %s\n%v\nlog:\n%s", file, i+1, line, err, d.log)
					}
				}
			})
		})
	}
}

type dialog struct {
	*testing.T
	*box
	tlsMode  config.ListenTLS
	listener *pipeListener // nil: not yet serving
	served   chan error
	clients  map[string]*dialogClient
	message  *testMessage // the one "queued" was last asked of
	stopped  chan struct{}
}

// dialogClient sends from a goroutine of its own: pipes hold nothing, and a real client's socket does.
type dialogClient struct {
	conn net.Conn
	in   *bufio.Reader
	out  chan []byte
	done chan struct{}
}

var stepForm = regexp.MustCompile(`^(?:([a-z]) )?(?:(\d+) )?(->|~>|<-|<~|[a-z]+)(?: (.*))?$`)

func (d *dialog) step(line string) error {
	parts := stepForm.FindStringSubmatch(line)
	if parts == nil {
		return errors.New("no step of a dialog")
	}
	name, verb, argument := parts[1], parts[3], parts[4]
	times := 1
	if parts[2] != "" {
		times, _ = strconv.Atoi(parts[2])
	}
	if name == "" {
		return d.setting(verb, argument)
	}
	if verb == "open" {
		return d.open(name, argument)
	}
	if d.clients[name] == nil {
		if err := d.open(name, ""); err != nil {
			return err
		}
	}
	began := time.Now()
	err := d.clients[name].step(verb, argument, times)
	if late := time.Since(began); err == nil && late > 0 {
		err = fmt.Errorf("it took %v; time is let pass with wait", late)
	}
	return err
}

func (d *dialog) open(name, client string) error {
	if client == "" {
		client = "192.168.1.40"
	}
	if d.listener == nil {
		d.listener = newPipeListener("192.168.1.5:25")
		d.served = make(chan error, 1)
		go func() { d.served <- d.Serve(d.listener, config.Listener{Address: ":25", TLS: d.tlsMode}) }()
	}
	conn := d.listener.dial(client)
	if conn == nil {
		return errors.New("the listener is closed")
	}
	c := &dialogClient{}
	c.use(conn)
	d.clients[name] = c
	return nil
}

// use has the client go on over conn.
func (c *dialogClient) use(conn net.Conn) {
	c.conn, c.in = conn, bufio.NewReader(conn)
	c.out, c.done = make(chan []byte, 10000), make(chan struct{})
	go func(out <-chan []byte, done chan<- struct{}) {
		defer close(done)
		for bytes := range out {
			conn.Write(bytes) // a server that has hung up shows when the client reads
		}
	}(c.out, c.done)
}

func (c *dialogClient) step(verb, argument string, times int) error {
	switch verb {
	case "->":
		for i := range times {
			c.out <- []byte(strings.ReplaceAll(argument, "{n}", strconv.Itoa(i)) + "\r\n")
		}
	case "~>":
		text, err := strconv.Unquote(argument)
		if err != nil {
			return err
		}
		for range times {
			c.out <- []byte(text)
		}
	case "<-":
		line, err := c.in.ReadString('\n')
		if argument == "closed" {
			if err == nil || line != "" {
				return fmt.Errorf("the server says %q", line)
			}
			return nil
		}
		if err != nil {
			return err
		}
		return match(argument, strings.TrimSuffix(line, "\r\n"))
	case "<~":
		for range times {
			if err := c.readReply(argument); err != nil {
				return err
			}
		}
	case "tls":
		close(c.out)
		<-c.done
		conn := tls.Client(c.conn, clientTLS)
		if err := conn.Handshake(); err != nil {
			return err
		}
		c.use(conn)
	case "close":
		c.close()
	default:
		return errors.New("no such step")
	}
	return nil
}

func (c *dialogClient) readReply(code string) error {
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return fmt.Errorf("%q, %w", line, err)
		}
		if !strings.HasPrefix(line, code) {
			return fmt.Errorf("the server says %q", line)
		}
		if !strings.HasPrefix(line, code+"-") {
			return nil
		}
	}
}

func (c *dialogClient) close() {
	synctest.Wait() // what was sent before arrives before
	c.conn.Close()
	close(c.out)
	c.out = make(chan []byte, 1)
}

func (d *dialog) setting(verb, argument string) error {
	switch verb {
	case "listen":
		d.tlsMode = config.ListenTLS(argument)
	case "rules":
		return d.changeRules(strings.Fields(argument))
	case "queue":
		return d.changeQueue(argument)
	case "wait":
		span, err := time.ParseDuration(argument)
		if err != nil {
			return err
		}
		<-time.After(span)
		synctest.Wait()
	case "stop":
		d.stopped = make(chan struct{})
		go func() {
			defer close(d.stopped)
			d.Shutdown(context.Background())
		}()
		synctest.Wait()
	case "queued":
		synctest.Wait()
		if d.message = d.queue.next(); d.message == nil {
			return errors.New("there is no message in the queue")
		}
		return d.matchEnvelope(argument)
	case "received":
		received, _ := d.message.split()
		return match(argument, received)
	case "body":
		want, err := strconv.Unquote(argument)
		if err != nil {
			return err
		}
		if _, body := d.message.split(); body != want {
			return fmt.Errorf("the body is %q", body)
		}
	case "nothing":
		synctest.Wait()
		if m := d.queue.next(); m != nil {
			return fmt.Errorf("there is a message to %v", m.envelope.Recipients)
		}
	case "refused":
		return match(argument, d.refusals.next())
	case "log":
		if !d.logged(argument) {
			return errors.New("the log has no such line")
		}
	case "unlogged":
		if d.logged(argument) {
			return errors.New("the log has such a line")
		}
	default:
		return errors.New("no such step")
	}
	return nil
}

func (d *dialog) logged(pattern string) bool {
	synctest.Wait()
	for line := range strings.Lines(d.log.String()) {
		if match("*"+pattern+"*", strings.TrimSpace(line)) == nil {
			return true
		}
	}
	return false
}

func (d *dialog) changeRules(pairs []string) error {
	for _, pair := range pairs {
		key, value, _ := strings.Cut(pair, "=")
		number, _ := strconv.Atoi(value)
		switch key {
		case "max_message_size":
			d.rules.MaxMessageSize = int64(number)
		case "max_connections":
			d.rules.MaxConnections = number
		case "max_connections_per_address":
			d.rules.MaxConnectionsPerAddress = number
		case "hostname":
			d.rules.Hostname = value
		default:
			return fmt.Errorf("no rule %q", key)
		}
	}
	d.SetRules(d.rules)
	return nil
}

func (d *dialog) changeQueue(argument string) error {
	means, word, _ := strings.Cut(argument, " ")
	err, known := map[string]error{"ok": nil, "full": spool.ErrFull, "closed": spool.ErrClosed,
		"broken": errors.New("input/output error")}[word]
	if !known {
		return errors.New("no such state of the queue")
	}
	d.queue.mu.Lock()
	defer d.queue.mu.Unlock()
	switch means {
	case "room":
		d.queue.room = err
	case "write":
		d.queue.write = err
	case "accept":
		d.queue.accept = err
	default:
		return errors.New("no such means of the queue")
	}
	return nil
}

var pairForm = regexp.MustCompile(`([a-z_0-9]+)=("[^"]*"|\S*)`)

func (d *dialog) matchEnvelope(argument string) error {
	e := d.message.envelope
	var to []string
	for _, recipient := range e.Recipients {
		to = append(to, recipient.Address)
	}
	got := map[string]string{
		"device": e.Device, "client": e.Client, "listener": e.Listener, "helo": e.Helo, "tls": e.TLS, "sender": e.Sender,
		"to": strings.Join(to, ","), "subject": e.Subject, "message_id": e.MessageID,
		"eight_bit": strconv.FormatBool(e.EightBit), "utf8": strconv.FormatBool(e.UTF8), "size": strconv.FormatInt(e.Size, 10),
	}
	for _, pair := range pairForm.FindAllStringSubmatch(argument, -1) {
		value, known := got[pair[1]]
		if !known {
			return fmt.Errorf("an envelope has no %q", pair[1])
		}
		want := pair[2]
		if unquoted, err := strconv.Unquote(want); err == nil {
			want = unquoted
		}
		if err := match(want, value); err != nil {
			return fmt.Errorf("%s: %w", pair[1], err)
		}
	}
	return nil
}

// match compares text with a pattern in which * stands for anything.
func match(pattern, text string) error {
	expression := "^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `.*`) + "$"
	if !regexp.MustCompile("(?s)" + expression).MatchString(text) {
		return fmt.Errorf("it is %q", text)
	}
	return nil
}

// end hangs up and sees that the server comes to rest.
func (d *dialog) end() {
	for _, c := range d.clients {
		c.conn.Close()
		close(c.out)
	}
	if d.stopped == nil {
		if err := d.Shutdown(context.Background()); err != nil {
			d.Error(err)
		}
	} else {
		<-d.stopped
	}
	if d.served != nil {
		if err := <-d.served; err != nil {
			d.Error("Serve:", err)
		}
	}
	if stats := d.Stats(); !reflect.DeepEqual(stats, Stats{}) {
		d.Errorf("after the end: %+v", stats)
	}
	if created, ended := int(d.queue.created), d.queue.accepted+d.queue.aborted; created != ended {
		d.Errorf("%d messages were begun, %d accepted or aborted", created, ended)
	}
}
