package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"mailchute/appliance"
	"mailchute/appliance/config"
)

type serveCommand struct{}

// Run runs the box until it is told to stop: by SIGTERM or SIGINT. SIGHUP has it apply changed settings.
func (serveCommand) Run(ctx context.Context, terminal *terminal, typed *commands) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	err := appliance.Run(ctx, appliance.Options{
		State: typed.State, Version: buildVersion(), Log: newLog(terminal.err, terminal.json), Hangup: hangup,
	})
	if problems := (config.Problems)(nil); errors.As(err, &problems) {
		return &statusError{exitUsage, err}
	}
	return err
}
