// Command benchmark measures Mailchute beside Postfix: both relay the same mail to the same sink, on the same disk,
// in turns, and a table of medians says where they stand. scripts/bench builds and runs it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// options are the command line.
type options struct {
	Only      []string `help:"Only these rows (names as in the table's first column) or the groups they are measured in."`
	Rounds    int      `default:"3" help:"How often each figure is measured; the table shows medians."`
	Quick     bool     `help:"A tenth of the messages: shows that everything runs, measures little."`
	Peer      string   `default:"postfix" enum:"postfix,none" help:"What to compare with: ${enum}."`
	Mailchute string   `default:"build/mailchute" help:"The binary to measure, or none."`
	Folder    string   `default:"/var/tmp" help:"Where queues and state folders are made; its disk is what is measured."`
	Profile   string   `help:"Folder for a perf profile of Mailchute in the first round of each group, which it slows." placeholder:"DIR"`

	MessagesPerConnection int `default:"0" help:"After how many messages a scanner connects anew; 0: never."`
}

func main() {
	var o options
	parser := kong.Parse(&o, kong.Name("bench"),
		kong.Description("Measures Mailchute beside Postfix. Must run as root, because Postfix must."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	parser.FatalIfErrorf(run(ctx, o))
}

// run measures round by round, the relays in turns, so that a machine that slows down slows all of them.
func run(ctx context.Context, o options) error {
	groups, err := selectGroups(o.Only)
	if err != nil {
		return err
	}
	if o.Rounds < 1 {
		return fmt.Errorf("--rounds: found %d, need 1 or more", o.Rounds)
	}
	bench, err := newBench(o)
	if err != nil {
		return err
	}
	defer bench.close()
	fmt.Println(describeMachine(bench.folder, o))
	results := results{}
	failures := 0
	for _, group := range groups {
		for round := range o.Rounds {
			for _, contender := range bench.contenders() {
				if !slices.Contains(group.contenders, contender) {
					continue
				}
				figures, err := bench.measure(ctx, group, contender, round)
				if ctx.Err() != nil {
					return fmt.Errorf("stopped: %w", context.Cause(ctx))
				}
				fmt.Fprintf(os.Stderr, "%-8s round %d  %-9s  %s\n", group.name, round+1, contender, figures)
				if err != nil {
					failures++
					fmt.Fprintf(os.Stderr, "%s, round %d, %s failed: %v\n", group.name, round+1, contender, err)
				}
				results.add(contender, figures)
			}
		}
	}
	fmt.Println(table(groups, results))
	for _, note := range bench.notes {
		fmt.Println(note)
	}
	if failures > 0 {
		return fmt.Errorf("%d measurements failed, see above", failures)
	}
	return nil
}

// selectGroups finds the groups that the names, of rows or groups, belong to; all without a name.
func selectGroups(names []string) ([]group, error) {
	if len(names) == 0 {
		return groups, nil
	}
	var known []string
	wanted := map[string]bool{}
	for _, g := range groups {
		for _, name := range append(g.rowNames(), g.name) {
			known = append(known, name)
			if slices.Contains(names, name) {
				wanted[g.name] = true
			}
		}
	}
	slices.Sort(known)
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("--only: found %q, known are %s", name, strings.Join(slices.Compact(known), ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(groups), func(g group) bool { return !wanted[g.name] }), nil
}
