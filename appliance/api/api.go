package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

// Prefix is where every address of the API begins.
const Prefix = "/api/v1"

const (
	maxRequest  = 512 << 10 // bytes of a request's body
	maxSettings = 4 << 20   // the same where it carries settings: 1 MiB of them, escaped as JSON

	// writeTimeout is how long a client may take to read an answer, or, of an export, 64 KiB.
	writeTimeout = 30 * time.Second
)

// Handler answers HTTP requests under Prefix; its description (OpenAPI 3.1) is at Prefix/openapi.json. Who asks is
// in the request's context, see WithAdministrator.
func Handler(box Box, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	settings := huma.DefaultConfig("Mailchute", "1")
	settings.CreateHooks = nil // no "$schema" in every answer
	settings.DocsPath = ""
	settings.SchemasPath = ""
	settings.OpenAPIPath = Prefix + "/openapi"
	settings.RejectUnknownQueryParameters = true
	described := humago.New(mux, settings)

	h := handlers{box: box, log: log}
	h.registerStatus(described)
	h.registerQueue(described)
	h.registerTrace(described)
	h.registerSettings(described)
	return mux
}

// handlers translates between HTTP and the box.
type handlers struct {
	box Box
	log *slog.Logger
}

// reply is an answer with a JSON body.
type reply[T any] struct{ Body T }

func operation(method, path, id, summary string) huma.Operation {
	return huma.Operation{Method: method, Path: Prefix + path, OperationID: id, Summary: summary, MaxBodyBytes: maxRequest}
}

func (h handlers) registerStatus(api huma.API) {
	huma.Register(api, operation(http.MethodGet, "/status", "status", "How the box is"),
		func(context.Context, *struct{}) (*reply[Status], error) { return &reply[Status]{h.box.Status()}, nil })

	send := operation(http.MethodPost, "/messages", "send", "Hand in a test message")
	send.DefaultStatus = http.StatusAccepted
	huma.Register(api, send, func(ctx context.Context, in *struct{ Body TestMessage }) (*reply[Handed], error) {
		by, err := administrator(ctx)
		if err != nil {
			return nil, err
		}
		id, err := h.box.Send(ctx, in.Body, by)
		return &reply[Handed]{Handed{id}}, problem(err)
	})
}

// Handed is the answer to a test message that is in the queue now.
type Handed struct {
	ID trace.ID `json:"id"`
}

func (h handlers) registerTrace(api huma.API) {
	huma.Register(api, operation(http.MethodGet, "/trace", "trace", "What happened to messages, the newest first"), h.trace)
	huma.Register(api, operation(http.MethodGet, "/trace/{id}", "record", "What happened to one message"),
		func(_ context.Context, in *messageID) (*reply[trace.Record], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			record, err := h.box.Record(id)
			return &reply[trace.Record]{record}, problem(err)
		})
	huma.Register(api, operation(http.MethodGet, "/strangers", "strangers", "Who was refused, the last seen first"),
		func(context.Context, *struct{}) (*reply[StrangerList], error) {
			return &reply[StrangerList]{StrangerList{notNil(h.box.Strangers())}}, nil
		})
}

// TraceList is a page of records.
type TraceList struct {
	Records []trace.Record `json:"records"`
	Next    trace.ID       `json:"next,omitzero"` // ask before this id for the next page; absent: this was the last
}

// StrangerList is everybody who was refused, at most a thousand.
type StrangerList struct {
	Strangers []trace.Stranger `json:"strangers"`
}

type traceInput struct {
	Address string    `query:"address" maxLength:"320" doc:"sender or recipient, or @domain"`
	Device  string    `query:"device" maxLength:"200"`
	Client  string    `query:"client" maxLength:"60" doc:"IP address it was handed in from"`
	From    time.Time `query:"from" doc:"handed in at this time or later"`
	Until   time.Time `query:"until" doc:"handed in before this time"`
	State   string    `query:"state" enum:"waiting,sent,failed,deleted" doc:"of any recipient"`
	Before  string    `query:"before" maxLength:"11" doc:"only messages older than this one: next of the page before"`
	Limit   int       `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

func (h handlers) trace(ctx context.Context, in *traceInput) (*reply[TraceList], error) {
	query := trace.Query{Address: in.Address, Device: in.Device, From: in.From, Until: in.Until, State: trace.State(in.State), Limit: in.Limit}
	var err error
	if in.Before != "" {
		if query.Before, err = trace.ParseID(in.Before); err != nil {
			return nil, invalid("query.before", in.Before, err)
		}
	}
	if in.Client != "" {
		if query.Client, err = netip.ParseAddr(in.Client); err != nil {
			return nil, invalid("query.client", in.Client, fmt.Errorf("%q is not an IP address, such as 192.168.1.40 or fd00::7", in.Client))
		}
	}
	records, err := h.box.Trace(ctx, query)
	if err != nil {
		return nil, problem(err)
	}
	list := TraceList{Records: notNil(records)}
	if len(records) >= in.Limit {
		list.Next = records[len(records)-1].ID
	}
	return &reply[TraceList]{list}, nil
}

// SettingsText is a settings document.
type SettingsText struct {
	Text string `json:"text" maxLength:"1048576" doc:"config.toml"`
}

func (h handlers) registerSettings(api huma.API) {
	huma.Register(api, operation(http.MethodGet, "/settings", "settings", "The settings document"),
		func(context.Context, *struct{}) (*reply[SettingsText], error) {
			text, err := h.box.Settings()
			return &reply[SettingsText]{SettingsText{text}}, problem(err)
		})
	check := operation(http.MethodPost, "/settings/check", "check-settings", "What is wrong with a settings document")
	check.MaxBodyBytes = maxSettings
	huma.Register(api, check, func(_ context.Context, in *struct{ Body SettingsText }) (*struct{}, error) {
		return nil, problem(h.box.CheckSettings(in.Body.Text))
	})
	huma.Register(api, operation(http.MethodPost, "/settings/reload", "reload-settings", "Apply the settings document"),
		func(ctx context.Context, _ *struct{}) (*struct{}, error) {
			by, err := administrator(ctx)
			if err != nil {
				return nil, err
			}
			return nil, problem(h.box.Reload(ctx, by))
		})
}

// messageID is the id in the address of a message.
type messageID struct {
	ID string `path:"id" maxLength:"11" doc:"message id"`
}

func (m messageID) parse() (trace.ID, error) {
	id, err := trace.ParseID(m.ID)
	if err != nil {
		return 0, invalid("path.id", m.ID, err)
	}
	return id, nil
}

// invalid is the answer to a parameter that is not what it should be.
func invalid(location, value string, err error) error {
	return huma.Error422UnprocessableEntity(err.Error(), &huma.ErrorDetail{Message: err.Error(), Location: location, Value: value})
}

type administratorKey struct{}

// WithAdministrator names who asks: the user at the other end of a socket, or who has signed in.
func WithAdministrator(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, administratorKey{}, name)
}

// administrator tells who asks; what nobody has asked for is not done.
func administrator(ctx context.Context) (string, error) {
	name, _ := ctx.Value(administratorKey{}).(string)
	if name == "" {
		return "", huma.Error403Forbidden("it is not known who asks for this; use the control socket in the state folder")
	}
	return name, nil
}

// notNil makes a list that is [] in JSON where it is empty.
func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// export streams a message's body. Its length is announced, so that a client notices an end too early.
func (h handlers) export(_ context.Context, in *messageID) (*huma.StreamResponse, error) {
	id, err := in.parse()
	if err != nil {
		return nil, err
	}
	envelope, err := h.box.Message(id)
	if err != nil {
		return nil, problem(err)
	}
	body, err := h.box.Body(id)
	if err != nil {
		return nil, problem(err)
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		defer body.Close()
		ctx.SetHeader("Content-Type", "message/rfc822")
		ctx.SetHeader("Content-Length", fmt.Sprint(envelope.Size))
		ctx.SetHeader("Content-Disposition", fmt.Sprintf("attachment; filename=%q", id.String()+".eml"))
		_, writer := humago.Unwrap(ctx)
		patient := &patientWriter{writer: writer, control: http.NewResponseController(writer)}
		if _, err := io.CopyBuffer(patient, onlyReader{body}, make([]byte, 64<<10)); err != nil {
			if errors.Is(err, spool.ErrDamaged) {
				h.log.Error("a message could not be exported whole", "message", id, "error", err)
			}
			panic(http.ErrAbortHandler) // closes the connection: the client sees that this is not the end
		}
	}}, nil
}

// onlyReader keeps io.Copy from a WriteTo that would write without renewing deadlines.
type onlyReader struct{ io.Reader }

// patientWriter gives every write its own time.
type patientWriter struct {
	writer  io.Writer
	control *http.ResponseController
}

func (p *patientWriter) Write(data []byte) (int, error) {
	if err := p.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return 0, err
	}
	return p.writer.Write(data)
}
