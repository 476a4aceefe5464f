package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

// Client asks a running box over its control socket.
type Client struct {
	state, socket string
	http          http.Client
}

// NewClient makes a client of the box with this state folder; whether one runs there shows with the first request.
func NewClient(state string) *Client {
	c := &Client{state: state, socket: filepath.Join(state, SocketName)}
	c.http.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", c.socket)
		},
		ResponseHeaderTimeout: time.Minute,
		DisableCompression:    true,
	}
	return c
}

// Error is a problem the box answered with (RFC 9457).
type Error struct {
	Status  int      // HTTP status
	Detail  string   // what is wrong
	Details []Detail // one by one, where there are several
}

// Detail is one of several problems.
type Detail struct {
	Location string // where: "config.toml:3:1", "query.client"; may be empty
	Message  string
}

func (e *Error) Error() string { return e.Detail }

// ErrNotRunning: nothing answers at the control socket.
var ErrNotRunning = errors.New("no box is running")

// Status asks how the box is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return ask[Status](ctx, c, http.MethodGet, "/status", nil, nil)
}

// Queue asks for a page of the queue.
func (c *Client) Queue(ctx context.Context, query QueueQuery) (QueueList, error) {
	values := url.Values{}
	set(values, "state", string(query.State))
	set(values, "connector", query.Connector)
	set(values, "device", query.Device)
	set(values, "sender", query.Sender)
	set(values, "recipient", query.Recipient)
	setID(values, "after", query.After)
	setLimit(values, query.Limit)
	return ask[QueueList](ctx, c, http.MethodGet, "/queue", values, nil)
}

// Message asks for a queued message.
func (c *Client) Message(ctx context.Context, id trace.ID) (spool.Envelope, error) {
	return ask[spool.Envelope](ctx, c, http.MethodGet, "/queue/"+id.String(), nil, nil)
}

// Export copies a queued message to writer; an error says that not all of it came.
func (c *Client) Export(ctx context.Context, id trace.ID, writer io.Writer) error {
	response, err := c.do(ctx, http.MethodGet, "/queue/"+id.String()+"/body", nil, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(writer, response.Body); err != nil {
		return fmt.Errorf("message %s has not been exported whole: %w", id, c.explain(err))
	}
	return nil
}

// Change does an action: "retry", "hold", "release" or "delete".
func (c *Client) Change(ctx context.Context, name string, action Action) (Changed, error) {
	return ask[Changed](ctx, c, http.MethodPost, "/queue/"+name, nil, action)
}

// Trace asks for a page of records, those of the queue included.
func (c *Client) Trace(ctx context.Context, query trace.Query) (TraceList, error) {
	values := url.Values{}
	set(values, "address", query.Address)
	set(values, "device", query.Device)
	if query.Client.IsValid() {
		set(values, "client", query.Client.String())
	}
	setTime(values, "from", query.From)
	setTime(values, "until", query.Until)
	set(values, "state", string(query.State))
	setID(values, "before", query.Before)
	setLimit(values, query.Limit)
	return ask[TraceList](ctx, c, http.MethodGet, "/trace", values, nil)
}

// Record asks what happened to one message.
func (c *Client) Record(ctx context.Context, id trace.ID) (trace.Record, error) {
	return ask[trace.Record](ctx, c, http.MethodGet, "/trace/"+id.String(), nil, nil)
}

// Strangers asks who was refused.
func (c *Client) Strangers(ctx context.Context) (StrangerList, error) {
	return ask[StrangerList](ctx, c, http.MethodGet, "/strangers", nil, nil)
}

// Send hands in a test message.
func (c *Client) Send(ctx context.Context, message TestMessage) (Handed, error) {
	return ask[Handed](ctx, c, http.MethodPost, "/messages", nil, message)
}

// Settings asks for the settings document.
func (c *Client) Settings(ctx context.Context) (SettingsText, error) {
	return ask[SettingsText](ctx, c, http.MethodGet, "/settings", nil, nil)
}

// CheckSettings asks what is wrong with a text that is to become the settings document.
func (c *Client) CheckSettings(ctx context.Context, text string) error {
	_, err := ask[struct{}](ctx, c, http.MethodPost, "/settings/check", nil, SettingsText{text})
	return err
}

// Reload has the box apply its settings document.
func (c *Client) Reload(ctx context.Context) error {
	_, err := ask[struct{}](ctx, c, http.MethodPost, "/settings/reload", nil, nil)
	return err
}

func set(values url.Values, name, value string) {
	if value != "" {
		values.Set(name, value)
	}
}

func setID(values url.Values, name string, id trace.ID) {
	if id != 0 {
		values.Set(name, id.String())
	}
}

func setTime(values url.Values, name string, at time.Time) {
	if !at.IsZero() {
		values.Set(name, at.Format(time.RFC3339Nano))
	}
}

func setLimit(values url.Values, limit int) {
	if limit != 0 {
		values.Set("limit", strconv.Itoa(limit))
	}
}

// ask sends a request, with a body where that is not nil, and reads the answer.
func ask[T any](ctx context.Context, c *Client, method, path string, query url.Values, body any) (answer T, err error) {
	response, err := c.do(ctx, method, path, query, body)
	if err != nil {
		return answer, err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusNoContent {
		return answer, nil
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return answer, fmt.Errorf("the box's answer to %s %s cannot be read: %w", method, path, err)
	}
	return answer, nil
}

// do gives the answer where it is a good one.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, error) {
	target := url.URL{Scheme: "http", Host: "mailchute", Path: Prefix + path, RawQuery: query.Encode()}
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, target.String(), content)
	if err != nil {
		return nil, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.explain(err)
	}
	if response.StatusCode >= 300 {
		defer response.Body.Close()
		return nil, readError(response)
	}
	return response, nil
}

// explain says where no box was found, and what to do.
func (c *Client) explain(err error) error {
	var dial *net.OpError
	if !errors.As(err, &dial) || dial.Op != "dial" {
		var request *url.Error
		if errors.As(err, &request) {
			err = request.Err // without an address that is not one on any network
		}
		return fmt.Errorf("the box has not answered to the end (%w): its log may say why", err)
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("the control socket %s is only for root and the user the box runs as: run this command as one of them, for instance with sudo", c.socket)
	}
	return fmt.Errorf("%w in %s: nothing answers at %s (%w); start one with \"mailchute serve --state %s\", or name the state folder of one that runs by --state",
		ErrNotRunning, c.state, c.socket, dial.Err, c.state)
}

func readError(response *http.Response) error {
	var model huma.ErrorModel
	text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if json.Unmarshal(text, &model) != nil || model.Detail == "" {
		return &Error{Status: response.StatusCode, Detail: fmt.Sprintf("the box answered %s: %.200s", response.Status, strings.TrimSpace(string(text)))}
	}
	failure := &Error{Status: response.StatusCode, Detail: model.Detail}
	for _, detail := range model.Errors {
		failure.Details = append(failure.Details, Detail{Location: detail.Location, Message: detail.Message})
	}
	return failure
}
