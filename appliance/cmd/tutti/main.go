// Command tutti is the node, the operator's tool, the wallet and the benchmark in one binary.
//
// This package is the command line only: it parses, asks, prints, and calls the packages that do the work. Commands
// hang off newRoot, one file a group; run.go, localnet.go and bench.go add theirs the same way.
//
// Exit status: 0 success, 1 failure, 2 wrong usage. An error is one line on standard error that says what to do. With
// --json standard output holds exactly one JSON value. SIGINT and SIGTERM cancel the context that every command runs
// under; a second one ends the process at once.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"tutti/appliance/api"
	"tutti/appliance/config"
	"tutti/appliance/keys"
)

func main() { os.Exit(start(keys.CostStandard)) }

// start runs the process's command line under its signals.
func start(cost keys.Cost) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first signal asks, the second one kills
	return run(ctx, app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, cost: cost}, os.Args[1:])
}

// app is what commands share. It is copied into each run and not modified after flags are parsed.
type app struct {
	stdin          *os.File
	stdout, stderr io.Writer
	cost           keys.Cost // of new keystores; tests use the cheap one
	homeFlag       string
	json           bool
	began          bool // a command's own code ran: what went wrong before is wrong usage
}

// run executes one command line and returns the exit status.
func run(ctx context.Context, a app, args []string) int {
	root := newRoot(&a)
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	var ended exitStatus
	if errors.As(err, &ended) {
		return int(ended)
	}
	line := oneLine(err)
	var refused *api.Error
	if errors.As(err, &refused) {
		if r, ok := api.Lookup(refused.Code); ok {
			line += ": " + strings.TrimSuffix(r.Remedy, ".")
			if refused.RetryAfter > 0 {
				line += fmt.Sprintf(": %.1f s", refused.RetryAfter.Seconds())
			}
		}
	}
	var usage usageError
	if errors.As(err, &usage) || !a.began {
		fmt.Fprintf(a.stderr, "tutti: %s: see '%s --help'\n", line, cmd.CommandPath())
		return 2
	}
	fmt.Fprintf(a.stderr, "tutti: %s\n", line)
	return 1
}

// oneLine is the text of an error, whose further lines are joined by semicolons.
func oneLine(err error) string {
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.ReplaceAll(strings.Join(lines, "; "), ":; ", ": ")
}

// exitStatus is that of a process that did the work and has said why it failed.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// usageError marks a command line that makes no sense, as opposed to one that failed.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// newRoot builds the command tree.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "tutti",
		Short: "Tutti: a validator appliance for a sharded network with one-second finality",
		Long: `Tutti: a validator appliance for a sharded network with one-second finality.

Everything of a node or wallet lies in its home folder: --home, else $TUTTI_HOME, else ./localnet where there is
one, else ~/.tutti. Passwords come from --password-file, $TUTTI_PASSWORD_FILE, the home folder, or a question; the
addresses of nodes from --api, $TUTTI_API, or the home folder.`,
		Example: `  tutti doctor                     is this machine fit?
  tutti init --genesis FILE        make a node's home: options and keys
  tutti wallet send demo ID 100    pay, and keep the proof`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.HiddenDefaultCmd = false
	root.PersistentFlags().StringVar(&a.homeFlag, "home", "", "home folder (default $TUTTI_HOME, else ./localnet, else ~/.tutti)")
	root.AddCommand(commands(a)...)
	a.strict(root)
	return root
}

// commands is all commands in the order of help.
func commands(a *app) []*cobra.Command {
	return []*cobra.Command{
		initCommand(a), genesisCommand(a), keysCommand(a), runCommand(a), localnetCommand(a), brokerCommand(a),
		stateCommand(a), protectionCommand(a), evidenceCommand(a), walletCommand(a), lightCommand(a), statusCommand(a), benchCommand(a), doctorCommand(a), versionCommand(a),
	}
}

// strict gives groups of commands an answer to unknown ones, and makes every command say when its own code begins; in
// the whole tree below c.
func (a *app) strict(c *cobra.Command) {
	if c.HasSubCommands() && c.RunE == nil {
		c.Args = cobra.ArbitraryArgs
		c.RunE = func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			if near := c.SuggestionsFor(args[0]); len(near) > 0 {
				return usagef("unknown command %q, did you mean %q?", args[0], near[0])
			}
			return usagef("unknown command %q", args[0])
		}
		c.SuggestionsMinimumDistance = 2
	}
	if own := c.RunE; own != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			a.began = true
			return own(c, args)
		}
	}
	for _, sub := range c.Commands() {
		a.strict(sub)
	}
}

// arguments demands exactly the named arguments.
func arguments(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usagef("%s is missing", names[len(args)])
		}
		if len(args) > len(names) {
			return usagef("%q is one argument too many", args[len(names)])
		}
		return nil
	}
}

// jsonFlag adds --json to a command.
func (a *app) jsonFlag(c *cobra.Command) *cobra.Command {
	c.Flags().BoolVar(&a.json, "json", false, "print one JSON value for programs")
	return c
}

// home is the home folder that the flags and the environment name. It may not exist.
func (a *app) home() (config.Home, error) { return config.FindHome(a.homeFlag) }

// existingHome is home, which must have been made by init or localnet.
func (a *app) existingHome() (config.Home, error) {
	h, err := a.home()
	if err != nil {
		return "", err
	}
	if err := config.CheckFormat(string(h), config.HomeFormat); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("%s is not a tutti home folder: make one with 'tutti init', or name another with --home", h)
		}
		return "", err
	}
	return h, nil
}

// passwordSource says where a password may come from, first to last: a file named on the command line, $TUTTI_PASSWORD_FILE,
// a file in the home folder if it is there, a question at the terminal.
type passwordSource struct {
	flag     string // file named on the command line
	home     string // file in the home folder
	question string
	isNew    bool // seals a new key: asked for twice, and not too short
}

func (a *app) password(s passwordSource) (p keys.Password, err error) {
	file := s.flag
	if file == "" {
		file = os.Getenv("TUTTI_PASSWORD_FILE")
	}
	if file == "" && s.home != "" {
		if _, err := os.Stat(s.home); err == nil {
			file = s.home
		}
	}
	if file != "" {
		p, err = keys.ReadPasswordFile(file)
	} else {
		p, err = keys.Prompt(a.stdin, a.stderr, s.question, s.isNew)
	}
	if errors.Is(err, keys.ErrNoTerminal) {
		return p, errors.New("a password is needed and there is no terminal to ask at: give --password-file FILE (mode 0600) or set TUTTI_PASSWORD_FILE")
	}
	if err == nil && s.isNew {
		err = p.ForNew()
	}
	return p, err
}
