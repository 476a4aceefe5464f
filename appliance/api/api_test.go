package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mailchute/appliance/api"
	"mailchute/appliance/api/apitest"
	"mailchute/appliance/config"
	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

var morning = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

func envelope(minute int, to string, state trace.State) spool.Envelope {
	accepted := morning.Add(time.Duration(minute) * time.Minute)
	return spool.Envelope{Record: trace.Record{
		ID: trace.IDAt(accepted), Accepted: accepted, Device: "Floor 2", Client: "192.168.1.40", Listener: ":25",
		Sender: "scanner@contoso.com", Size: 11, Recipients: []trace.Recipient{{Address: to, State: state, Connector: "m365"}},
		Events: []trace.Event{{Time: accepted, Kind: trace.Accepted}},
	}}
}

// office is a box with two messages in the queue and one in the trace.
func office() *apitest.Box {
	waiting, failed, sent := envelope(1, "anna@contoso.com", trace.Waiting), envelope(2, "bert@contoso.com", trace.Failed), envelope(0, "carl@contoso.com", trace.Sent)
	return &apitest.Box{
		State:     api.Status{Version: "1.2.3", Hostname: "relay.contoso.com", Flowing: true},
		Envelopes: []spool.Envelope{waiting, failed},
		Bodies:    map[trace.ID]string{waiting.ID: "hello\r\nyou\x00", failed.ID: "hello\r\nyou!"},
		Records:   []trace.Record{sent.Record},
		Refused:   []trace.Stranger{{Address: netip.MustParseAddr("192.0.2.1"), Count: 3}},
		Document:  "version = 1\n",
	}
}

// serve has the box answer on a control socket; the client is one of it, and log what it logs.
func serve(t *testing.T, box *apitest.Box) (client *api.Client, log *bytes.Buffer) {
	t.Helper()
	state := shortFolder(t)
	listener, err := api.Listen(state)
	if err != nil {
		t.Fatal(err)
	}
	log = new(bytes.Buffer)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- api.Serve(ctx, listener, box, slog.New(slog.NewTextHandler(log, nil))) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(filepath.Join(state, api.SocketName)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left: %v", err)
		}
	})
	return api.NewClient(state), log
}

// shortFolder is a folder whose name leaves room for a socket's.
func shortFolder(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "api")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return folder
}

// answers checks an answer that should come without error.
func answers[T any](t *testing.T, want T) func(got T, err error) {
	return func(got T, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
	}
}

// TestClient: what the box says comes through to the client.
func TestClient(t *testing.T) {
	box := office()
	client, _ := serve(t, box)
	ctx := t.Context()
	first, second := box.Envelopes[0], box.Envelopes[1]

	answers(t, box.State)(client.Status(ctx))
	answers(t, api.QueueList{Messages: box.Envelopes})(client.Queue(ctx, api.QueueQuery{}))
	answers(t, api.QueueList{Messages: box.Envelopes[:1], Next: first.ID})(client.Queue(ctx, api.QueueQuery{Limit: 1}))
	answers(t, api.QueueList{Messages: box.Envelopes[1:]})(client.Queue(ctx, api.QueueQuery{
		State: api.QueueFailed, Connector: "M365", Device: "floor 2", Sender: "@contoso.com", Recipient: "bert@contoso.com", After: first.ID, Limit: 1000}))
	answers(t, api.QueueList{Messages: []spool.Envelope{}})(client.Queue(ctx, api.QueueQuery{State: api.QueueHeld}))
	answers(t, second)(client.Message(ctx, second.ID))
	answers(t, box.Records[0])(client.Record(ctx, box.Records[0].ID))
	answers(t, api.TraceList{Records: []trace.Record{second.Record, first.Record}, Next: first.ID})(client.Trace(ctx, trace.Query{Limit: 2}))
	answers(t, api.TraceList{Records: []trace.Record{box.Records[0]}})(client.Trace(ctx, trace.Query{
		Address: "carl@contoso.com", Device: "Floor 2", Client: netip.MustParseAddr("192.168.1.40"), State: trace.Sent,
		From: morning, Until: morning.Add(time.Nanosecond), Before: first.ID}))
	answers(t, api.StrangerList{Strangers: box.Refused})(client.Strangers(ctx))
	answers(t, api.SettingsText{Text: box.Document})(client.Settings(ctx))
	if err := client.CheckSettings(ctx, "version = 1"); err != nil {
		t.Error(err)
	}
	var body strings.Builder
	if err := client.Export(ctx, second.ID, &body); err != nil || body.String() != box.Bodies[second.ID] {
		t.Errorf("exported %q: %v", body.String(), err)
	}
	if calls := box.Called(); len(calls) != 0 {
		t.Errorf("looking has changed something: %q", calls)
	}
}

// TestChange: every change carries the name of who asked for it, taken from the socket.
func TestChange(t *testing.T) {
	box := office()
	client, _ := serve(t, box)
	ctx := t.Context()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	first, second := box.Envelopes[0].ID, box.Envelopes[1].ID
	answers(t, api.Changed{Changed: 1})(client.Change(ctx, "retry", api.Action{IDs: []string{first.String()}}))
	answers(t, api.Changed{Changed: 2})(client.Change(ctx, "hold", api.Action{All: true, Why: "too many"}))
	answers(t, api.Changed{Changed: 1})(client.Change(ctx, "release", api.Action{Filter: &api.QueueQuery{State: api.QueueFailed}}))
	answers(t, api.Changed{Changed: 1})(client.Change(ctx, "delete", api.Action{IDs: []string{second.String()}}))
	if _, err := client.Send(ctx, api.TestMessage{To: "anna@contoso.com"}); err != nil {
		t.Error(err)
	}
	if err := client.Reload(ctx); err != nil {
		t.Error(err)
	}
	want := []string{
		fmt.Sprintf("retry %v by %s", api.Selection{IDs: []trace.ID{first}}, me.Username),
		fmt.Sprintf("hold %v by %s: too many", api.Selection{}, me.Username),
		fmt.Sprintf("release %v by %s", api.Selection{Filter: api.QueueQuery{State: api.QueueFailed}}, me.Username),
		fmt.Sprintf("delete %v by %s", api.Selection{IDs: []trace.ID{second}}, me.Username),
		fmt.Sprintf("send {From: To:anna@contoso.com Connector:} by %s", me.Username),
		fmt.Sprintf("reload by %s", me.Username),
	}
	if diff := cmp.Diff(want, box.Called()); diff != "" {
		t.Error(diff)
	}

	_, err = client.Change(ctx, "delete", api.Action{IDs: []string{first.String(), second.String()}})
	var problem *api.Error
	if !errors.As(err, &problem) || problem.Status != http.StatusNotFound ||
		problem.Detail != "1 messages were changed, but: message "+second.String()+": no such message in the queue" {
		t.Errorf("where one is there and one is not: %v", err)
	}
}

// request sends what no client of ours would.
func request(box api.Box, by, method, path, body string) *http.Response {
	ctx := context.Background()
	if by != "" {
		ctx = api.WithAdministrator(ctx, by)
	}
	r := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	api.Handler(box, slog.New(slog.DiscardHandler)).ServeHTTP(w, r)
	return w.Result()
}

func TestRefused(t *testing.T) {
	for _, test := range []struct {
		method, path, body string
		status             int
		detail             string // of the first of several
	}{
		{"GET", "/queue?limit=1001", "", 422, "expected number <= 1000"},
		{"GET", "/queue?limit=0", "", 422, "expected number >= 1"},
		{"GET", "/queue?state=sleeping", "", 422, `expected value to be one of "waiting, held, failed"`},
		{"GET", "/queue?after=1", "", 422, `message id "1": 1 characters, a message id has 11`},
		{"GET", "/queue?what=1", "", 422, "unknown query parameter"},
		{"GET", "/queue/IIIIIIIIIII", "", 422, `message id "IIIIIIIIIII": "I" is not a digit of a message id (0-9, A-Z without I, L, O, U)`},
		{"GET", "/queue/00000000001", "", 404, "message 00000000001: no such message in the queue"},
		{"GET", "/queue/00000000001/body", "", 404, "message 00000000001: no such message in the queue"},
		{"GET", "/queue/1/body", "", 422, `message id "1": 1 characters, a message id has 11`},
		{"GET", "/trace/00000000001", "", 404, "message 00000000001: no such message in the trace"},
		{"GET", "/trace/1", "", 422, `message id "1": 1 characters, a message id has 11`},
		{"GET", "/trace?client=scanner", "", 422, `"scanner" is not an IP address, such as 192.168.1.40 or fd00::7`},
		{"GET", "/trace?from=yesterday", "", 422, "invalid date/time for format 2006-01-02T15:04:05.999999999Z07:00"},
		{"GET", "/trace?before=x", "", 422, `message id "x": 1 characters, a message id has 11`},
		{"POST", "/queue/delete", `{}`, 422, "which messages? Give exactly one of ids, filter and all"},
		{"POST", "/queue/delete", `{"all":true,"ids":["00000000001"]}`, 422, "which messages? Give exactly one of ids, filter and all"},
		{"POST", "/queue/delete", `{"filter":{}}`, 422, "an empty filter matches every message: say all if that is meant"},
		{"POST", "/queue/delete", `{"ids":["x"]}`, 422, `message id "x": 1 characters, a message id has 11`},
		{"POST", "/queue/delete", `{"idz":[]}`, 422, "unexpected property"},
		{"POST", "/queue/delete", `{`, 400, "unexpected end of JSON input"},
		{"POST", "/queue/delete", ``, 400, "request body is required"},
		{"POST", "/queue/delete", `{"why":"` + strings.Repeat("x", 600<<10) + `"}`, 413, ""},
		{"POST", "/messages", `{"to":""}`, 422, "expected length >= 3"},
		{"POST", "/messages", `{"to":"` + strings.Repeat("x", 321) + `"}`, 422, "expected length <= 320"},
	} {
		name := test.method + test.path + " " + test.body
		t.Run(name[:min(len(name), 60)], func(t *testing.T) {
			box := office()
			response := request(box, "anna", test.method, api.Prefix+test.path, test.body)
			var problem struct {
				Detail string
				Errors []struct{ Message string }
			}
			if err := json.NewDecoder(response.Body).Decode(&problem); err != nil {
				t.Fatal(err)
			}
			detail := problem.Detail
			if len(problem.Errors) > 0 {
				detail = problem.Errors[0].Message
			}
			if response.StatusCode != test.status || test.detail != "" && detail != test.detail {
				t.Errorf("%d %q, want %d %q", response.StatusCode, detail, test.status, test.detail)
			}
			if kind := response.Header.Get("Content-Type"); kind != "application/problem+json" {
				t.Errorf("content type %q", kind)
			}
			if calls := box.Called(); len(calls) != 0 {
				t.Errorf("and yet: %q", calls)
			}
		})
	}
}

// TestNobody: nothing is changed for somebody who has no name.
func TestNobody(t *testing.T) {
	for _, path := range []string{"/queue/retry", "/queue/hold", "/queue/release", "/queue/delete", "/messages", "/settings/reload"} {
		box := office()
		body := `{"all":true}`
		switch path {
		case "/messages":
			body = `{"to":"anna@contoso.com"}`
		case "/settings/reload":
			body = ""
		}
		if response := request(box, "", "POST", api.Prefix+path, body); response.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s", path, response.Status)
		}
		if calls := box.Called(); len(calls) != 0 {
			t.Errorf("%s: %q", path, calls)
		}
	}
}

// TestErrors: each error of the box has its status, and its text comes through.
func TestErrors(t *testing.T) {
	for err, status := range map[error]int{
		spool.ErrNotFound:                                 404,
		trace.ErrNotFound:                                 404,
		fmt.Errorf("message 0: %w", spool.ErrBusy):        409,
		errors.Join(spool.ErrNotFound, spool.ErrBusy):     409,
		fmt.Errorf("no connector x: %w", api.ErrInvalid):  422,
		spool.ErrFull:                                     507,
		spool.ErrClosed:                                   503,
		trace.ErrClosed:                                   503,
		context.Canceled:                                  503,
		errors.New("the disk has gone"):                   500,
		fmt.Errorf("wrapped: %w", spool.ErrDamaged):       500,
		fmt.Errorf("many\nlines: %w", spool.ErrNotFound):  404,
		fmt.Errorf("late: %w", context.DeadlineExceeded):  503,
		fmt.Errorf("%w: \"<scanner>\"", api.ErrInvalid):   422,
		fmt.Errorf("queue: %w", errors.ErrUnsupported):    500,
		fmt.Errorf("%w and %w", spool.ErrFull, io.EOF):    507,
		fmt.Errorf("trace: %w", errors.New("unreadable")): 500,
	} {
		box := office()
		box.Err = err
		client, _ := serve(t, box)
		id := box.Envelopes[0].ID
		calls := map[string]func() error{
			"queue":    func() error { _, err := client.Queue(t.Context(), api.QueueQuery{}); return err },
			"message":  func() error { _, err := client.Message(t.Context(), id); return err },
			"export":   func() error { return client.Export(t.Context(), id, io.Discard) },
			"hold":     func() error { _, err := client.Change(t.Context(), "hold", api.Action{All: true}); return err },
			"trace":    func() error { _, err := client.Trace(t.Context(), trace.Query{}); return err },
			"record":   func() error { _, err := client.Record(t.Context(), id); return err },
			"send":     func() error { _, err := client.Send(t.Context(), api.TestMessage{To: "a@b"}); return err },
			"settings": func() error { _, err := client.Settings(t.Context()); return err },
		}
		for name, call := range calls {
			var problem *api.Error
			if got := call(); !errors.As(got, &problem) || problem.Status != status || problem.Detail != err.Error() {
				t.Errorf("%s, %v: got %#v, want status %d", name, err, got, status)
			}
		}
	}
}

// TestSettingsProblems: each problem of a settings document comes with its place.
func TestSettingsProblems(t *testing.T) {
	box := office()
	_, box.Faults = config.Parse("config.toml", []byte("version = 2\n"))
	client, _ := serve(t, box)
	var problems config.Problems
	if !errors.As(box.Faults, &problems) || len(problems) < 2 {
		t.Fatal(box.Faults)
	}
	for name, err := range map[string]error{"check": client.CheckSettings(t.Context(), "version = 2\n"), "reload": client.Reload(t.Context())} {
		var problem *api.Error
		if !errors.As(err, &problem) {
			t.Fatalf("%s: %v", name, err)
		}
		if want := fmt.Sprintf("the settings have %d problems; those in use stay", len(problems)); problem.Detail != want || problem.Status != 422 {
			t.Errorf("%s: %d %s", name, problem.Status, problem.Detail)
		}
		for i, detail := range problem.Details {
			if got := detail.Location + ": " + detail.Message; got != problems[i].Error() {
				t.Errorf("%s: got %s, want %s", name, got, problems[i])
			}
		}
	}
}

// TestExportDamaged: a body that cannot be read to its end is not taken for a whole one.
func TestExportDamaged(t *testing.T) {
	box := office()
	var log *bytes.Buffer
	t.Cleanup(func() { // once the server has stopped
		if !strings.Contains(log.String(), "a message could not be exported whole") {
			t.Errorf("logged: %s", log)
		}
	})
	long := strings.Repeat("x", 100_000)
	box.Envelopes[1].Size = 2 * int64(len(long))
	box.Bodies[box.Envelopes[1].ID] = long + "\x00" + long
	var client *api.Client
	client, log = serve(t, box)
	for _, envelope := range box.Envelopes {
		var body strings.Builder
		err := client.Export(t.Context(), envelope.ID, &body)
		if err == nil || !strings.Contains(err.Error(), "the box has not answered to the end") {
			t.Errorf("exported %d bytes: %v", body.Len(), err)
		}
	}
}

// TestDescription: the description names every operation, for the web page's types.
func TestDescription(t *testing.T) {
	response := request(office(), "", "GET", api.Prefix+"/openapi.json", "")
	var description struct {
		Paths map[string]map[string]struct{ OperationID string }
	}
	if err := json.NewDecoder(response.Body).Decode(&description); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, operations := range description.Paths {
		for _, operation := range operations {
			names = append(names, operation.OperationID)
		}
	}
	slices.Sort(names)
	want := []string{"check-settings", "delete", "export", "hold", "message", "queue", "record", "release", "reload-settings", "retry", "send", "settings", "status", "strangers", "trace"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
}
