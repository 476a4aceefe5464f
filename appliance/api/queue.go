package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

func (h handlers) registerQueue(api huma.API) {
	huma.Register(api, operation(http.MethodGet, "/queue", "queue", "Messages in the queue, the oldest first"), h.queue)
	huma.Register(api, operation(http.MethodGet, "/queue/{id}", "message", "One message in the queue"),
		func(_ context.Context, in *messageID) (*reply[spool.Envelope], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			envelope, err := h.box.Message(id)
			return &reply[spool.Envelope]{envelope}, problem(err)
		})
	huma.Register(api, operation(http.MethodGet, "/queue/{id}/body", "export", "The message as it would be sent"), h.export)

	register := func(name, summary string, act func(ctx context.Context, selected Selection, by, why string) (int, error)) {
		huma.Register(api, operation(http.MethodPost, "/queue/"+name, name, summary),
			func(ctx context.Context, in *struct{ Body Action }) (*reply[Changed], error) {
				return change(ctx, in.Body, act)
			})
	}
	register("retry", "Make messages due now", func(ctx context.Context, selected Selection, by, _ string) (int, error) {
		return h.box.Retry(ctx, selected, by)
	})
	register("hold", "Keep messages from being delivered", h.box.Hold)
	register("release", "Take messages off hold", func(ctx context.Context, selected Selection, by, _ string) (int, error) {
		return h.box.Release(ctx, selected, by)
	})
	register("delete", "Delete messages", func(ctx context.Context, selected Selection, by, _ string) (int, error) {
		return h.box.Delete(ctx, selected, by)
	})
}

// QueueList is a page of messages.
type QueueList struct {
	Messages []spool.Envelope `json:"messages"`
	Next     trace.ID         `json:"next,omitzero"` // ask after this id for the next page; absent: this was the last
}

type queueInput struct {
	State     string `query:"state" enum:"waiting,held,failed"`
	Connector string `query:"connector" maxLength:"200"`
	Device    string `query:"device" maxLength:"200"`
	Sender    string `query:"sender" maxLength:"320" doc:"address or @domain"`
	Recipient string `query:"recipient" maxLength:"320" doc:"address or @domain"`
	After     string `query:"after" maxLength:"11" doc:"only messages newer than this one: next of the page before"`
	Limit     int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

func (h handlers) queue(ctx context.Context, in *queueInput) (*reply[QueueList], error) {
	query := QueueQuery{State: QueueState(in.State), Connector: in.Connector, Device: in.Device, Sender: in.Sender, Recipient: in.Recipient, Limit: in.Limit}
	var err error
	if in.After != "" {
		if query.After, err = trace.ParseID(in.After); err != nil {
			return nil, invalid("query.after", in.After, err)
		}
	}
	envelopes, err := h.box.Queue(ctx, query)
	if err != nil {
		return nil, problem(err)
	}
	list := QueueList{Messages: notNil(envelopes)}
	if len(envelopes) >= in.Limit {
		list.Next = envelopes[len(envelopes)-1].ID
	}
	return &reply[QueueList]{list}, nil
}

// Action says which messages to change: exactly one of ids, filter and all.
type Action struct {
	IDs    []string    `json:"ids,omitempty" maxItems:"10000" doc:"message ids"`
	Filter *QueueQuery `json:"filter,omitempty" doc:"all messages that match; at least one field"`
	All    bool        `json:"all,omitempty" doc:"every message in the queue"`
	Why    string      `json:"why,omitempty" maxLength:"500" doc:"shown with a message on hold"`
}

// Changed is how many messages an action has changed.
type Changed struct {
	Changed int `json:"changed"`
}

func change(ctx context.Context, action Action, act func(context.Context, Selection, string, string) (int, error)) (*reply[Changed], error) {
	selected, err := action.selection()
	if err != nil {
		return nil, err
	}
	by, err := administrator(ctx)
	if err != nil {
		return nil, err
	}
	changed, err := act(ctx, selected, by, action.Why)
	if err != nil && changed > 0 {
		err = fmt.Errorf("%d messages were changed, but: %w", changed, err)
	}
	return &reply[Changed]{Changed{changed}}, problem(err)
}

func (a *Action) selection() (Selection, error) {
	given := 0
	for _, is := range []bool{len(a.IDs) > 0, a.Filter != nil, a.All} {
		if is {
			given++
		}
	}
	if given != 1 {
		return Selection{}, invalid("body", "", errors.New("which messages? Give exactly one of ids, filter and all"))
	}
	var selected Selection
	if a.Filter != nil {
		if *a.Filter == (QueueQuery{}) {
			return Selection{}, invalid("body.filter", "", errors.New("an empty filter matches every message: say all if that is meant"))
		}
		selected.Filter = *a.Filter
	}
	for i, text := range a.IDs {
		id, err := trace.ParseID(text)
		if err != nil {
			return Selection{}, invalid(fmt.Sprintf("body.ids[%d]", i), text, err)
		}
		selected.IDs = append(selected.IDs, id)
	}
	return selected, nil
}
