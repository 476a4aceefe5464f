package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"mailchute/appliance/config"
	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

// problem makes the answer to an error of the box: a problem as RFC 9457 describes it.
func problem(err error) error {
	if err == nil {
		return nil
	}
	var settings config.Problems
	if errors.As(err, &settings) {
		return settingsProblem(settings)
	}
	return huma.NewError(statusOf(err), err.Error())
}

func statusOf(err error) int {
	is := func(targets ...error) bool {
		for _, target := range targets {
			if errors.Is(err, target) {
				return true
			}
		}
		return false
	}
	switch {
	case is(ErrInvalid):
		return http.StatusUnprocessableEntity
	case is(spool.ErrBusy):
		return http.StatusConflict
	case is(spool.ErrNotFound, trace.ErrNotFound):
		return http.StatusNotFound
	case is(spool.ErrFull):
		return http.StatusInsufficientStorage
	case is(spool.ErrClosed, trace.ErrClosed, context.Canceled, context.DeadlineExceeded):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// settingsProblem lists what is wrong with settings; the location of each is file:line:column.
func settingsProblem(found config.Problems) error {
	details := make([]error, len(found))
	for i, one := range found {
		message := fmt.Sprintf("found %s; allowed: %s; %s", one.Found, one.Allowed, one.Do)
		if one.Key != "" {
			message = one.Key + ": " + message
		}
		details[i] = &huma.ErrorDetail{Message: message, Location: fmt.Sprintf("%s:%d:%d", one.File, one.Line, one.Column)}
	}
	what := "1 problem"
	if len(found) != 1 {
		what = fmt.Sprintf("%d problems", len(found))
	}
	return huma.NewError(http.StatusUnprocessableEntity, "the settings have "+what+"; those in use stay", details...)
}
