package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"mailchute/appliance/api"
	"mailchute/appliance/config"
)

type configCommands struct {
	Check   configCheck   `cmd:"" help:"Find what is wrong with a settings file."`
	Example configExample `cmd:"" help:"Print a settings file with every key, its default and a comment."`
	Reload  configReload  `cmd:"" help:"Have the running box apply its settings file."`
}

type configCheck struct {
	File string `arg:"" optional:"" help:"File to check; without it, config.toml in the state folder."`
}

// Run prints each problem on a line of its own: file:line:column: what.
func (c *configCheck) Run(terminal *terminal, typed *commands) error {
	path := c.File
	if path == "" {
		path = filepath.Join(typed.State, config.FileName)
	}
	data, err := config.Read(path)
	if err != nil {
		return &statusError{exitUsage, err}
	}
	_, err = config.Check(path, data, typed.State)
	var found config.Problems
	if err != nil && !errors.As(err, &found) {
		return err
	}
	if terminal.json {
		if found == nil {
			found = config.Problems{}
		}
		err = terminal.printJSON(map[string]any{"problems": found})
	} else if len(found) == 0 {
		_, err = fmt.Fprintf(terminal.out, "%s is valid.\n", path)
	} else {
		_, err = fmt.Fprintln(terminal.out, clean(found.Error()))
	}
	if err == nil && len(found) > 0 {
		err = &statusError{status: exitUsage}
	}
	return err
}

type configExample struct{}

func (configExample) Run(terminal *terminal) error {
	if terminal.json {
		settings, err := config.Parse("example", []byte(config.Example()))
		if err != nil {
			return err
		}
		return terminal.printJSON(settings)
	}
	_, err := io.WriteString(terminal.out, config.Example())
	return err
}

type configReload struct{}

func (configReload) Run(ctx context.Context, terminal *terminal, box *api.Client) error {
	if err := box.Reload(ctx); err != nil {
		return err
	}
	if terminal.json {
		return terminal.printJSON(map[string]bool{"applied": true})
	}
	_, err := fmt.Fprintln(terminal.out, "The settings are applied.")
	return err
}
