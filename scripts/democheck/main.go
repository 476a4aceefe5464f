// Democheck does what README.md says, to the letter, and fails where it does not come out so: `make run`, the
// commands for the second terminal, the scan arrived whole, the story told, both stopped by Ctrl-C.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

const (
	scanFile    = "build/demo/scan.pdf"
	cloudFolder = "build/demo/cloud"
	stateFolder = "build/demo/mailchute"
)

func main() {
	if err := check(); err != nil {
		fmt.Fprintln(os.Stderr, "democheck:", err)
		os.Exit(1)
	}
	fmt.Println("The demo does what README.md says.")
}

// check runs in the top folder of the project.
func check() error {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		return err
	}
	commands, err := secondTerminal(string(readme))
	if err != nil {
		return err
	}
	// To be told of the interrupt also sees to it that what is started here is not deaf to it, as it would be if
	// this program itself was started in the background.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute) // the first build takes most
	defer cancel()

	demo, err := startDemo(ctx)
	if err != nil {
		return err
	}
	defer demo.stop()
	if err := demo.waitFor(ctx, "Ctrl-C stops both"); err != nil {
		return err
	}
	if printed := squeeze(demo.said()); !strings.Contains(printed, squeeze(commands[0])) {
		return fmt.Errorf("make run does not print the swaks command of README.md:\n%s", commands[0])
	}

	before, err := messages()
	if err != nil {
		return err
	}
	for _, command := range commands {
		said, err := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", command).CombinedOutput()
		fmt.Printf("$ %s\n%s", command, said)
		if err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
	}
	if err := arrived(ctx, len(before)); err != nil {
		return err
	}
	if err := storyTold(ctx); err != nil {
		return err
	}
	if err := demo.waitFor(ctx, "<archive@fabrikam.com>"); err != nil {
		return fmt.Errorf("make run does not show the message as it passes: %w", err)
	}
	return demo.interrupt(ctx)
}

// secondTerminal finds the commands in the block of the README that has swaks in it.
func secondTerminal(readme string) ([]string, error) {
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(readme, -1) {
		if !strings.HasPrefix(block[1], "swaks ") {
			continue
		}
		var commands []string
		joined := strings.ReplaceAll(block[1], "\\\n", " ")
		for line := range strings.Lines(joined) {
			if line = strings.TrimSpace(line); line != "" {
				commands = append(commands, line)
			}
		}
		if len(commands) < 3 {
			return nil, fmt.Errorf("README.md: found %q, want swaks, mailchute queue and mailchute trace", commands)
		}
		return commands, nil
	}
	return nil, errors.New("README.md: no block of commands that begins with swaks")
}

// squeeze makes every run of spaces, line ends and line joints one space.
func squeeze(text string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(text, "\\\n", " ")), " ")
}

// demo is a running `make run`.
type demo struct {
	command *exec.Cmd
	lines   chan string
	over    chan struct{} // closed when it has ended
	output  bytes.Buffer  // of the lines taken from the channel
}

func startDemo(ctx context.Context) (*demo, error) {
	d := &demo{command: exec.CommandContext(ctx, "make", "run"), lines: make(chan string, 1000), over: make(chan struct{})}
	d.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // as a terminal has it: Ctrl-C goes to the group
	d.command.Cancel = func() error { return syscall.Kill(-d.command.Process.Pid, syscall.SIGTERM) }
	reader, writer := io.Pipe()
	d.command.Stdout, d.command.Stderr = writer, writer
	if err := d.command.Start(); err != nil {
		return nil, err
	}
	go func() {
		d.command.Wait()
		writer.Close()
		close(d.over)
	}()
	go func() {
		defer close(d.lines)
		scanner := bufio.NewScanner(reader)
		for scanner.Scan() {
			fmt.Println("  |", scanner.Text())
			d.lines <- scanner.Text()
		}
	}()
	return d, nil
}

// said is what it has printed as far as waited for.
func (d *demo) said() string { return d.output.String() }

func (d *demo) waitFor(ctx context.Context, text string) error {
	for !strings.Contains(d.said(), text) {
		select {
		case line, alive := <-d.lines:
			if !alive {
				return fmt.Errorf("make run ended before it said %q", text)
			}
			d.output.WriteString(line + "\n")
		case <-ctx.Done():
			return fmt.Errorf("make run did not say %q: %w", text, ctx.Err())
		}
	}
	return nil
}

// interrupt is Ctrl-C, and looks whether all is gone afterwards.
func (d *demo) interrupt(ctx context.Context) error {
	if err := syscall.Kill(-d.command.Process.Pid, syscall.SIGINT); err != nil {
		return err
	}
	go func() {
		for range d.lines { // what it still says
		}
	}()
	select {
	case <-d.over:
	case <-time.After(40 * time.Second):
		return errors.New("make run is still there 40 s after Ctrl-C")
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, address := range []string{"127.0.0.1:2525", "127.0.0.1:2526"} {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return fmt.Errorf("%s still answers after Ctrl-C", address)
		}
	}
	return nil
}

// stop ends what is left after a failure.
func (d *demo) stop() {
	select {
	case <-d.over:
		return
	default:
	}
	syscall.Kill(-d.command.Process.Pid, syscall.SIGTERM)
	go func() {
		for range d.lines {
		}
	}()
	<-d.over
}

// description is the part of a stored message's JSON that is looked at.
type description struct {
	Trusted      bool     `json:"trusted"`
	Certificates []string `json:"certificates"`
	Recipients   []string `json:"recipients"`
	File         string   `json:"file"`
}

// messages are those the cloud has stored.
func messages() ([]description, error) {
	names, err := filepath.Glob(filepath.Join(cloudFolder, "*.json"))
	if err != nil {
		return nil, err
	}
	var all []description
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var one description
		if err := json.Unmarshal(data, &one); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, one)
	}
	return all, nil
}

// arrived waits until the cloud has one message more, and compares its attachment with the scan.
func arrived(ctx context.Context, before int) error {
	var last description
	err := poll(ctx, "the scan has not arrived in "+cloudFolder, func() (bool, error) {
		all, err := messages()
		if len(all) > before {
			last = all[len(all)-1]
		}
		return len(all) > before, err
	})
	if err != nil {
		return err
	}
	if !last.Trusted || len(last.Certificates) == 0 {
		return fmt.Errorf("%s: the client certificate was not trusted: %+v", last.File, last)
	}
	stored, err := os.ReadFile(last.File)
	if err != nil {
		return err
	}
	attachment, err := pdfAttachment(stored)
	if err != nil {
		return fmt.Errorf("%s: %w", last.File, err)
	}
	scan, err := os.ReadFile(scanFile)
	if err != nil {
		return err
	}
	if !bytes.Equal(attachment, scan) {
		return fmt.Errorf("%s: the attachment (%d bytes) is not %s (%d bytes)", last.File, len(attachment), scanFile, len(scan))
	}
	fmt.Printf("%s: the attachment is %s, byte for byte\n", last.File, scanFile)
	return nil
}

// storyTold asks the commands until the message has left the queue and the trace has all of its story.
func storyTold(ctx context.Context) error {
	ask := func(arguments ...string) (string, error) {
		arguments = append(arguments, "--state", stateFolder)
		said, err := exec.CommandContext(ctx, "build/mailchute", arguments...).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("mailchute %s: %w\n%s", strings.Join(arguments, " "), err, said)
		}
		return string(said), nil
	}
	id := regexp.MustCompile(`"id":\s*"(\w{11})"`)
	return poll(ctx, "mailchute does not tell that the scan was sent", func() (bool, error) {
		queue, err := ask("queue", "list", "--json")
		if err != nil || strings.Contains(queue, "archive@fabrikam.com") {
			return false, err
		}
		found, err := ask("trace", "archive@fabrikam.com", "--is", "sent", "--json")
		if err != nil {
			return false, err
		}
		message := id.FindStringSubmatch(found)
		if message == nil {
			return false, nil
		}
		story, err := ask("trace", message[1])
		if err == nil {
			fmt.Printf("$ build/mailchute trace %s --state %s\n%s", message[1], stateFolder, story)
		}
		return strings.Contains(story, "Queued mail for delivery"), err // the cloud's words
	})
}

// poll asks every 200 ms until the answer is yes, for at most 30 s.
func poll(ctx context.Context, otherwise string, ask func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		if yes, err := ask(); yes || err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return errors.New(otherwise)
		}
	}
}
